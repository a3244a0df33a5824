"""Fold per-channel scales and shifts, batch norms first of all, into the weights of the layer before them."""

from dataclasses import dataclass

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.ir.types import is_float

LAYERS = {"conv2d": 1, "linear": -1}
"""Canonical layers with a constant weight ``[outputs, ...]``, and the output axis that holds the outputs."""


@dataclass
class Affine:
    """``y = scale · x + shift`` per output channel, in double precision until it is folded."""

    scale: np.ndarray
    shift: np.ndarray


def fold_batch_norm(graph: Graph) -> None:
    """Fold chains of batch norms and constant per-channel ``multiply``, ``add``, … into the layer before them.

    Every such chain becomes one ``add``; zeros of the weight stay zeros. A batch norm that follows no layer becomes a
    ``multiply`` and an ``add``. Runs after :func:`sparsec.graph.recognize.recognize`.
    """
    for node in list(graph.nodes):
        if node.op in LAYERS and node.inputs[1].is_constant and is_float(node.output.dtype):
            _fold_into(graph, node, LAYERS[node.op] % node.output.rank)
    graph.remove_dead()
    for node in list(graph.nodes):
        if node.op == "nn.batch_norm" and is_inference(node):
            _spell_out(graph, node)
    graph.remove_dead()


def _fold_into(graph: Graph, layer: Node, axis: int) -> None:
    channels = layer.inputs[1].shape[0]
    total = Affine(np.ones(channels), np.zeros(channels))
    end, chain = layer.output, []
    while len(end.users) == 1 and end not in graph.outputs:
        step = _affine_of(end.users[0], end, axis, channels)
        if step is None:
            break
        total = Affine(total.scale * step.scale, total.shift * step.scale + step.shift)
        chain.append(end.users[0])
        end = end.users[0].outputs[0]
    if not chain or [node.op for node in chain] == ["add"]:
        return
    weight = layer.inputs[1]
    assert weight.data is not None
    scaled = weight.data * total.scale.reshape(-1, *[1] * (weight.rank - 1))
    folded = graph.constant(np.where(weight.data == 0, weight.data, scaled.astype(weight.dtype)), weight.name)
    result = graph.add(
        layer.op, [layer.inputs[0], folded], layer.output.shape, layer.attrs, dtype=layer.output.dtype, before=layer
    )
    if total.shift.any():
        result = _add_shift(graph, result, total.shift, axis, before=layer)
    graph.replace(end, result)


def _affine_of(node: Node, x: Value, axis: int, channels: int) -> Affine | None:
    """What the node does to x, where that is a constant scale and shift per channel."""
    if node.op == "nn.batch_norm":
        is_ours = node.inputs[0] is x and node.attrs["axis"] % x.rank == axis and is_inference(node)
        return _batch_norm(node) if is_ours else None
    if node.op not in ("add", "subtract", "multiply", "divide") or node.inputs[0] is node.inputs[1]:
        return None
    is_left = node.inputs[0] is x
    other = per_channel(node.inputs[1 if is_left else 0], x.rank, axis, channels)
    if other is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op == "add":
        return Affine(one, other)
    if node.op == "multiply":
        return Affine(other, zero)
    if node.op == "subtract":
        return Affine(one, -other) if is_left else Affine(-one, other)
    return Affine(1 / other, zero) if is_left and other.all() else None


def per_channel(value: Value, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """A constant with at most one value per channel as a vector over the channels."""
    if value.data is None or value.rank > rank:
        return None
    shape = (1,) * (rank - value.rank) + value.data.shape
    if any(size != 1 for position, size in enumerate(shape) if position != axis):
        return None
    return np.broadcast_to(value.data.reshape(-1).astype("float64"), (channels,))


def is_inference(node: Node) -> bool:
    """Whether the statistics are constants and nobody reads the updated ones."""
    is_constant = all(v.is_constant for v in node.inputs[1:])
    return is_constant and not node.attrs.get("training") and not any(v.users for v in node.outputs[1:])


def _batch_norm(node: Node) -> Affine:
    gamma, beta, mean, variance = (v.data.astype("float64") for v in node.inputs[1:] if v.data is not None)
    scale = 1 / np.sqrt(variance + node.attrs["epsilon"])
    if node.attrs.get("scale", True):
        scale = scale * gamma
    return Affine(scale, (beta if node.attrs.get("center", True) else 0) - mean * scale)


def _spell_out(graph: Graph, node: Node) -> None:
    x, affine = node.inputs[0], _batch_norm(node)
    axis = node.attrs["axis"] % x.rank
    scale = _constant(graph, affine.scale, x, axis)
    scaled = graph.add("multiply", [x, scale], x.shape, before=node)
    graph.replace(node.outputs[0], _add_shift(graph, scaled, affine.shift, axis, before=node))


def _add_shift(graph: Graph, x: Value, shift: np.ndarray, axis: int, before: Node) -> Value:
    return graph.add("add", [x, _constant(graph, shift, x, axis)], x.shape, before=before)


def _constant(graph: Graph, channels: np.ndarray, x: Value, axis: int) -> Value:
    """A vector over the channels, shaped to broadcast over x."""
    return graph.constant(channels.astype(x.dtype).reshape(-1, *[1] * (x.rank - 1 - axis)), "channels")
