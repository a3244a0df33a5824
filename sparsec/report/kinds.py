"""Names of the kinds of layouts, read from the notation: those that `--layout` takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from math import prod

_LEVEL = re.compile(r"([ik])(?: floordiv \d+)?(?: mod (\d+))? : (\w+)(?:\[([\d, ]+)\])?")
_Level = tuple[str, str, str, str]
"""The dimension, the size where it is not the leading digit, the kind and the numbers behind it."""


def kind_of(layout: str) -> str:
    """Return the name of the kind that a layout, in the notation, is of; the notation itself where it has none.

    >>> kind_of("(i, k) -> (k floordiv 288 : dense, i : bucketed, k mod 288 : compressed)")
    'bucketed rows'
    >>> kind_of("(i, k) -> (i floordiv 4 : bucketed, k : compressed, i mod 4 : dense)")
    '4x1 blocks'
    """
    if " + " in layout:
        rest = kind_of(layout.split(" + ")[-1])
        return "TEW" if rest in ("CSR", "bucketed rows") else layout
    dims, _, text = layout.partition(" -> ")
    levels: list[_Level] = _LEVEL.findall(text)
    sparse = [level for level in levels if level[2] != "dense"]
    rows, columns = _block(levels, "i"), _block(levels, "k")
    block = f"{rows}x{columns} blocks" if rows * columns > 1 else ""
    match [kind for _, _, kind, _ in sparse]:
        case []:
            return "dense"
        case ["diagonal"] if levels[1] in sparse:
            return "dense"  # in groups of rows
        case ["slots", "singleton"]:
            return f"SELL:{levels[-2][1]}"
        case ["compressed", "singleton"]:
            return "COO"
        case ["compressed", "compressed"]:
            return "spelled out"
        case ["compressed"] | ["bucketed", "compressed"] if "condense" in dims:
            return "tile-wise, two-sided"
        case ["bucketed", "compressed"]:
            return block or "bucketed rows"
        case ["compressed"]:
            return block or ("CSR" if sparse[0][0] == "k" else "CSC")
        case ["structured"] if "combine" in dims:
            return "combined columns"
        case ["structured"]:
            return sparse[0][3].replace(", ", ":") if sparse[0][1] else "ELL"
        case ["compressed", "structured"] | ["bucketed", "compressed", "structured"]:
            return "TVW"
        case ["bitmap"] | ["bucketed", "bitmap"]:
            return "bitmap"
        case ["bitmap", "bitmap"]:
            return "two-level bitmap"
        case ["pattern", "taps"]:
            return "FKW by channel" if sparse[0][0] == "i" else "FKW"
        case ["vnm"]:
            return "V:N:M"
        case ["diagonal"]:
            return "permuted diagonal"
    return layout


def _block(levels: Sequence[_Level], dim: str) -> int:
    """Return how many coordinates of a dimension the dense levels at the end span."""
    inner = takewhile(lambda level: level[2] == "dense", reversed(levels))
    return prod(int(size) for name, size, _, _ in inner if name == dim and size)
