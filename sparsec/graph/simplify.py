"""Remove nodes that change nothing, and write what only relabels axes as ``reshape`` or ``permute_dims``."""

from collections.abc import Callable

import numpy as np

from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.merge_duplicates import merge_duplicates
from sparsec.graph.shape import Shape, broadcast, equal, is_one, same_shape


def simplify(graph: Graph) -> None:
    """Drop no-ops, merge chains of reshapes and of permutes, and merge duplicates.

    Afterwards ``expand_dims``, ``squeeze`` and ``flatten`` are ``reshape``, a selection at a constant position is a
    ``strided_slice``, a permute that moves only axes of size one is a ``reshape``, and the constant operand of an
    ``add`` or ``multiply`` comes second. Elementwise operators broadcast their operands themselves.
    """
    for node in list(graph.nodes):
        if node.op in ("add", "multiply") and node.inputs[0].is_constant:
            graph.set_inputs(node, node.inputs[::-1])
        if node.op in ELEMENTWISE or node.op == "matmul":
            _narrow(graph, node)
        rule = _RULES.get(node.op)
        replacement = rule(graph, node) if rule else None
        if replacement is not None:
            graph.replace(node.outputs[0], replacement)
    merge_duplicates(graph)


def reshape(graph: Graph, value: Value, shape: Shape, before: Node | None) -> Value:
    """The value in another shape, itself where that is its shape already."""
    if same_shape(value.shape, shape):
        return value
    if value.data is not None:
        return graph.constant(value.data.reshape(shape), value.name)
    if value.producer is not None and value.producer.op == "reshape":
        return reshape(graph, value.producer.inputs[0], shape, before)
    return graph.add("reshape", [value], shape, {"shape": tuple(shape)}, before=before)


def permute(graph: Graph, value: Value, axes: tuple[int, ...], before: Node | None) -> Value:
    """The value with its axes in another order."""
    shape = tuple(value.shape[axis] for axis in axes)
    if value.data is not None:
        return graph.constant(np.transpose(value.data, axes), value.name)
    if value.producer is not None and value.producer.op == "permute_dims":
        inner = value.producer.attrs["axes"]
        return permute(graph, value.producer.inputs[0], tuple(inner[axis] for axis in axes), before)
    moved = [axis for axis in axes if not is_one(value.shape[axis])]
    if moved == sorted(moved):
        return reshape(graph, value, shape, before)
    return graph.add("permute_dims", [value], shape, {"axes": axes}, before=before)


def take_part(
    graph: Graph,
    value: Value,
    axis: int,
    begin: int,
    count: int,
    before: Node | None,
    name: str | None = None,
    stride: int = 1,
) -> Value:
    """So many elements of the value along an axis, itself where that is all of them."""
    if equal(value.shape[axis], count):
        return value
    shape = (*value.shape[:axis], count, *value.shape[axis + 1 :])
    end = begin + (count - 1) * stride + 1
    attrs = {"axes": (axis,), "begin": (begin,), "end": (end,), "strides": (stride,), "assume_inbound": True}
    return graph.add("strided_slice", [value], shape, attrs, before=before, name=name)


def add_zeros(graph: Graph, value: Value, axis: int, more: int, before: Node | None) -> Value:
    """The value with so many zeros more at the end of an axis."""
    if not more:
        return value
    pairs = [(0, more if each == axis else 0) for each in range(value.rank)]
    if value.data is not None:
        return graph.constant(np.pad(value.data, pairs), value.name)
    shape = (*value.shape[:axis], value.shape[axis] + more, *value.shape[axis + 1 :])
    width = tuple(extent for pair in pairs for extent in pair)
    attrs = {"pad_width": width, "pad_mode": "constant", "pad_value": 0.0}
    return graph.add("nn.pad", [value], shape, attrs, before=before)


def _narrow(graph: Graph, node: Node) -> None:
    """Let an elementwise node or a product broadcast its operands itself."""
    own = 2 if node.op == "matmul" else 0  # trailing axes that do not broadcast
    for position, value in enumerate(node.inputs):
        source = _before_broadcast(graph, value)
        if (
            source is not None
            and source.rank >= own
            and same_shape(source.shape[-own:], value.shape[-own:] if own else ())
        ):
            shapes = [v.shape for v in node.inputs]
            shapes[position] = source.shape
            leading = [shape[: len(shape) - own] for shape in shapes]
            if same_shape(broadcast(*leading), node.output.shape[: node.output.rank - own]):
                graph.set_inputs(node, [*node.inputs[:position], source, *node.inputs[position + 1 :]])


