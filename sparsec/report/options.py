"""The layouts that were thought of for each layer, as `sparsec inspect --layouts` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparsec.report.layers import Layers, totals, weight_text
from sparsec.report.units import bytes_text, plural, seconds_text, some

FEW = 6
"""Layouts of a layer that are shown unless all are asked for; the chosen one and dense are always among them."""


def options_tables(layers: Layers, everything: bool = False) -> RenderableType:
    """One table for each kind of layer, a row in it for each layout, the quickest first; sums below.

    Parameters
    ----------
    layers : with options
    everything : show every layout that holds the weight, and why each of the others cannot
    """
    summed = totals(layers)
    count = f"{plural(summed.layers, 'layer')}, {summed.sparse} sparse: {bytes_text(summed.nbytes)}"
    speed = f"predicted {seconds_text(summed.seconds)}, {summed.speedup:.2f}× as fast as dense"
    return Group(*(_one_kind(kind, everything) for kind in _kinds(layers)), Text(f"{count}, {speed}"))


def _kinds(layers: Layers) -> list[list[Mapping[str, Any]]]:
    """Layers of one form, whose zeros are alike and for which the same was chosen, together."""
    kinds: dict[Any, list[Mapping[str, Any]]] = {}
    for layer in layers:
        options = layer.get("options", ())
        chosen = next((option["name"] for option in options if option["chosen"]), "")
        able = frozenset(option["name"] for option in options if option["refusal"] is None)
        form = layer["op"], tuple(layer["shape"]), layer["dense_seconds"]
        zeros = layer["structure"], f"{layer['sparsity']:.0%}"
        kinds.setdefault((form, zeros, chosen, able), []).append(layer)
    return list(kinds.values())


def _one_kind(kind: Sequence[Mapping[str, Any]], everything: bool) -> RenderableType:
    first = kind[0]
    options = first.get("options", ())
    able = sorted((option for option in options if option["refusal"] is None), key=lambda option: option["seconds"])
    unable = [option for option in options if option["refusal"] is not None]
    shown = able if everything else [o for n, o in enumerate(able) if n < FEW or o["chosen"] or o["name"] == "dense"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "layout"):
        table.add_column(column)
    for column in ("bytes", "of dense", "predicted", "speed-up"):
        table.add_column(column, justify="right", no_wrap=True)
    for option in shown:
        table.add_row(
            "▸" if option["chosen"] else "",
            option["name"],
            bytes_text(option["nbytes"]),
            f"{option['nbytes'] / first['dense_nbytes']:.0%}",
            seconds_text(option["seconds"]),
            f"{first['dense_seconds'] / option['seconds']:.2f}×",
            style="bold" if option["chosen"] else "",
        )
    lines: list[RenderableType] = [table]
    if len(shown) < len(able):
        lines.append(f"   {plural(len(able) - len(shown), 'slower layout')} not shown; --all-layouts shows them")
    if first.get("why"):
        lines.append(Text(f"▸  {first['why']}"))
    lines.append(Text(f"   {first['layout']}", style="dim"))
    if unable and everything:
        lines.extend(Text(f"✗  {option['name']}: {option['refusal']}") for option in unable)
    elif unable:
        names = ", ".join(option["name"] for option in unable)
        lines.append(Text(f"✗  left out: {names}; --all-layouts says why"))
    return Group(Text(_title(kind), style="bold"), *lines, "")


def _title(kind: Sequence[Mapping[str, Any]]) -> str:
    """What the layers of a table are."""
    first = kind[0]
    names = some([layer["name"] for layer in kind])
    note = "; numbers of the first" if len(kind) > 1 else ""
    made = "; layouts are of the transformed filters" if first.get("filtering") else ""
    zeros = f"{first['sparsity']:.1%} zeros, {first['structure']}"
    return f"{names}: {first['op']} {weight_text(first)}, {zeros}{made}{note}"
