"""A page about a model that needs nothing but a browser: what its layers are, what is made of them, and how fast."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import sparsec
from sparsec.errors import ArtifactError
from sparsec.report.bandwidth import memory_bandwidth
from sparsec.report.charts import roofline, time_chart
from sparsec.report.kinds import kind_of
from sparsec.report.layers import assumed_text, known_by, removed_channels, removed_text, totals
from sparsec.report.maps import WeightMap, picture
from sparsec.report.measured import with_times
from sparsec.report.units import bytes_text, plural, seconds_text

if TYPE_CHECKING:
    from sparsec.runtime.session import StepTime

WITHOUT_WEIGHTS = (
    "This page was made from a compiled library, which says what its layers are and what was chosen for them, but "
    "keeps neither maps of the weights nor what else could have been chosen. To see both, make it from the model: "
    "sparsec inspect MODEL.onnx --html page.html"
)
"""A note for a page that was made from a manifest."""


def write_page(path: str | os.PathLike[str], page: str) -> Path:
    """Write a page beside its place, then rename, so that no half of it is ever seen.

    Raises
    ------
    ArtifactError
        The file cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(page, encoding="utf-8")
        return beside.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def render_page(
    report: Mapping[str, Any],
    title: str,
    maps: Sequence[WeightMap] = (),
    steps: Sequence[StepTime] = (),
    threads: int = 1,
    notes: Sequence[str] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    report : `target`, `layers`, `symbols` and `removed`, of a report or a manifest
    title : what the model is called
    maps : of the weight of each layer; may be empty
    steps : what a profile on this machine measured of the compiled model; may be empty
    threads : how many threads that took
    notes : what a reader should know first
    """
    layers = with_times(report["layers"], steps)
    times = [layer["measured"] for layer in layers if "measured" in layer]
    timed = {"layers": sum(times), "model": sum(step.seconds for step in steps)} if times else None
    bandwidth = memory_bandwidth(report["target"]["l3_bytes"]) if times else None
    summed = totals(layers)
    gone = removed_text(report.get("removed", ()))
    known = all("flops" in layer for layer in layers)
    environment = Environment(
        loader=PackageLoader("sparsec.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title,
        target=report["target"],
        totals=summed,
        zeros=sum(layer["sparsity"] * layer["dense_nbytes"] for layer in layers) / (summed.dense_nbytes or 1),
        layers=_rows(layers, maps),
        maps=bool(maps),
        timed=timed,
        known=known_by(layers),
        threads=threads,
        notes=[*notes, *_open_dimensions(report["symbols"]), *([gone] if gone else [])],
        time_chart=Markup(time_chart(layers)) if layers else "",
        roofline=Markup(roofline(layers, report["target"], bandwidth)) if layers and known else "",
        version=sparsec.__version__,
        bytes_text=bytes_text,
        seconds_text=seconds_text,
        plural=plural,
    )


def _open_dimensions(symbols: Mapping[str, Sequence[int]]) -> list[str]:
    """A note on sizes that the model leaves open."""
    assumed = assumed_text(symbols)
    return [f"{assumed}. What is measured has the largest sizes, so the two do not compare."] if assumed else []


def _rows(layers: Sequence[Mapping[str, Any]], maps: Sequence[WeightMap]) -> list[dict[str, Any]]:
    """The layers, and what only the page shows of them."""
    longest = max((max(_times(layer).values()) for layer in layers), default=0.0)
    slowest = sorted(range(len(layers)), key=lambda place: -layers[place]["seconds"])
    rank = {place: position for position, place in enumerate(slowest)}
    return [
        {
            "why": "",
            "options": (),
            "map": _pictures(maps[place]) if maps else None,
            "rank": rank[place],
            "kind": _kind(layer),
            "lost": removed_channels(layer),
            "bars": [(color, seconds / longest) for color, seconds in _times(layer).items()],
            **layer,
        }
        for place, layer in enumerate(layers)
    ]


def _times(layer: Mapping[str, Any]) -> dict[str, float]:
    """The times of a layer by the colours of their bars."""
    fields = {"dense": "dense_seconds", "chosen": "seconds", "measured": "measured"}
    return {color: layer[field] for color, field in fields.items() if field in layer}


def _kind(layer: Mapping[str, Any]) -> str:
    """The name of the chosen layout, or what is known of it where it has none."""
    kind = kind_of(layer["layout"])
    known = "sparse" if kind == layer["layout"] else kind
    return f"{known}, {layer['filtering']}" if layer.get("filtering") else known


def _pictures(weight: WeightMap) -> dict[str, Any]:
    height, width = weight.density.shape
    rows, columns = weight.corner.shape
    return {
        "whole": picture(weight.density),
        "width": width,
        "height": height,
        "about": f"the whole weight, darker where it is fuller, up to {weight.peak:.0%} nonzero",
        "corner": picture(weight.corner),
        "corner_width": columns,
        "corner_height": rows,
    }
