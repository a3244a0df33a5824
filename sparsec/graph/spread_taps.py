"""Taps that reach far past an image, as of filters with a large dilation on a small one.

Taps that see nothing but padding are dropped. Where rows of pixels would stand far apart for the padding between them
(:mod:`sparsec.graph.plan_images`), of which every filter of that image would compute as much as of the pixels, the
columns that a filter reads are copied side by side as channels: a filter of one column with some times the channels is
left, whose image needs no padding between its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import product
from sparsec.graph.simplify import simplify, take_part

FAR = 0.5
"""Columns between two rows of pixels, for each column of results, from which on taps are spread."""


def spread_taps(graph: Graph) -> None:
    """Rewrite the convolutions of a canonical graph whose padding is wide."""
    for node in list(graph.nodes):
        if node.op == "conv2d" and _is_known(node):
            node = _without_dead_taps(graph, node)
            if node.attrs["groups"] == 1 and _rows_are_far_apart(node):
                graph.replace(node.output, _spread(graph, node))
    graph.remove_dead()
    simplify(graph)


def _rows_are_far_apart(node: Node) -> bool:
    """Whether rows of pixels would stand far apart in the image that the filter reads."""
    columns = _reach(node, 1)
    between = max(columns.padding) if columns.stride == 1 else (columns.taps - 1) * columns.dilation // columns.stride
    return _reach(node, 0).outputs > 1 and between > FAR * columns.outputs


@dataclass(frozen=True)
class _Reach:
    """One direction of a convolution."""

    extent: int
    outputs: int
    taps: int
    stride: int
    dilation: int
    padding: tuple[int, int]

    def sees(self, tap: int) -> bool:
        """Whether there are pixels between the first and the last place that a tap stands at."""
        first = tap * self.dilation - self.padding[0]
        return first < self.extent and first + (self.outputs - 1) * self.stride >= 0

    def alive(self) -> range:
        """The taps from the first to the last one that meets a pixel, or that is needed for the padding's sake."""
        seen = [tap for tap in range(self.taps) if self.sees(tap)] or [*range(self.taps)]
        first = min(seen[0], self.padding[0] // self.dilation)
        last = max(seen[-1], self.taps - 1 - self.padding[1] // self.dilation)
        return range(first, last + 1)


def _is_known(node: Node) -> bool:
    """Whether sizes and weights are constant, and zeros stand around the image."""
    x, weight = node.inputs
    sizes = (*x.shape[1:], *node.output.shape[1:])
    return weight.data is not None and all(isinstance(n, int) for n in sizes) and not node.attrs["blank"]


def _reach(node: Node, which: int) -> _Reach:
    x, weight = node.inputs
    padding, attrs = node.attrs["padding"], node.attrs
    extent, outputs, taps = (int(value.shape[2 + which]) for value in (x, node.output, weight))  # type: ignore[arg-type]
    around = (int(padding[which]), int(padding[which + 2]))
    return _Reach(extent, outputs, taps, int(attrs["strides"][which]), int(attrs["dilation"][which]), around)


def _without_dead_taps(graph: Graph, node: Node) -> Node:
    axes = [_reach(node, which) for which in (0, 1)]
    rows, columns = (axis.alive() for axis in axes)
    if (len(rows), len(columns)) == (axes[0].taps, axes[1].taps):
        return node
    x, weight = node.inputs
    assert weight.data is not None
    kept = weight.data[:, :, rows.start : rows.stop, columns.start : columns.stop]
    before = [axis.padding[0] - taps.start * axis.dilation for axis, taps in zip(axes, (rows, columns), strict=True)]
    after = [
        axis.padding[1] - (axis.taps - taps.stop) * axis.dilation
        for axis, taps in zip(axes, (rows, columns), strict=True)
    ]
    attrs = {**node.attrs, "padding": (*before, *after)}
    return _replaced(graph, node, x, np.ascontiguousarray(kept), attrs)


def _replaced(graph: Graph, node: Node, x: Value, weight: np.ndarray, attrs: dict) -> Node:
    """Put a convolution in the place of another one."""
    y = node.output
    filters = graph.constant(weight, node.inputs[1].name)
    made = graph.add("conv2d", [x, filters], y.shape, attrs, dtype=y.dtype, before=node, name=y.name)
    graph.replace(y, made)
    assert made.producer is not None
    return made.producer


def _spread(graph: Graph, node: Node) -> Value:
    """Return the convolution of one column over an image whose channels are the columns that the taps read."""
    x, weight = node.inputs
    axis, attrs = _reach(node, 1), node.attrs
    batch, channels, height, _ = x.shape
    assert weight.data is not None
    seen = [tap for tap in range(axis.taps) if axis.sees(tap)] or [0]
    wide = _widened(graph, node, axis)
    columns = [take_part(graph, wide, 3, tap * axis.dilation, axis.outputs, node, stride=axis.stride) for tap in seen]
    shape = (batch, product([channels, len(seen)]), height, axis.outputs)
    image = graph.add("concat", columns, shape, {"axis": 1}, dtype=x.dtype, before=node)
    outputs, _, rows, _ = weight.data.shape
    filters = weight.data[..., seen].transpose(0, 3, 1, 2).reshape(outputs, -1, rows, 1)
    (top, _, bottom, _), (down, _), (far, _) = attrs["padding"], attrs["strides"], attrs["dilation"]
    how = {**attrs, "padding": (top, 0, bottom, 0), "strides": (down, 1), "dilation": (far, 1)}
    return _replaced(graph, node, image, np.ascontiguousarray(filters), how).output


def _widened(graph: Graph, node: Node, axis: _Reach) -> Value:
    """Return the image with the columns of its padding."""
    x = node.inputs[0]
    attrs = {"pad_width": (0, 0, 0, 0, 0, 0, *axis.padding), "pad_mode": "constant", "pad_value": 0.0}
    shape = (*x.shape[:3], axis.extent + sum(axis.padding))
    return graph.add("nn.pad", [x], shape, attrs, dtype=x.dtype, before=node)
