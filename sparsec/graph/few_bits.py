"""Let linear layers of integers that take few bits be multiplied bit by bit, where that is faster.

What few-bit networks leave in a model are integers of 8 bits: activations that are clipped behind their rounding, as in
``QuantizeLinear → Clip → DequantizeLinear``, and weights of few different numbers. So bits are counted by what the
integers can be, and not by their type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.graph.graph import Graph, Node
from sparsec.graph.integer_ranges import range_of
from sparsec.graph.low_bit import low_bit_product, price
from sparsec.graph.merge_duplicates import merge_duplicates
from sparsec.graph.products import find_anchor
from sparsec.graph.shape import product
from sparsec.graph.simplify import reshape
from sparsec.ir.bit_planes import Encoding
from sparsec.ir.types import BYTES
from sparsec.schedules.rules.product import propose
from sparsec.targets import Target


def few_bits(graph: Graph, target: Target, is_free: Callable[[str], bool]) -> None:
    """Rewrite ``linear_cols`` over integers to ``low_bit_product``, where these take 1 to 4 bits and it is faster.

    Parameters
    ----------
    is_free : whether the layout of a layer may be chosen
    """
    nodes = [node for node in graph.nodes if node.op == "linear_cols" and node.inputs[0].dtype in BYTES]
    for node in nodes:
        if is_free(node.where):
            _rewrite(graph, node, target)
    if nodes:
        graph.remove_dead()
        merge_duplicates(graph)
    graph.verify()


def _rewrite(graph: Graph, node: Node, target: Target) -> None:
    (x, weight), y, anchor = node.inputs, node.output, find_anchor(node)
    matrix = weight.data
    if matrix is None or not matrix.size or anchor is None:
        return
    weights, activations = _encoding_of(matrix), Encoding.covering(*map(int, range_of(x)))
    if weights is None or activations is None:
        return
    flat = reshape(graph, x, (product(y.shape[:-2]), *x.shape[-2:]), node)
    sums = low_bit_product(graph, matrix, flat, (weights, activations), target, before=node)
    bytewise = propose(anchor.product, matrix.astype(np.float32), target)
    assert sums.producer is not None
    if price(sums.producer, target) < bytewise.seconds:
        sums.producer.attrs["dense_seconds"] = bytewise.dense_seconds
        graph.replace(y, reshape(graph, sums, y.shape, node))


def _encoding_of(matrix: np.ndarray) -> Encoding | None:
    """Return the encoding of the numbers that a weight has."""
    numbers = np.unique(matrix).astype(np.int64)
    step = int(np.gcd.reduce(np.diff(numbers))) if len(numbers) > 1 else 1
    return Encoding.covering(int(numbers[0]), int(numbers[-1]), step)
