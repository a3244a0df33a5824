"""The layers with weights, as `sparsec inspect` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from sparsec.report.kinds import kind_of
from sparsec.report.units import bytes_text, plural, seconds_text, some

Layers = Sequence[Mapping[str, Any]]
"""Each the fields of `sparsec.graph.layer.Layer`, from a report or from a manifest, and `measured` where it was."""


@dataclass(frozen=True)
class Totals:
    """Sums over layers: how many, how many of them sparse, their weights in bytes and seconds of one core."""

    layers: int
    sparse: int
    nbytes: int
    dense_nbytes: int
    seconds: float
    dense_seconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than dense the layers are."""
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
    return kind_of(layout) != "dense"


def known_by(layers: Layers) -> str:
    """How the times of layers alone are known: they are predicted, or were measured when layouts were chosen.

    Times of the layers in their network may be measured as well.

    >>> known_by([{"timed": True}]), known_by([{"timed": True, "measured": 1e-3}])
    ('measured', 'measured alone')
    """
    known = " or ".join(sorted({"measured" if layer.get("timed") else "predicted" for layer in layers})) or "predicted"
    return f"{known} alone" if known != "predicted" and any("measured" in layer for layer in layers) else known


DROPPED = ("removed", "activations", "bytes", "off by", "dense", "weight", "predicted", "measured alone")
"""What a terminal that is too narrow for all columns goes without, the first first."""

NAME_WIDTH = 15
"""Names of layers are folded to no less than this before a column is dropped for them."""

ZEROS_WIDTH = 18
"""And what is said of zeros to no less than this, which ``90.0% unstructured`` takes."""

ASSUMED = 128
"""Columns that predictions assume where their number is open, as `sparsec.schedules.rules.prices` does."""


def layer_table(layers: Layers, title: str) -> RenderableType:
    """One row for each layer, the sums below; layouts without a name have letters, which are explained under it."""
    letters = _letters(layers)
    summed = totals(layers)
    counted = f"{plural(summed.layers, 'layer')}, {summed.sparse} sparse"
    times = [layer["measured"] for layer in layers if "measured" in layer]
    measured = [seconds_text(layer["measured"]) if "measured" in layer else "–" for layer in layers]
    columns = [
        _Column("layer", [layer["name"] for layer in layers], counted),
        _Column("weight", [weight_text(layer) for layer in layers]),
        _Column("zeros", list(map(_zeros, layers))),
        _Column("layout", [letters.get(layer["layout"]) or kind_of(layer["layout"]) for layer in layers]),
        *_activations(layers),
        *_stored(layers),
        *_removed(layers),
        _numbers("bytes", [bytes_text(layer["nbytes"]) for layer in layers], bytes_text(summed.nbytes)),
        _numbers(known_by(layers), [seconds_text(layer["seconds"]) for layer in layers], seconds_text(summed.seconds)),
        *([_numbers("measured", measured, seconds_text(sum(times)))] if times else []),
        _numbers("dense", [seconds_text(x["dense_seconds"]) for x in layers], seconds_text(summed.dense_seconds)),
        _numbers("speed-up", [f"{x['dense_seconds'] / x['seconds']:.2f}×" for x in layers], f"{summed.speedup:.2f}×"),
    ]
    return Group(_Fitted(title, columns), *(f"{letter}  {layout}" for layout, letter in letters.items()))


def weight_text(layer: Mapping[str, Any]) -> str:
    """The shape of a weight, and how its filters are transformed, if they are."""
    return ", ".join(filter(None, ["×".join(map(str, layer["shape"])), layer.get("filtering")]))


def _zeros(layer: Mapping[str, Any]) -> str:
    """How many zeros a weight has, and how they lie."""
    structure = "" if layer["structure"] == "dense" else layer["structure"]
    return f"{layer['sparsity']:5.1%} {structure}".rstrip()


def _activations(layers: Layers) -> list[_Column]:
    """The types of what layers read and write, where any of them is not float32."""
    types = [(layer.get("reads", "float32"), layer.get("writes", "float32")) for layer in layers]
    if all(pair == ("float32", "float32") for pair in types):
        return []
    return [_Column("activations", [f"{read} → {written}" for read, written in types])]


