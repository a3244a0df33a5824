"""The layers with weights, as `sparsec inspect` shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from sparsec.report.units import bytes_text, plural, seconds_text

Layers = Sequence[Mapping[str, Any]]
"""Each the fields of `sparsec.graph.layer.Layer`, from a report or from a manifest, and `measured` where it was."""


@dataclass(frozen=True)
class Totals:
    """Sums over layers: how many, how many of them sparse, their weights in bytes and predicted seconds of one core."""

    layers: int
    sparse: int
    nbytes: int
    dense_nbytes: int
    seconds: float
    dense_seconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than dense the layers are predicted to be."""
        return self.dense_seconds / self.seconds if self.seconds else 1.0

    def as_dict(self) -> dict[str, Any]:
        """The sums as JSON values."""
        return vars(self) | {"speedup": self.speedup}


def totals(layers: Layers) -> Totals:
    """Add layers up."""
    nbytes, dense_nbytes, seconds, dense_seconds = (
        sum(layer[name] for layer in layers) for name in ("nbytes", "dense_nbytes", "seconds", "dense_seconds")
    )
    sparse = sum(is_sparse(layer["layout"]) for layer in layers)
    return Totals(len(layers), sparse, nbytes, dense_nbytes, seconds, dense_seconds)


def is_sparse(layout: str) -> bool:
    """Whether a layout, in the notation, leaves zeros out.

    >>> is_sparse("(i, k) -> (i : dense, k : compressed)")
    True
    """
    return set(re.findall(r": (\w+)", layout)) != {"dense"}


def layer_table(layers: Layers, title: str) -> RenderableType:
    """One row for each layer, the sums below; layouts have letters, which are explained under the table."""
    letters = _letters(layers)
    table = Table(title=title, title_justify="left", show_footer=True)
    summed = totals(layers)
    table.add_column("layer", f"{plural(summed.layers, 'layer')}, {summed.sparse} sparse", overflow="fold")
    table.add_column("operator")
    table.add_column("weight", no_wrap=True)
    table.add_column("zeros", justify="right", no_wrap=True)
    table.add_column("structure")
    table.add_column("layout", no_wrap=True)
    table.add_column("bytes", bytes_text(summed.nbytes), justify="right", no_wrap=True)
    table.add_column("predicted", seconds_text(summed.seconds), justify="right", no_wrap=True)
    times = [layer["measured"] for layer in layers if "measured" in layer]
    if times:
        table.add_column("measured", seconds_text(sum(times)), justify="right", no_wrap=True)
    table.add_column("dense", seconds_text(summed.dense_seconds), justify="right", no_wrap=True)
    table.add_column("speed-up", f"{summed.speedup:.2f}×", justify="right", no_wrap=True)
    for layer in layers:
        kind = "sparse" if is_sparse(layer["layout"]) else "dense"
        table.add_row(
            layer["name"],
            layer["op"],
            "×".join(map(str, layer["shape"])),
            f"{layer['sparsity']:.1%}",
            layer["structure"],
            f"{kind} {letters[layer['layout']]}",
            bytes_text(layer["nbytes"]),
            seconds_text(layer["seconds"]),
            *([seconds_text(layer["measured"]) if "measured" in layer else "–"] if times else []),
            seconds_text(layer["dense_seconds"]),
            f"{layer['dense_seconds'] / layer['seconds']:.2f}×",
        )
    return Group(table, *(f"{letter}  {layout}" for layout, letter in letters.items()))


def _letters(layers: Layers) -> dict[str, str]:
    """Give every layout a name: A, B, …, Z, AA, AB, …"""
    layouts = list(dict.fromkeys(layer["layout"] for layer in layers))
    names = [*ascii_uppercase, *map("".join, product(ascii_uppercase, repeat=2))]
    return {layout: names[index] if index < len(names) else str(index) for index, layout in enumerate(layouts)}
