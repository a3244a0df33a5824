"""Transposed convolutions as convolutions, so that they have every layout that a layer has.

A filter of k taps that moves by s pixels of its output meets each of these in one of s phases, and in each phase with
T = ⌈k / s⌉ taps at most. So all phases together are one convolution of stride 1 with T taps and s × s times the
channels, whose pixels are put side by side afterwards:

    y[o, s·j + a] = Σ_t Σ_c x[c, j − t] · W[c, o, s·t + a]

Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.fold_batch_norm import is_inference, per_channel
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.simplify import permute, reshape, take_part


@dataclass(frozen=True)
class _Axis:
    """One direction: T taps of each phase over an image with so much around it, then a part of the pixels."""

    stride: int
    taps: int
    dilation: int
    before: int
    after: int
    pixels: int
    first: int

    @staticmethod
    def of(extent: int, taps: int, stride: int, dilation: int, cut: int, outputs: int) -> _Axis:
        """Compute `outputs` pixels of one direction, from the pixel number `cut` on, of all that `taps` reach."""
        phase_taps = -(-taps // stride)
        reach = (phase_taps - 1) * dilation
        start = min(cut // stride, reach)
        before = reach - start
        after = max(0, -(-(cut + outputs) // stride) - start - extent + reach - before)
        pixels = extent + before + after - reach
        return _Axis(stride, phase_taps, dilation, before, after, pixels, cut - start * stride)


def transposed_convolution(graph: Graph, node: Node) -> None:
    """Rewrite a transposed convolution with constant weights and an image of constant size, of two dimensions or one.

    What is done to each channel behind it, as by a bias, a batch norm and an activation, is done before the pixels of
    all phases are put side by side, so that it can join the convolution.
    """
    x, weight = node.inputs
    attrs, space = node.attrs, x.rank - 2
    plain = attrs["data_layout"] in ("NCW", "NCHW") and attrs["kernel_layout"] in ("IOW", "IOHW")
    if weight.data is None or not plain or not all(isinstance(n, int) for n in (*x.shape[1:], *node.output.shape[1:])):
        return
    flat = (1,) * (2 - space)  # of height one, where there is one dimension
    strides, dilation = ((*flat, *map(int, attrs[name])) for name in ("strides", "dilation"))
    cut = (*((0,) * (2 - space)), *attrs["padding"][:space])
    spelled_out = [d if stride > 1 else 1 for d, stride in zip(dilation, strides, strict=True)]
    filters = _dilated(weight.data.reshape(*weight.shape[:2], *flat, *weight.shape[2:]), spelled_out)
    image, result = ((*value.shape[:2], *flat, *value.shape[2:]) for value in (x, node.output))
    axes = [
        _Axis.of(
            int(image[n + 2]),
            filters.shape[n + 2],
            strides[n],
            dilation[n] // spelled_out[n],
            int(cut[n]),
            int(result[n + 2]),
        )
        for n in (0, 1)
    ]
    phases = _phases(filters, axes, attrs["groups"])
    together = {
        "strides": (1, 1),
        "padding": (axes[0].before, axes[1].before, axes[0].after, axes[1].after),
        "dilation": (axes[0].dilation, axes[1].dilation),
        "groups": attrs["groups"],
        "blank": 0,
    }
    inputs = [reshape(graph, x, image, node), graph.constant(phases, weight.name)]
    shape = (image[0], phases.shape[0], axes[0].pixels, axes[1].pixels)
    y = graph.add("conv2d", inputs, shape, together, dtype=node.output.dtype, before=node, name=node.output.name)
    end, repeats = node.output, axes[0].stride * axes[1].stride
    while len(end.users) == 1 and end not in graph.outputs:
        (reader,) = end.users
        earlier = _before_pixels_move(graph, reader, end, y, repeats)
        if earlier is None:
            break
        y, end, node = earlier, reader.outputs[0], reader
    graph.replace(end, reshape(graph, _side_by_side(graph, y, axes, node), end.shape, node))


def _dilated(filters: np.ndarray, dilation: Sequence[int]) -> np.ndarray:
    """Return filters with the zeros between their taps, which fall into different phases."""
    *channels, height, width = filters.shape
    wide = np.zeros((*channels, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1), filters.dtype)
    wide[..., :: dilation[0], :: dilation[1]] = filters
    return wide


def _phases(filters: np.ndarray, axes: list[_Axis], groups: int) -> np.ndarray:
    """Return the filters of all phases, `[groups · outputs · phases, inputs, T, T]`, turned for a convolution."""
    inputs, outputs, *taps = filters.shape
    (h, w) = axes
    missing = [(0, axis.taps * axis.stride - n) for axis, n in zip(axes, taps, strict=True)]
    whole = np.pad(filters, [(0, 0), (0, 0), *missing])
    split = whole.reshape(groups, inputs // groups, outputs, h.taps, h.stride, w.taps, w.stride)
    turned = split[:, :, :, ::-1, :, ::-1].transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(turned).reshape(-1, inputs // groups, h.taps, w.taps)


def _before_pixels_move(graph: Graph, node: Node, x: Value, y: Value, repeats: int) -> Value | None:
    """Return what a reader of x does to each channel, done to y that has each so many times; None of other readers."""
    channels, dtype = int(x.shape[1]), node.outputs[0].dtype  # type: ignore[arg-type]
    if node.op == "nn.batch_norm" and is_inference(node) and node.attrs["axis"] % x.rank == 1:
        constants = [
            graph.constant(np.repeat(np.asarray(value.data), repeats), value.name) for value in node.inputs[1:]
        ]
        types = [(y.shape, dtype), *((constant.shape, constant.dtype) for constant in constants[-2:])]
        attrs = {**node.attrs, "axis": 1}
        return graph.add_node(node.op, [y, *constants], types, attrs, before=node).outputs[0]
    if node.op not in ELEMENTWISE or node.inputs.count(x) != 1:
        return None
    others = [None if value is x else per_channel(value, x.rank, 1, channels) for value in node.inputs]
    if sum(other is None for other in others) > 1:
        return None
    inputs = [
        y
        if other is None
        else graph.constant(np.repeat(other, repeats).astype(value.dtype).reshape(1, -1, 1, 1), value.name)
        for value, other in zip(node.inputs, others, strict=True)
    ]
    return graph.add(node.op, inputs, y.shape, node.attrs, dtype=dtype, before=node, name=node.outputs[0].name)


def _side_by_side(graph: Graph, y: Value, axes: list[_Axis], node: Node) -> Value:
    """Put the pixels of all phases side by side, and take those that are asked for."""
    (h, w) = axes
    batch, channels = node.outputs[0].shape[:2]
    y = reshape(graph, y, (batch, channels, h.stride, w.stride, h.pixels, w.pixels), node)
    y = permute(graph, y, (0, 1, 4, 2, 5, 3), node)
    y = reshape(graph, y, (batch, channels, h.pixels * h.stride, w.pixels * w.stride), node)
    space = node.outputs[0].shape[2:]
    height, width = (1, *space)[-2:]
    y = take_part(graph, y, 2, h.first, int(height), node)
    return take_part(graph, y, 3, w.first, int(width), node)