def _stored(layers: Layers) -> list[_Column]:
    """The types of the weights and how far off these are, where any of them is not float32."""
    types = [layer.get("storage", "float32") for layer in layers]
    if set(types) <= {"float32"}:
        return []
    errors = [layer.get("storage_error", 0.0) for layer in layers]
    return [_Column("stored as", types), _numbers("off by", [f"{error:.2%}" if error else "–" for error in errors])]


def _removed(layers: Layers) -> list[_Column]:
    """What of the layers is gone, where anything is."""
    lost = [removed_channels(layer) for layer in layers]
    return [_Column("removed", [text or "–" for text in lost])] if any(lost) else []


@dataclass(frozen=True)
class _Column:
    """A column before the width of the terminal is known."""

    header: str
    cells: Sequence[str]
    footer: str = ""
    justify: Literal["left", "right"] = "left"

    @property
    def width(self) -> int:
        """What takes no folding."""
        return max(map(cell_len, (self.header, self.footer, *self.cells)))

    @property
    def least(self) -> int:
        """What can be read."""
        return min(self.width, {"layer": NAME_WIDTH, "zeros": ZEROS_WIDTH}.get(self.header, self.width))


def _numbers(header: str, cells: Sequence[str], footer: str = "") -> _Column:
    return _Column(header, cells, footer, "right")


@dataclass(frozen=True)
class _Fitted:
    """A table with as many of its columns as a terminal has room for."""

    title: str
    columns: Sequence[_Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = list(self.columns)
        dropped = []
        there = {column.header for column in shown}
        for name in (name for name in DROPPED if name in there):
            if _spare(shown, options.max_width) >= 0:
                break
            dropped.append(name)
            shown = [column for column in shown if column.header != name]
        spare = max(0, _spare(shown, options.max_width))
        table = Table(title=self.title, title_justify="left", show_footer=True)
        for column in shown:
            extra = min(spare, column.width - column.least)
            spare -= extra
            width = column.least + extra
            table.add_column(column.header, column.footer, justify=column.justify, width=width, overflow="fold")
        for row in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*row)
        yield table
        if dropped:
            yield Text(f"not shown, as the terminal is narrow: {', '.join(dropped)}", style="dim")


def _spare(columns: Sequence[_Column], width: int) -> int:
    """The cells that are left where each column has its least width, two of padding and a line after it."""
    return width - 1 - sum(column.least + 3 for column in columns)


def removed_channels(layer: Mapping[str, Any]) -> str:
    """Say which channels of a layer are gone; empty where none is.

    >>> removed_channels({"removed_outputs": 64, "removed_inputs": 1})
    '64 outputs, 1 input'
    """
    lost = {"output": layer.get("removed_outputs", 0), "input": layer.get("removed_inputs", 0)}
    return ", ".join(plural(count, noun) for noun, count in lost.items() if count)


def removed_text(names: Sequence[str]) -> str:
    """Say which layers of the model are gone; empty where none is.

    >>> removed_text(["fc1", "fc2"])
    '2 layers are gone, since zeros leave them without effect or they were merged: fc1, fc2'
    """
    if not names:
        return ""
    why = "is gone, since zeros leave it without effect or it was merged"
    if len(names) > 1:
        why = "are gone, since zeros leave them without effect or they were merged"
    return f"{plural(len(names), 'layer')} {why}: {some(names)}"


def assumed_text(symbols: Mapping[str, Sequence[int]]) -> str:
    """Say what predictions assume of dimensions that are open; empty where none is.

    >>> assumed_text({"batch": (1, 8)}).partition(";")[0]
    'open dimensions: batch (1 to 8)'
    """
    if not symbols:
        return ""
    bounds = ", ".join(f"{name} ({low} to {high})" for name, (low, high) in symbols.items())
    return (
        f"open dimensions: {bounds}; predictions assume {ASSUMED} columns, such as tokens, where their number is open, "
        "and one image or sequence where that of a batch is; close them with shapes to predict others"
    )


def _letters(layers: Layers) -> dict[str, str]:
    """Give every layout without a name one: A, B, …, Z, AA, AB, …"""
    layouts = [layout for layout in dict.fromkeys(layer["layout"] for layer in layers) if kind_of(layout) == layout]
    names = [*ascii_uppercase, *map("".join, product(ascii_uppercase, repeat=2))]
    return {layout: names[index] if index < len(names) else str(index) for index, layout in enumerate(layouts)}
