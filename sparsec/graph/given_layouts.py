"""Layouts that a user gives to layers, in place of those that would be chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from sparsec.errors import InputError, LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.named import (
    NAMED,
    bsr,
    combined_columns,
    n_of_m,
    permuted_diagonal,
    tile_wise,
    tile_wise_two_sided,
    tvw,
    v_n_m,
)
from sparsec.ir.notation import parse_storage
from sparsec.ir.sums import Sum

Given = str | Layout | Sum
"""A name, such as ``CSR``, a layout in the notation, or the layout itself."""

PRINTED: dict[str, Callable[..., Layout | Sum]] = {
    r"(\d+):(\d+)": n_of_m,
    r"(\d+):(\d+):(\d+)": v_n_m,
    r"block:(\d+)x(\d+)": bsr,
    r"(\d+)x(\d+) blocks": bsr,
    r"tile-wise (\d+)": tile_wise,
    r"tile-wise:(\d+),two-sided": tile_wise_two_sided,
    r"tvw:(\d+),(\d+):(\d+)": tvw,
    r"(\d+):(\d+) in (\d+)x\2 tiles": lambda n, m, width: tvw(width, n, m),
    r"diagonal:(\d+)": permuted_diagonal,
    r"diagonals of (\d+)x\1 blocks": permuted_diagonal,
    r"combine:(\d+)": combined_columns,
}
"""What else stands for a layout: the structures that `inspect` prints, and the patterns of `prune`."""


class GivenLayouts:
    """Layouts by layer.

    >>> given = GivenLayouts({"encoder.*": "CSR", "*": "(i, k) -> (i : dense, k : bitmap)"})
    >>> str(given("encoder.0.fc1"))
    '(i, k) -> (i : dense, k : compressed)'

    Parameters
    ----------
    layouts : one for all layers, or by the name of a layer, in which ``*`` stands for anything; the name itself counts
        before all others, and of the others the first that fits. Of a name with a colon, as ``fc1:linear_1``, which
        PyTorch's modules get, the part before it is a name too.

    Raises
    ------
    LayoutError : for a text that is neither a name nor in the notation
    InputError : for a layer that is not given by name
    """

    def __init__(self, layouts: Given | Mapping[str, Given] | None = None) -> None:
        found = layouts if isinstance(layouts, Mapping) else {"*": layouts} if layouts is not None else {}
        for pattern in found:
            if not isinstance(pattern, str):
                raise InputError(f"a layout was given for {pattern!r}; layers are given by name, as {str(pattern)!r}")
        self._layouts = {pattern: read_layout(layout) for pattern, layout in found.items()}
        self._layers: set[str] = set()
        self._used: set[str] = set()
        self._overridden: dict[str, str] = {}

    def __call__(self, layer: str) -> Layout | Sum | None:
        """Return the layout for a layer, None where it is free."""
        pattern, *others = self._fitting(layer) or [""]
        self._layers.add(layer)
        self._used.add(pattern)
        for other in others:
            self._overridden.setdefault(other, pattern)
        return self._layouts.get(pattern)

    def is_free(self, layer: str) -> bool:
        """Whether no layout was given for a layer."""
        return not self._fitting(layer)

    def allows_filtering(self, layer: str) -> bool:
        """Whether a layer may be computed in transformed filters: its layout is free, or dense by name."""
        return all(self._layouts[pattern].name == "dense" for pattern in self._fitting(layer)[:1])

    def for_all(self, layer: str) -> bool:
        """Whether a layer has the layout that was given for all of them."""
        return self._fitting(layer)[:1] == ["*"]

    def check_all_used(self) -> None:
        """Raise if a name fitted no layer that was asked for, or none that another name did not take.

        Raises
        ------
        InputError
        """
        for pattern in self._layouts:
            if pattern in self._used or pattern == "*":
                continue
            if pattern in self._overridden:
                raise InputError(
                    f"a layout was given for {pattern!r}, but the one for {self._overridden[pattern]!r} overrides it "
                    "in every layer that it fits; of names with * the first one counts, of the command line the last"
                )
            closest = get_close_matches(pattern, sorted(self._layers), n=3, cutoff=0)
            raise InputError(
                f"a layout was given for {pattern!r}, but no layer with weights has that name; "
                f"the closest are {', '.join(map(repr, closest)) or 'none'}, and `sparsec inspect` lists all"
            )

    def _fitting(self, layer: str) -> list[str]:
        """The names that fit a layer, the one that counts first."""
        names = (layer, layer.partition(":")[0])
        fitting = [
            pattern for pattern in self._layouts if any(pattern == name or fnmatchcase(name, pattern) for name in names)
        ]
        return sorted(fitting, key=lambda pattern: names.index(pattern) if pattern in names else len(names))


def read_layout(layout: Given) -> Layout | Sum:
    """Return a layout by its name, with numbers in place of its defaults where there are any, or from its notation.

    >>> str(read_layout("2:4"))
    '(i, k) -> (i : dense, k floordiv 4 : dense, k mod 4 : structured[2, 4])'
    >>> str(read_layout("BSR:2,1"))
    '(i, k) -> (i floordiv 2 : dense, k : compressed, i mod 2 : dense)'
    >>> read_layout("block:2x1") == read_layout("2x1 blocks") == read_layout("bsr:2,1")
    True
    """
    if isinstance(layout, Layout | Sum):
        return layout
    if not isinstance(layout, str):
        raise LayoutError(f"{layout!r} is no layout; give its name, such as 'CSR', or write it in the notation")
    if "->" in layout:
        return parse_storage(layout)
    text = layout.strip().casefold()
    for printed, make in PRINTED.items():
        if found := re.fullmatch(printed, text):
            return make(*map(int, found.groups()))
    names = {name.casefold(): name for name in NAMED}
    name, _, numbers = (text, "", "") if text in names else text.rpartition(":")
    try:
        return NAMED[names[name]](*map(int, filter(None, numbers.split(","))))
    except (KeyError, TypeError, ValueError):
        close = get_close_matches(name or text, names, n=1)
        meant = f" (did you mean {names[close[0]]}?)" if close else ""
        raise LayoutError(
            f"{layout!r} is not the name of a layout{meant}; use one of {'; '.join(NAMED)}, with numbers as in 2:4 or "
            "BSR:4,4, or write one in the notation, as (i, k) -> (i : dense, k : compressed)"
        ) from None
