"""Operators with a constant weight, each as a product and as plain NumPy.

The graph of an operator is made by the compiler's own passes, for a weight of ones, of which nothing can be left out.
Its product then takes any weight that has zeros outside `places`, as the matrix [rows, depth] that the layouts store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from tvm import relax
from tvm.relax import op

from sparsec.graph.evaluate import evaluate_node
from sparsec.graph.graph import Graph, Node
from sparsec.graph.plan_images import plan_images
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.graph.products import Anchor, find_anchor
from tests.graph.small_models import canonical, import_small
from tests.ir.product_cases import integers

Array = np.ndarray
Kernel = Callable[[Array], Array]  # from X, float32, to Y, flat as the product's buffers


@dataclass(frozen=True)
class Operator:
    """An operator of fixed sizes.

    Parameters
    ----------
    build : adds it to a model whose input has `shape`, its weight all ones
    numpy : computes it for a matrix [rows, depth] and an input, in float64
    """

    name: str
    shape: tuple[int, ...]
    build: Callable[[Any, Any], Any]
    numpy: Callable[[Array, Array], Array]

    @property
    def x(self) -> Array:
        return integers(*self.shape, seed=1)

    @cached_property
    def graph(self) -> Graph:
        graph = canonical(import_small(self.build, self.shape))
        plan_images(graph)
        plan_layouts(graph)
        return graph

    @cached_property
    def node(self) -> Node:
        (node,) = (node for node in self.graph.nodes if node.op in ("conv_padded", "linear_cols"))
        return node

    @cached_property
    def anchor(self) -> Anchor:
        anchor = find_anchor(self.node)
        assert anchor is not None and anchor.matrix is not None
        return anchor

    @property
    def places(self) -> Array:
        """Where the matrix may have entries, bool [rows, depth]."""
        assert self.anchor.matrix is not None
        return self.anchor.matrix() != 0

    def run(self, kernel: Kernel) -> Array:
        """Run the graph, its product by a kernel."""
        known = {self.graph.inputs[0]: self.x}
        for node in self.graph.nodes:
            args = [value.data if value.data is not None else known[value] for value in node.inputs]
            if node is self.node:
                known[node.output] = kernel(args[0]).reshape([int(dim) for dim in node.output.shape])
            else:
                known |= zip(node.outputs, evaluate_node(node, args, {}), strict=True)
        (y,) = (known[value] for value in self.graph.outputs)
        return y


# -- matrices ------------------------------------------------------------------------------------------------------


def linear(rows: int, depth: int, tokens: int = 19) -> Operator:
    def build(builder: Any, x: Any) -> Any:
        return op.matmul(x, relax.const(np.ones((depth, rows), np.float32)))

    return Operator("linear", (tokens, depth), build, lambda matrix, x: x @ matrix.T)


def batched_matmul(batch: int, rows: int, depth: int, tokens: int = 19) -> Operator:
    """A matrix for each batch: they are blocks on the diagonal of one."""

    def build(builder: Any, x: Any) -> Any:
        return op.matmul(x, relax.const(np.ones((batch, depth, rows), np.float32)))

    def numpy(matrix: Array, x: Array) -> Array:
        blocks = matrix.reshape(batch, rows, batch, depth)
        return np.stack([x[n] @ blocks[n, :, n].T for n in range(batch)])

    return Operator("batched matmul", (batch, tokens, depth), build, numpy)


# -- convolutions --------------------------------------------------------------------------------------------------


def conv1d(out: int, channels: int, taps: int, length: int) -> Operator:
    def build(builder: Any, x: Any) -> Any:
        weight = relax.const(np.ones((out, channels, taps), np.float32))
        return op.nn.conv1d(x, weight, padding=(taps // 2, taps // 2))

    def numpy(matrix: Array, x: Array) -> Array:
        weight = matrix.reshape(out, channels, 1, taps)
        return convolve(x[:, :, None], weight, padding=(0, taps // 2, 0, taps // 2))[:, :, 0]

    return Operator("conv1d", (1, channels, length), build, numpy)


def conv2d(
    name: str,
    out: int,
    channels: int,
    size: tuple[int, int],
    taps: int = 3,
    groups: int = 1,
    **options: tuple[int, ...],
) -> Operator:
    """`options`: padding (top, left, bottom, right), strides and dilation."""

    def build(builder: Any, x: Any) -> Any:
        weight = relax.const(np.ones((out, channels // groups, taps, taps), np.float32))
        return op.nn.conv2d(x, weight, groups=groups, **options)

    def numpy(matrix: Array, x: Array) -> Array:
        return convolve(x, matrix.reshape(out, channels, taps, taps), **options)

    return Operator(name, (1, channels, *size), build, numpy)


def convolve(
    x: Array,
    weight: Array,
    padding: tuple[int, ...] = (0, 0, 0, 0),
    strides: tuple[int, ...] = (1, 1),
    dilation: tuple[int, ...] = (1, 1),
) -> Array:
    """A convolution of [n, c, h, w] by [o, c, r, s], by its windows."""
    top, left, bottom, right = padding
    reach = [(taps - 1) * step + 1 for taps, step in zip(weight.shape[2:], dilation, strict=True)]
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))), reach, (2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilation[0], :: dilation[1]]
    return np.einsum("nchwrs,ocrs->nohw", windows, weight)


# -- the operators of the table ------------------------------------------------------------------------------------


OPERATORS: dict[str, Callable[[], Operator]] = {
    "matmul, linear": partial(linear, 13, 27),
    "batched matmul": partial(batched_matmul, 3, 5, 9),
    "conv1d": partial(conv1d, 13, 9, 3, 19),
    "conv2d": partial(conv2d, "conv2d", 13, 3, (5, 7), padding=(1, 1, 1, 1)),
    "conv2d, strides, padding, dilation": partial(
        conv2d, "conv2d", 13, 3, (9, 11), padding=(2, 1, 1, 2), strides=(2, 2), dilation=(2, 1)
    ),
    "grouped convolution": partial(conv2d, "conv2d", 12, 6, (5, 7), groups=3, padding=(1, 1, 1, 1)),
}
"""By the name that the page gives them. No block of a layout divides their rows and depths."""

EDGES: dict[str, Callable[[], Operator]] = {
    "linear, one row": partial(linear, 1, 27),
    "linear, one column": partial(linear, 13, 1),
    "linear, 1×1": partial(linear, 1, 1),
    "linear, one token": partial(linear, 13, 27, 1),
    "conv2d, one row": partial(conv2d, "conv2d", 1, 3, (5, 7), padding=(1, 1, 1, 1)),
    "conv2d, one column": partial(conv2d, "conv2d", 13, 1, (5, 7), 1),
    "conv2d, 1×1, one pixel": partial(conv2d, "conv2d", 1, 1, (1, 1), 1),
}
"""Matrices that are as small as they get."""
