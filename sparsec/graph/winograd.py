"""Convolutions by minimal filtering along the height of an image, where that multiplies less (`sparsec.ir.winograd`).

A filter of r rows makes m rows of pixels of m + r − 1 of them. Both are transformed along the height alone, so that
rows stay vectors of pixels, and between the transforms stands a convolution of filters of one row, in m + r − 1 groups:

    V[a, c, t] = Σ_k B[a, k] · X[c, m · t + k − top]
    Z[a, o, t, x] = Σ_c Σ_s (Σ_r G[a, r] · W[o, c, r, s]) · V[a, c, t, x + s]
    Y[o, m · t + i] = Σ_a A[i, a] · Z[a, o, t]

All three are products like any other. These operators are introduced:

``winograd_input(x, B; step, top, rows, x_image, image, borders)``
    V as `[N, (m + r − 1) · C, rows, W]`, a row for each tile; outside of x stands zero.
``winograd_output(x, A; step, rows, x_image, image)``
    Y as `[N, C, rows, W]`, without those that the last tile has beyond it.

`step` is m. The images are those of :mod:`sparsec.graph.plan_images`, which x and the result have after it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.plan_images import plan_images
from sparsec.graph.products import find_anchor
from sparsec.ir.winograd import Winograd
from sparsec.schedules.rules.families import FULL
from sparsec.schedules.rules.product import propose
from sparsec.targets import Target

MOVED = 1.5
"""Cycles for each element that a transform makes or reads between the two: it is written once and read once."""

GAIN = 0.95
"""Of the predicted time of a direct convolution, from which on transforms are worth while."""

LEAST = 0.5
"""Of the peak of a core, which direct convolutions reach at least; those that win even so are not priced."""


def use_winograd(graph: Graph, target: Target, is_free: Callable[[str], bool], dense: bool = False) -> None:
    """Rewrite convolutions of a canonical graph where that is predicted to be faster.

    A column of taps of a filter has no zeros any more unless all of them are zero. So unstructured zeros are lost, and
    weights that have many stay as they are; those of whole kernels are kept.

    Parameters
    ----------
    is_free : whether a layer may be computed in transformed filters
    dense : whether only dense layouts are thought of
    """
    pricing = _Pricing(target, dense)
    for node in list(graph.nodes):
        if node.op == "conv2d" and _keeps_size(node):
            node.attrs["dense_seconds"] = pricing.dense(node)
            if is_free(node.where) and pricing.is_faster(node):
                graph.replace(node.output, _rewrite(graph, node))
    graph.remove_dead()
    graph.verify()


def transform_cycles(elements: float) -> float:
    """Return the cycles that transforms take which make and read so many elements between them."""
    return MOVED * elements


class _Pricing:
    """Predicted seconds of convolutions in both ways; of dense ones once for each shape."""

    def __init__(self, target: Target, only_dense: bool) -> None:
        self.target, self.only_dense = target, only_dense
        self._dense: dict[tuple, float] = {}

    def dense(self, node: Node) -> float:
        """Price a layer without zeros in transformed filters."""
        key = _images(node), *node.inputs[0].shape[1:], *node.inputs[1].shape, *node.attrs["padding"]
        if key not in self._dense:
            self._dense[key] = self._filtered(node, only_dense=True)
        return self._dense[key]

    def is_faster(self, node: Node) -> bool:
        """Whether transformed filters are faster than the layer as it is."""
        seconds, weight = self.dense(node), node.inputs[1].data
        assert weight is not None
        filters = _transformed(node)
        if not self.only_dense and np.count_nonzero(filters) < FULL * filters.size:
            seconds = min(seconds, self._filtered(node, only_dense=False))
        _, height, width = _sizes(node.output)
        pixels = _images(node) * height * width
        rate = self.target.lanes("float32") * self.target.fma_per_cycle * self.target.ghz * 1e9
        entries = weight.size if self.only_dense else np.count_nonzero(weight)
        if seconds > GAIN * entries * pixels / rate / LEAST:
            return False
        return seconds < GAIN * self._product(_alone(node), self.only_dense)

    def _filtered(self, node: Node, only_dense: bool) -> float:
        """Price a layer in transformed filters, the transforms of its images with it."""
        alone = _alone(node)
        (conv,) = alone.nodes
        alone.outputs = [_rewrite(alone, conv)]
        (inputs, _, width), (outputs, _, _) = _sizes(conv.inputs[0]), _sizes(conv.output)
        between = _images(conv) * _algorithm(conv).reads * _tiles(conv) * width * (inputs + outputs)
        return self._product(alone, only_dense) + transform_cycles(between) / (self.target.ghz * 1e9)

    def _product(self, graph: Graph, only_dense: bool) -> float:
        """Price the convolution of a graph that has no other."""
        graph.remove_dead()
        plan_images(graph, self.target.unit_lanes("float32"))
        (conv,) = (node for node in graph.nodes if node.op == "conv_padded")
        anchor = find_anchor(conv)
        assert anchor is not None and anchor.matrix is not None
        return propose(anchor.product, anchor.matrix(), self.target, only_dense).seconds


def _alone(node: Node) -> Graph:
    """Return a graph that a convolution is all of."""
    graph, (x, weight), y, images = Graph(), node.inputs, node.output, _images(node)
    inputs = [graph.input("x", (images, *x.shape[1:]), x.dtype), graph.constant(weight.data)]
    graph.outputs = [graph.add("conv2d", inputs, (images, *y.shape[1:]), node.attrs, dtype=y.dtype)]
    return graph


def _images(node: Node) -> int:
    """Return how many images a convolution is priced for: one where their number is open."""
    batch = node.inputs[0].shape[0]
    return batch if isinstance(batch, int) else 1


def algorithm_of(x: Value) -> Winograd | None:
    """Return the algorithm by which an image was transformed, None of others."""
    node = x.producer
    if node is None or node.op != "winograd_input":
        return None
    reads, step = int(node.inputs[1].shape[1]), node.attrs["step"]  # type: ignore[arg-type]
    return Winograd(step, reads - step + 1)


def _keeps_size(node: Node) -> bool:
    """Whether a convolution of all channels in float32 has an image as large as it reads, and several rows of taps."""
    (x, weight), y, attrs = node.inputs, node.output, node.attrs
    if weight.data is None or attrs["groups"] != 1 or {x.dtype, weight.dtype, y.dtype} != {"float32"}:
        return False
    plain = tuple(attrs["strides"]) == tuple(attrs["dilation"]) == (1, 1)
    known = all(isinstance(size, int) for size in (*x.shape[1:], *y.shape[1:]))
    return plain and known and x.shape[2:] == y.shape[2:] and weight.data.shape[2] in (3, 5)


def _algorithm(node: Node) -> Winograd:
    _, taps, _ = _sizes(node.inputs[1])
    return Winograd.of(taps)


def _transformed(node: Node) -> np.ndarray:
    """Return the filters of one row, `[products · outputs, inputs, 1, columns]`."""
    weight = node.inputs[1].data
    assert weight is not None
    found = np.einsum("ar,ocrs->aocs", _algorithm(node).filter, weight.astype("float64"))
    return found.reshape(-1, weight.shape[1], 1, weight.shape[3]).astype(np.float32)


def _tiles(node: Node) -> int:
    _, height, _ = _sizes(node.output)
    return -(-height // _algorithm(node).outputs)


def _sizes(value: Value) -> tuple[int, int, int]:
    """Return the channels, height and width of filters, or of an image of constant size."""
    channels, height, width = (int(size) for size in value.shape[1:])  # type: ignore[arg-type]
    return channels, height, width


def _rewrite(graph: Graph, node: Node) -> Value:
    (x, weight), y, algorithm = node.inputs, node.output, _algorithm(node)
    batch, _, height, width = x.shape
    _, left, _, right = node.attrs["padding"]
    filters = graph.constant(_transformed(node), weight.name)
    filters.origin = weight
    attrs = {**node.attrs, "padding": (0, left, 0, right), "groups": algorithm.reads}
    shape = (batch, filters.shape[0], _tiles(node), width)
    sums = graph.add("conv2d", [_transformed_rows(graph, node), filters], shape, attrs, before=node)
    out_of = graph.constant(algorithm.output.astype(np.float32))
    attrs = {"step": algorithm.outputs, "rows": height}
    return graph.add("winograd_output", [sums, out_of], y.shape, attrs, before=node, name=y.name)


def _transformed_rows(graph: Graph, node: Node) -> Value:
    """Return the image as a convolution reads it; those that read it alike share it."""
    x, algorithm = node.inputs[0], _algorithm(node)
    attrs = {"step": algorithm.outputs, "top": node.attrs["padding"][0], "rows": _tiles(node)}
    for user in x.users:
        if user.op == "winograd_input" and user.attrs == attrs:
            return user.output
    channels, _, width = _sizes(x)
    shape = (x.shape[0], algorithm.reads * channels, _tiles(node), width)
    into = graph.constant(algorithm.input.astype(np.float32))
    return graph.add("winograd_input", [x, into], shape, attrs, before=node)
