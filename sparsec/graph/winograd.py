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
from sparsec.ir.winograd import Winograd
from sparsec.schedules.rules.prices import STREAM
from sparsec.targets import Target

MOVED = 1.5
"""Cycles for each element that a transform makes: it is written, and read by the convolution or the other transform."""

GAIN = 0.9
"""Of the cycles of a direct convolution, from which on transforms are worth while."""


def use_winograd(graph: Graph, target: Target, is_free: Callable[[str], bool], dense: bool = False) -> None:
    """Rewrite convolutions of a canonical graph where that takes fewer cycles.

    A column of taps of a filter has no zeros any more unless all of them are zero. So what counts are entries: a weight
    whose zeros have no structure would have more of them.

    Parameters
    ----------
    is_free : whether the layout of a layer may be chosen
    dense : whether zeros are computed with in any case
    """
    for node in list(graph.nodes):
        if node.op == "conv2d" and is_free(node.where) and _keeps_size(node):
            filters, weight = _transformed(node), node.inputs[1].data
            assert weight is not None
            entries = [each.size if dense else int(np.count_nonzero(each)) for each in (filters, weight)]
            if _cycles(node, entries[0], target) < GAIN * _direct_cycles(node, entries[1], target):
                graph.replace(node.output, _rewrite(graph, node, filters))
    graph.remove_dead()
    graph.verify()


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
    return Winograd.of(int(node.inputs[1].shape[2]))  # type: ignore[arg-type]


def _transformed(node: Node) -> np.ndarray:
    """Return the filters of one row, `[products · outputs, inputs, 1, columns]`."""
    weight = node.inputs[1].data
    assert weight is not None
    found = np.einsum("ar,ocrs->aocs", _algorithm(node).filter, weight.astype("float64"))
    return found.reshape(-1, weight.shape[1], 1, weight.shape[3]).astype(np.float32)


def _direct_cycles(node: Node, entries: int, target: Target) -> float:
    height, width = map(int, node.output.shape[2:])  # type: ignore[arg-type]
    return _product_cycles(entries, height * width, target)


def _cycles(node: Node, entries: int, target: Target) -> float:
    channels, width = sum(int(value.shape[1]) for value in (node.inputs[0], node.output)), int(node.output.shape[3])  # type: ignore[arg-type]
    made = _algorithm(node).reads * _tiles(node) * width * channels
    return _product_cycles(entries, _tiles(node) * width, target) + MOVED * made


def _product_cycles(entries: int, pixels: int, target: Target) -> float:
    """Return the cycles of multiply-adds, or those in which weights come from memory."""
    return float(max(entries * pixels / target.lanes("float32") / target.fma_per_cycle, 4 * entries / STREAM))


def _tiles(node: Node) -> int:
    return -(-int(node.output.shape[2]) // _algorithm(node).outputs)  # type: ignore[arg-type]


def _rewrite(graph: Graph, node: Node, filters: np.ndarray) -> Value:
    (x, weight), y, algorithm = node.inputs, node.output, _algorithm(node)
    batch, channels, height, width = x.shape
    top, left, _, right = node.attrs["padding"]
    tiles, products = _tiles(node), algorithm.reads
    into, out_of = (graph.constant(matrix.astype(np.float32)) for matrix in (algorithm.input, algorithm.output))
    attrs = {"step": algorithm.outputs, "top": top, "rows": tiles}
    shape = (batch, products * int(channels), tiles, width)  # type: ignore[arg-type]
    rows = graph.add("winograd_input", [x, into], shape, attrs, before=node)
    attrs = {**node.attrs, "padding": (0, left, 0, right), "groups": products}
    shape, constant = (batch, len(filters), tiles, width), graph.constant(filters, weight.name)
    sums = graph.add("conv2d", [rows, constant], shape, attrs, before=node)
    attrs = {"step": algorithm.outputs, "rows": height}
    return graph.add("winograd_output", [sums, out_of], y.shape, attrs, before=node, name=y.name)