def _before_broadcast(graph: Graph, value: Value) -> Value | None:
    """The smaller tensor that a value repeats along its axes; None where it repeats none."""
    node = value.producer
    if node is not None and node.op in ("broadcast_to", "full", "full_like"):
        return node.inputs[-1]
    if value.data is None or value.rank < 2 or any(map(is_one, value.shape)) or not value.data.size:
        return None
    first = value.data.flat[0]
    is_uniform = value.data.flat[-1] == first and bool((value.data == first).all())
    return graph.constant(np.array(first), value.name) if is_uniform else None


def _as_reshape(graph: Graph, node: Node) -> Value | None:
    source = node.inputs[0]
    is_simple = node.op == "reshape" and (source.producer is None or source.producer.op != "reshape")
    if is_simple and not same_shape(source.shape, node.output.shape) and not source.is_constant:
        return None
    return reshape(graph, source, node.output.shape, node)


def _permute(graph: Graph, node: Node) -> Value | None:
    rank = node.inputs[0].rank
    axes = node.attrs.get("axes") or tuple(reversed(range(rank)))
    return permute(graph, node.inputs[0], tuple(axis % rank for axis in axes), node)


def _same_shape(graph: Graph, node: Node) -> Value | None:
    """An operator that is the identity where the shape does not change: broadcast, slice, concatenation of one."""
    (value, *others) = node.inputs
    return value if not others and same_shape(value.shape, node.output.shape) else None


def _slice(graph: Graph, node: Node) -> Value | None:
    forward = all(stride == 1 for stride in node.attrs.get("strides") or ())
    return _same_shape(graph, node) if forward else None


def _astype(graph: Graph, node: Node) -> Value | None:
    return node.inputs[0] if node.inputs[0].dtype == node.output.dtype else None


def _where(graph: Graph, node: Node) -> Value | None:
    condition, yes, no = node.inputs
    if condition.data is None or not (condition.data.all() or not condition.data.any()):
        return None
    chosen = yes if condition.data.all() else no
    return chosen if same_shape(chosen.shape, node.output.shape) else None


def _take(graph: Graph, node: Node) -> Value | None:
    """x[..., i, ...] at a constant position i, as a slice of one and a reshape."""
    axis, data = node.attrs.get("axis"), node.inputs[0]
    position = node.inputs[1].data if len(node.inputs) > 1 else np.array(node.attrs["indices"])
    if axis is None or position is None or position.size != 1 or data.is_constant:
        return None
    axis, at = axis % data.rank, int(position.reshape(()))
    extent = data.shape[axis]
    if at < 0 and not isinstance(extent, int):
        return None
    at = at + extent if at < 0 else at
    shape = (*data.shape[:axis], 1, *data.shape[axis + 1 :])
    attrs = {"axes": (axis,), "begin": (at,), "end": (at + 1,), "strides": (1,), "assume_inbound": True}
    return reshape(graph, graph.add("strided_slice", [data], shape, attrs, before=node), node.output.shape, node)


def _dropout(graph: Graph, node: Node) -> Value | None:
    return None if node.outputs[1].users else node.inputs[0]


def _scale_by_one(graph: Graph, node: Node) -> Value | None:
    """x · 1, 1 · x and x / 1, which importers write for alpha and beta."""
    left, right = node.inputs
    pairs = [(left, right)] if node.op == "divide" else [(left, right), (right, left)]
    for value, factor in pairs:
        is_unit = factor.scalar == 1
        if is_unit and same_shape(value.shape, node.output.shape):
            return value
    return None


_RULES: dict[str, Callable[[Graph, Node], Value | None]] = {
    "astype": _astype,
    "broadcast_to": _same_shape,
    "concat": _same_shape,
    "divide": _scale_by_one,
    "expand_dims": _as_reshape,
    "flatten": _as_reshape,
    "multiply": _scale_by_one,
    "nn.batch_flatten": _as_reshape,
    "nn.dropout": _dropout,
    "permute_dims": _permute,
    "reshape": _as_reshape,
    "squeeze": _as_reshape,
    "strided_slice": _slice,
    "take": _take,
    "where": _where,
}
