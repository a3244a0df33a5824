"""Charts as SVG that belongs into a page: text in the page's font, and colours that are the page's variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from sparsec.report.layers import Layers, known_by
from sparsec.report.units import seconds_text

COLORS = {"text": "#010203", "grid": "#040506", "dense": "#070809", "chosen": "#0a0b0c", "measured": "#0d0e0f"}
"""What a page calls each colour, and what stands for it until the picture is drawn."""

STYLE: dict[Any, Any] = {  # matplotlib's type for the keys has every one of them spelled out
    "svg.fonttype": "none",
    "svg.hashsalt": "sparsec",  # the same page from the same report
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), COLORS["text"]),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), COLORS["grid"]),
}

NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

SERIES = {"chosen": ("seconds", "o"), "measured": ("measured", "D")}
"""What is known of the chosen layout by color: the field of a layer, and its mark."""


def time_chart(layers: Layers) -> str:
    """Bars of the seconds of each layer: dense behind the chosen layout, and a mark for what was measured."""
    scale, unit = _unit(max(max(layer["seconds"], layer["dense_seconds"]) for layer in layers))
    places = range(1, len(layers) + 1)
    figure, axes = _axes(2.9)
    for color, field, width in (("dense", "dense_seconds", 0.9), ("chosen", "seconds", 0.55)):
        heights = [layer[field] / scale for layer in layers]
        label = f"{'dense' if color == 'dense' else 'chosen layout'}, {known_by(layers)}"
        bars = axes.bar(places, heights, width, color=COLORS[color], label=label, linewidth=0)
        for place, bar in zip(places, bars, strict=True):
            bar.set_url(f"#layer-{place}")
    marks = [(place, layer["measured"] / scale) for place, layer in enumerate(layers, 1) if "measured" in layer]
    if marks:
        xs, ys = zip(*marks, strict=True)
        axes.plot(xs, ys, "D", color=COLORS["measured"], markersize=4, label="chosen layout, measured")
    axes.set(xlabel="layer, in the order in which they run", ylabel=unit, xlim=(0.3, len(layers) + 0.7))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", linewidth=0.6)
    return _svg(figure, axes, "Time of each layer", layers)


def roofline(layers: Layers, target: Mapping[str, Any], bandwidth: float | None = None) -> str:
    """Operations for each byte against operations a second: roofs of the target's core, a dot for each layer.

    Only operations that meet a nonzero count.

    Source: S. Williams, A. Waterman, D. Patterson: Roofline, Communications of the ACM 52(4), 2009.

    Parameters
    ----------
    layers : of which each one with a nonzero has a dot
    target : the fields of a `Target`
    bandwidth : bytes a second from memory; None where it is not known
    """
    peak = 2 * target["fma_per_cycle"] * target["vector_bits"] / 32 * target["ghz"]
    l1 = target["loads_per_cycle"] * target["vector_bits"] / 8 * target["ghz"]
    roofs = {f"L1, {l1:.0f} GB/s": l1}
    if bandwidth:
        roofs[f"memory, {bandwidth / 1e9:.0f} GB/s measured"] = bandwidth / 1e9
    dots = [(n, layer, layer["flops"] / layer["traffic"]) for n, layer in enumerate(layers, 1) if layer["flops"]]
    places = [*(peak / slope for slope in roofs.values()), *(x for *_, x in dots)]
    low, high = min(places) / 4, max(places) * 2
    figure, axes = _axes(3.6)
    axes.axhline(peak, color=COLORS["text"], linewidth=1.2)
    _note(axes, f"multiply-adds of one core, {peak:.0f} GFLOP/s", high, peak, "right")
    for name, slope in roofs.items():
        axes.plot((low, peak / slope), (low * slope, peak), color=COLORS["text"], linewidth=1.2, linestyle="--")
        _note(axes, name, low, low * slope, "left")
    lowest = min(low * slope for slope in roofs.values())
    for color, (field, mark) in SERIES.items():
        label = known_by(layers) if color == "chosen" else "measured"
        points = [(x, layer["flops"] / layer[field] / 1e9, f"#layer-{n}") for n, layer, x in dots if field in layer]
        if points:
            xs, ys, urls = zip(*points, strict=True)
            axes.scatter(xs, ys, 24, COLORS[color], marker=mark, alpha=0.75, linewidths=0, urls=urls, label=label)
            lowest = min(lowest, *ys)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(lowest / 1.5, peak * 2))
    axes.set(xlabel="FLOP for each byte that has to move", ylabel="GFLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(linewidth=0.6)
    return _svg(figure, axes, "Roofline of the layers", layers)


def _axes(height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, height), layout="constrained")
        return figure, figure.subplots()


def _note(axes: Axes, text: str, x: float, y: float, side: str) -> None:
    """Write beside a line that begins or ends at a point."""
    shift = (12, -6) if side == "left" else (-4, 3)
    axes.annotate(text, (x, y), shift, textcoords="offset points", fontsize=8, ha=side, color=COLORS["text"])


def _unit(most: float) -> tuple[float, str]:
    """The unit that the largest of some seconds is written in, and its size."""
    unit = seconds_text(most).split()[1]
    return {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit], unit


def _svg(figure: Figure, axes: Axes, label: str, layers: Layers) -> str:
    """The picture, its colours the page's, and what leads to a layer named after it."""
    file = StringIO()
    with matplotlib.rc_context(STYLE):
        axes.tick_params(which="both", length=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    start = f'<svg role="img" aria-label="{escape(label)}" viewBox='
    text = re.sub(r"<svg.*?viewBox=", start, text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # a page has several pictures, and nothing refers to these
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;]*; ", "", text).replace("xlink:href", "href")

    def link(match: re.Match[str]) -> str:
        place = int(match[1])
        return f'<a href="#layer-{place}"><title>{place}. {escape(layers[place - 1]["name"])}</title>'

    return re.sub(r'<a href="#layer-(\d+)"[^>]*>', link, text)
