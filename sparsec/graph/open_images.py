"""Convolutions over images of open size as linear layers, whose columns may be any number of pixels.

What the taps of a filter read is copied side by side as channels (im2col), one of which each has for a filter of one
tap and stride 1. So weights have sparse layouts where :mod:`sparsec.graph.plan_images` can give pixels no place.
"""

from __future__ import annotations

from itertools import product as pairs

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import product
from sparsec.graph.simplify import permute, reshape, simplify


def open_images(graph: Graph) -> None:
    """Rewrite the convolutions, but for grouped ones, whose images have no constant size."""
    for node in list(graph.nodes):
        if node.op == "conv2d" and _is_open(node):
            graph.replace(node.output, _as_linear(graph, node))
    graph.remove_dead()
    simplify(graph)


def _is_open(node: Node) -> bool:
    x, weight = node.inputs
    sizes = (*x.shape[2:], *node.output.shape[2:])
    plain = weight.data is not None and node.attrs["groups"] == 1 and not node.attrs["blank"]
    return plain and not all(isinstance(extent, int) for extent in sizes)


def _as_linear(graph: Graph, node: Node) -> Value:
    image, (batch, outputs, *space) = _taps(graph, node), node.output.shape
    weight = node.inputs[1].data
    assert weight is not None
    matrix = np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1))
    columns = permute(graph, reshape(graph, image, (batch, image.shape[1], product(space)), node), (0, 2, 1), node)
    filters = graph.constant(matrix, node.inputs[1].name)
    shape = (batch, product(space), outputs)
    dtype, name = node.output.dtype, node.output.name
    y = graph.add("linear", [columns, filters], shape, dtype=dtype, before=node, name=name)
    return reshape(graph, permute(graph, y, (0, 2, 1), node), node.output.shape, node)


def _taps(graph: Graph, node: Node) -> Value:
    """Return `[N, taps · C, H, W]`: what each tap reads for the pixels of the output."""
    x, weight = node.inputs
    attrs, (batch, channels, *extents), (*_, height, width) = node.attrs, x.shape, node.output.shape
    assert weight.data is not None
    rows, columns = weight.data.shape[2:]
    top, left, bottom, right = attrs["padding"]
    if any(attrs["padding"]):
        extents = [extents[0] + top + bottom, extents[1] + left + right]
        how = {"pad_width": (0, 0, 0, 0, top, bottom, left, right), "pad_mode": "constant", "pad_value": 0.0}
        x = graph.add("nn.pad", [x], (batch, channels, *extents), how, dtype=x.dtype, before=node)
    if (rows, columns) == (1, 1) and tuple(attrs["strides"]) == (1, 1):
        return x
    (down, across), (dy, dx) = attrs["strides"], attrs["dilation"]
    shape, parts = (batch, channels, height, width), []
    for r, s in pairs(range(rows), range(columns)):
        end = (r * dy + (height - 1) * down + 1, s * dx + (width - 1) * across + 1)
        cut = {"axes": (2, 3), "begin": (r * dy, s * dx), "end": end, "strides": (down, across), "assume_inbound": True}
        parts.append(graph.add("strided_slice", [x], shape, cut, dtype=x.dtype, before=node))
    if len(parts) == 1:
        return parts[0]
    together = (batch, product([channels, len(parts)]), height, width)
    return graph.add("concat", parts, together, {"axis": 1}, dtype=x.dtype, before=node)
