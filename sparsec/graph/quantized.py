"""Numbers that a model stores as small integers: ``x ≈ scale · (q − zero)``.

Importers leave two operators, one scale and zero for the whole tensor or for each index of ``axis``:

``quantize(x, scale, zero; axis, out_dtype)``
    ``clip(round(x / scale) + zero)``, rounded to nearest even, in float32.
``dequantize(q, scale, zero; axis, out_dtype)``
    ``(q − zero) · scale``.

:func:`gather_integers` brings them to where integers are made and read; :func:`spell_out` writes what is left of them
in elementwise operators, which every other pass knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.graph.evaluate import evaluate_node
from sparsec.graph.graph import Graph, Node, Value
from sparsec.ir.types import BYTES

_FLIPPED = {"int8": "uint8", "uint8": "int8"}

MOVES = frozenset({
    "broadcast_to", "expand_dims", "flatten", "flip", "nn.batch_flatten", "nn.max_pool2d", "permute_dims", "repeat",
    "reshape", "split", "squeeze", "strided_slice", "take", "tile",
})  # fmt: skip
"""Operators that pick elements of their first input by place or by order, which are the same for the integers."""


@dataclass(frozen=True)
class Quantized:
    """A tensor as integers; ``axis`` is the one of the scales, where there are several."""

    q: Value
    scale: Value
    zero: Value
    axis: int

    @property
    def is_uniform(self) -> bool:
        """Whether one scale and one zero hold for the whole tensor."""
        return all(math.prod(map(_int, v.shape)) == 1 for v in (self.scale, self.zero))

    def same_numbers(self, other: Quantized) -> bool:
        """Whether equal integers of both are equal numbers; each has one constant scale and zero."""
        a, b = (self.scale.data, self.zero.data), (other.scale.data, other.zero.data)
        types = self.q.dtype == other.q.dtype and self.is_uniform and other.is_uniform
        pairs = list(zip(a, b, strict=True))
        return types and all(x is not None and y is not None and x.item() == y.item() for x, y in pairs)


def dequantized(value: Value) -> Quantized | None:
    """How a value is stored, if it is a tensor of integers read as numbers."""
    return _operands(value.producer) if value.producer is not None and value.producer.op == "dequantize" else None


def flip_sign(graph: Graph, q: Value, before: Node) -> Value:
    """The integers of 8 bits in the other signedness, 128 more or less: their first bit the other way round."""
    return graph.add("flip_sign", [q], q.shape, dtype=_FLIPPED[q.dtype], before=before)


def flipped(graph: Graph, numbers: Quantized, before: Node | None = None) -> Quantized:
    """The same numbers by integers of the other signedness, whose zero is constant.

    Without `before` the integers are the same value, which then has to be made otherwise.
    """
    q, zero = numbers.q, numbers.zero
    assert zero.data is not None
    shift = 128 if q.dtype == "int8" else -128
    moved = graph.constant((zero.data.astype(np.int32) + shift).astype(_FLIPPED[q.dtype]), zero.name)
    return replace(numbers, q=flip_sign(graph, q, before) if before else q, zero=moved)


def gather_integers(graph: Graph, activation: str) -> None:
    """Move and pool integers instead of the numbers that they stand for, activations in the type `activation`.

    After it every ``quantize`` to 8 bits writes that type, and stands right behind what made its numbers; what moves
    elements after that works on integers.
    """
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            changed = _rewrite(graph, node, activation) or changed
        graph.remove_dead()


def _rewrite(graph: Graph, node: Node, activation: str) -> bool:
    if node.op == "quantize":
        return _requantized(graph, node) or _hoist(graph, node) or _choose_sign(graph, node, activation)
    if node.op == "dequantize":
        return _read_flipped(graph, node)
    if node.op == "astype":
        return _folded(graph, node)
    if node.op == "concat":
        return _sink_concat(graph, node)
    if node.op in MOVES:
        return _sink(graph, node)
    return False


def _requantized(graph: Graph, node: Node) -> bool:
    """quantize(dequantize(q)) → q, where both have one scale; of constants, their integers."""
    x = node.inputs[0]
    inner, outer = dequantized(x), _operands(node, node.output)
    if inner is not None and inner.same_numbers(outer):
        graph.replace(node.output, inner.q)
        return True
    return _folded(graph, node)


def _hoist(graph: Graph, node: Node) -> bool:
    """quantize(move(x)) → move(quantize(x)), so that those who make x write integers; of concat, all operands."""
    move, y = node.inputs[0].producer, node.output
    if move is None or move.op not in (*MOVES, "concat") or len(move.outputs) > 1 or not _operands(node).is_uniform:
        return False
    if len(move.output.users) > 1 or move.output in graph.outputs:
        return False
    moved = move.inputs if move.op == "concat" else move.inputs[:1]
    parts = [
        graph.add("quantize", [x, *node.inputs[1:]], x.shape, node.attrs, dtype=y.dtype, before=node) for x in moved
    ]
    inputs = [*parts, *move.inputs[len(parts) :]]
    graph.replace(y, graph.add(move.op, inputs, y.shape, move.attrs, dtype=y.dtype, before=node, name=y.name))
    return True


def _choose_sign(graph: Graph, node: Node, activation: str) -> bool:
    y, numbers = node.output, _operands(node, node.output)
    if y.dtype not in BYTES or y.dtype == activation or y in graph.outputs or numbers.zero.data is None:
        return False
    zero = flipped(graph, numbers).zero
    attrs = node.attrs | {"out_dtype": activation}
    inputs = [node.inputs[0], numbers.scale, zero]
    made = graph.add("quantize", inputs, y.shape, attrs, dtype=activation, before=node, name=y.name)
    graph.replace(y, flip_sign(graph, made, node))
    return True


def _read_flipped(graph: Graph, node: Node) -> bool:
    """dequantize(flip_sign(q)) → dequantize(q) with another zero."""
    numbers = _operands(node)
    flip = numbers.q.producer
    if flip is None or flip.op != "flip_sign" or numbers.zero.data is None:
        return False
    graph.set_inputs(node, [flip.inputs[0], numbers.scale, flipped(graph, numbers).zero])
    return True


def _sink_concat(graph: Graph, node: Node) -> bool:
    """concat(dequantize(a), dequantize(b)) → dequantize(concat(a, b)), where both have one scale."""
    parts = [dequantized(x) for x in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not all(part.same_numbers(known[0]) for part in known):
        return False
    y, first = node.output, known[0]
    q = graph.add("concat", [part.q for part in known], y.shape, node.attrs, before=node)
    graph.replace(y, _dequantize(graph, replace(first, q=q), y, node))
    return True


def _sink(graph: Graph, node: Node) -> bool:
    """move(dequantize(q)) → dequantize(move(q)), and the same for the sign."""
    x, *others = node.inputs
    numbers = dequantized(x)
    if numbers is None and (x.producer is None or x.producer.op != "flip_sign"):
        return False
    axis = 0 if numbers is None or numbers.is_uniform else _axis_behind(node, numbers.axis)
    if axis is None:
        return False
    q = x.producer.inputs[0]  # type: ignore[union-attr]
    made = graph.add_node(node.op, [q, *others], [(v.shape, q.dtype) for v in node.outputs], node.attrs, before=node)
    moved = _fold(graph, made) if all(value.is_constant for value in made.inputs) else made.outputs
    for old, new in zip(node.outputs, moved, strict=True):
        if numbers is None:
            graph.replace(old, flip_sign(graph, new, node))
        else:
            graph.replace(old, _dequantize(graph, replace(numbers, q=new, axis=axis), old, node))
    return True


def _axis_behind(node: Node, axis: int) -> int | None:
    """Where a move leaves an axis whole."""
    x, y = node.inputs[0], node.outputs[0]
    axis %= x.rank
    if node.op == "permute_dims":
        axes = [a % x.rank for a in node.attrs["axes"] or reversed(range(x.rank))]
        return axes.index(axis)
    constant = all(isinstance(extent, int) for extent in (*x.shape, *y.shape))
    if node.op not in ("expand_dims", "flatten", "reshape", "squeeze") or not constant:
        return None
    before = math.prod(map(_int, x.shape[:axis]))
    places = range(y.rank)
    fits = (p for p in places if y.shape[p] == x.shape[axis] and math.prod(map(_int, y.shape[:p])) == before)
    return next(fits, None)


def spell_out(graph: Graph) -> None:
    """Write ``quantize``, ``dequantize`` and ``flip_sign`` in elementwise operators."""
    for node in list(graph.nodes):
        if node.op in _SPELLED and not _folded(graph, node):
            graph.replace(node.output, _SPELLED[node.op](graph, node))
    graph.remove_dead()


def _folded(graph: Graph, node: Node) -> bool:
    """Replace a node over constants by its result."""
    if not all(value.is_constant for value in node.inputs):
        return False
    graph.replace(node.output, *_fold(graph, node))
    return True


def _fold(graph: Graph, node: Node) -> list[Value]:
    """The results of a node over constants."""
    results = evaluate_node(node, [value.data for value in node.inputs if value.data is not None], {})
    return [graph.constant(data, value.name) for data, value in zip(results, node.outputs, strict=True)]


def _spell_quantize(graph: Graph, node: Node) -> Value:
    y, numbers = node.output, _operands(node)
    limits = np.iinfo(y.dtype)
    x = cast(graph, node.inputs[0], "float32", node)
    x = graph.add("divide", [x, _broadcast(graph, numbers.scale, numbers, node)], y.shape, before=node)
    x = graph.add("round", [x], y.shape, before=node)
    if not numbers.zero.is_all(0):
        x = graph.add("add", [x, _broadcast(graph, numbers.zero, numbers, node)], y.shape, before=node)
    x = graph.add("clip", [x], y.shape, {"min": float(limits.min), "max": float(limits.max)}, before=node)
    return cast(graph, x, y.dtype, node)


def _spell_dequantize(graph: Graph, node: Node) -> Value:
    y, numbers = node.output, _operands(node)
    x = cast(graph, numbers.q, "float32", node)
    if not numbers.zero.is_all(0):
        x = graph.add("subtract", [x, _broadcast(graph, numbers.zero, numbers, node)], y.shape, before=node)
    x = graph.add("multiply", [x, _broadcast(graph, numbers.scale, numbers, node)], y.shape, before=node)
    return cast(graph, x, y.dtype, node)


def _spell_flip(graph: Graph, node: Node) -> Value:
    x, y = cast(graph, node.inputs[0], "int32", node), node.output
    shift = graph.constant(np.array(128 if y.dtype == "uint8" else -128, np.int32), "flip")
    return cast(graph, graph.add("add", [x, shift], y.shape, before=node), y.dtype, node)


_SPELLED = {"dequantize": _spell_dequantize, "flip_sign": _spell_flip, "quantize": _spell_quantize}


def cast(graph: Graph, x: Value, dtype: str, before: Node) -> Value:
    """The value in another type."""
    if x.dtype == dtype:
        return x
    if x.data is not None:
        return graph.constant(x.data.astype(dtype), x.name)
    return graph.add("astype", [x], x.shape, {"dtype": dtype}, dtype=dtype, before=before)


def _broadcast(graph: Graph, parameter: Value, numbers: Quantized, before: Node) -> Value:
    """A scale or zero, as float32 that broadcasts over the tensor."""
    value = cast(graph, parameter, "float32", before)
    rank = numbers.q.rank
    shape: Sequence[Any] = ()
    if math.prod(map(_int, parameter.shape)) != 1:
        shape = [parameter.shape[0] if a == numbers.axis % rank else 1 for a in range(rank)]
    if value.data is not None:
        return graph.constant(value.data.reshape(shape), value.name)
    return graph.add("reshape", [value], shape, {"shape": tuple(shape)}, before=before)


def _operands(node: Node, q: Value | None = None) -> Quantized:
    value, scale, zero = node.inputs
    return Quantized(q or value, scale, zero, node.attrs["axis"])


def _dequantize(graph: Graph, numbers: Quantized, y: Value, before: Node) -> Value:
    attrs = {"axis": numbers.axis, "out_dtype": y.dtype}
    inputs = [numbers.q, numbers.scale, numbers.zero]
    return graph.add("dequantize", inputs, y.shape, attrs, dtype=y.dtype, before=before, name=y.name)


def _int(extent: Any) -> int:
    """An extent, 0 where it is symbolic, which no number of elements is."""
    return extent if isinstance(extent, int) else 0
