"""A product of activations with a constant matrix for each batch, such as the experts of a mixture, as a linear layer.

As for a grouped convolution, the matrices stand on the diagonal of one, whose zeros cost nothing in a sparse layout:
``[y₀; y₁] = [W₀ 0; 0 W₁] · [x₀; x₁]``. In physical space, with tokens innermost, the batches lie on top of each other
already, so that nothing is moved.
"""

from __future__ import annotations

import math

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import is_one, same_shape
from sparsec.graph.simplify import permute, reshape, take_part

LARGEST = 1 << 26
"""Elements of a block-diagonal matrix, beyond which the batches are split into several."""


def batched_linear(graph: Graph, node: Node) -> Value | None:
    """``x [.., e, m, k] · W [e, k, n]`` with a constant W on either side, as a linear layer over ``[.., m, e·k]``."""
    left, right = node.inputs
    if right.is_constant and not left.is_constant:
        return _layer(graph, left, right, node)
    if left.is_constant and not right.is_constant:
        result = _layer(graph, _transpose(graph, right, node), _transpose(graph, left, node), node)
        return None if result is None else _transpose(graph, result, node)
    return None


def _transpose(graph: Graph, value: Value, before: Node) -> Value:
    axes = (*range(value.rank - 2), value.rank - 1, value.rank - 2)
    return permute(graph, value, axes, before) if value.rank > 1 else value


def _layer(graph: Graph, x: Value, weight: Value, before: Node) -> Value | None:
    assert weight.data is not None
    if x.rank < 2:
        return None
    *batches, depth, outputs = weight.data.shape
    rank, count = len(batches), math.prod(batches)
    matrices = weight.data.reshape(count, depth, outputs)
    at = max(0, x.rank - 2 - rank)
    leading, own, tokens = x.shape[:at], x.shape[at:-2], x.shape[-2:-1]
    shape = (*leading, *batches, *tokens, outputs)
    if all(map(is_one, own)):  # all batches read the same
        x = reshape(graph, x, (*leading, 1, *tokens, depth), before)
        y = _diagonal(graph, x, matrices.swapaxes(0, 1).reshape(1, depth, -1), weight.name, before)
        y = reshape(graph, y, (*leading, *tokens, count, outputs), before)
        return reshape(graph, _swap(graph, y, at, before), shape, before)
    if not same_shape(own, batches):
        return None
    x = reshape(graph, x, (*leading, count, *tokens, depth), before)
    size = max(1, min(count, math.isqrt(LARGEST // max(1, depth * outputs))))
    parts = []
    for start in range(0, count, size):
        part = matrices[start : start + size]
        parts.append(_diagonal(graph, take_part(graph, x, at, start, len(part), before), part, weight.name, before))
    whole = (*leading, count, *tokens, outputs)
    result = parts[0] if len(parts) == 1 else graph.add("concat", parts, whole, {"axis": at}, before=before)
    return reshape(graph, result, shape, before)


def _swap(graph: Graph, x: Value, axis: int, before: Node) -> Value:
    """The value with an axis and the one behind it exchanged."""
    axes = list(range(x.rank))
    axes[axis], axes[axis + 1] = axis + 1, axis
    return permute(graph, x, tuple(axes), before)


def _diagonal(graph: Graph, x: Value, matrices: np.ndarray, name: str, before: Node) -> Value:
    """``[.., e, m, k]`` times e matrices ``[k, n]``."""
    count, depth, outputs = matrices.shape
    whole = np.zeros((count, outputs, count, depth), matrices.dtype)
    whole[np.arange(count), :, np.arange(count)] = matrices.transpose(0, 2, 1)
    weight = graph.constant(whole.reshape(count * outputs, count * depth), name)
    rows = _swap(graph, x, x.rank - 3, before)
    leading = rows.shape[:-2]
    rows = reshape(graph, rows, (*leading, count * depth), before)
    shape = (*leading, count * outputs)
    y = graph.add("linear", [rows, weight], shape, dtype=before.output.dtype, before=before, name=before.output.name)
    return _swap(graph, reshape(graph, y, (*leading, count, outputs), before), x.rank - 3, before)
