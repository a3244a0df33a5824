"""A whole report in a terminal: its layers, and what is gone of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from sparsec.report.layers import assumed_text, layer_table, removed_text
from sparsec.report.options import options_tables


def summary(report: Mapping[str, Any], model: str, layouts: str | None = None) -> RenderableType:
    """Return what `sparsec inspect` prints of a report or a manifest.

    Parameters
    ----------
    report : `target`, `layers`, `symbols` and `removed`
    model : what the model is called
    layouts : the other layouts of each layer in place of a table of the chosen ones: ``few`` of them, or ``all``
    """
    layers = report["layers"]
    notes = [removed_text(report.get("removed", ())), assumed_text(report.get("symbols", {}) if layers else {})]
    if not layers:
        shown: RenderableType = f"{model} has no layers with weights of float32, half precision or integers"
    elif layouts:
        shown = options_tables(layers, layouts == "all")
    else:
        shown = layer_table(layers, f"{model} on {report['target']['name']}")
    return Group(shown, *filter(None, notes))
