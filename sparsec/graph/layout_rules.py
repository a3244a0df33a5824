"""Which axis may be innermost around each operator, and how the operator reads in physical space.

A tensor's *inner axis* is the logical axis that is stored innermost; the others keep their order in front of it. A
:class:`Rule` lists the *modes* of an operator, each an inner axis for every operand, and rewrites a node in one mode
over tensors as they lie in memory, which are row-major again: shapes, axes and operands are permuted, and what only
relabels axes is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sparsec.graph.evaluate import ELEMENTWISE, REDUCTIONS
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import Dim, Shape, is_one, reshape_groups
from sparsec.graph.simplify import permute, reshape

VECTOR = 16
"""Elements of a vector, roughly: with fewer columns a linear layer is inefficient."""

INNERMOST_REDUCTION = 0.25
"""What a reduction along the innermost axis costs more than one along another, in traffic of its operand."""


@dataclass(frozen=True)
class Mode:
    """One way to run a node: the axes that may be innermost in each input, and the one that is in its outputs.

    ``cost`` is in units of the memory traffic of the first output.
    """

    inputs: tuple[tuple[int, ...], ...]
    output: int
    cost: float = 0.0


class Space(Protocol):
    """What a rule rewrites into: a graph of physical tensors."""

    graph: Graph

    def read(self, value: Value, *inner: int) -> tuple[Value, int]:
        """The physical tensor of a logical value with one of these axes innermost, and which one it is."""

    def emit(self, node: Node, op: str, inputs: Sequence[Value], attrs: dict[str, Any], inner: int) -> None:
        """Make a node's outputs, with an axis innermost."""

    def set(self, node: Node, value: Value, inner: int) -> None:
        """Let a physical tensor of the right shape be a node's output."""


@dataclass(frozen=True)
class Rule:
    modes: Callable[[Node], list[Mode]]
    rewrite: Callable[[Space, Node, Mode], None]


def rule_of(node: Node) -> Rule:
    """The rule for a node; operators that have none of their own read and write row-major tensors."""
    if node.op in ELEMENTWISE or node.op == "broadcast_to":
        return _ELEMENTWISE
    if node.op in REDUCTIONS and node.attrs.get("axis") is not None:
        return _REDUCTION
    if node.op in _ALONG_AXIS and node.attrs.get("axis") is not None:
        return _AXIS
    return _RULES.get(node.op, _ROW_MAJOR)


# Geometry


def last(value: Value) -> int:
    """The inner axis of a row-major tensor."""
    return max(value.rank - 1, 0)


def order(rank: int, inner: int) -> tuple[int, ...]:
    """The logical axes in the order in which they are stored.

    >>> order(4, 1)
    (0, 2, 3, 1)
    """
    return (*(axis for axis in range(rank) if axis != inner), inner) if rank else ()


def position(axis: int, rank: int, inner: int) -> int:
    """The physical axis that holds a logical one."""
    return order(rank, inner).index(axis % rank)


def physical(shape: Shape, inner: int) -> Shape:
    return tuple(shape[axis] for axis in order(len(shape), inner))


def same_memory(shape: Shape, a: int, b: int) -> bool:
    """Whether two inner axes mean the same order of elements, since axes of size one do not count."""

    def moving(inner: int) -> list[int]:
        return [axis for axis in order(len(shape), inner) if not is_one(shape[axis])]

    return a == b or moving(a) == moving(b)


def candidates(value: Value) -> list[int]:
    """The inner axes that a tensor may have, the row-major one first."""
    return [last(value), *range(value.rank - 1)]


def _reduction_cost(shape: Shape, inner: int, axes: Sequence[int]) -> float:
    """The extra cost of reducing some axes, if one of them is the innermost that is longer than one."""
    long = [axis for axis in order(len(shape), inner) if not is_one(shape[axis])]
    return INNERMOST_REDUCTION if long and long[-1] in axes else 0.0


# Row-major


def _row_major_modes(node: Node) -> list[Mode]:
    return [Mode(tuple((last(v),) for v in node.inputs), last(node.outputs[0]))]


def _row_major_rewrite(space: Space, node: Node, mode: Mode) -> None:
    inputs = [space.read(v, last(v))[0] for v in node.inputs]
    space.emit(node, node.op, inputs, node.attrs, mode.output)


# Elementwise with broadcasting


def _broadcast_axis(value: Value, rank: int, inner: int) -> int:
    """The axis of an operand to store innermost for an output with ``inner`` innermost."""
    axis = inner - (rank - value.rank)
    return axis if axis >= 0 else last(value)


def _elementwise_modes(node: Node) -> list[Mode]:
    rank = node.output.rank
    return [
        Mode(tuple((_broadcast_axis(v, rank, inner),) for v in node.inputs), inner) for inner in candidates(node.output)
    ]


def _elementwise_rewrite(space: Space, node: Node, mode: Mode) -> None:
    rank, inputs = node.output.rank, []
    for value in node.inputs:
        x, _ = space.read(value, _broadcast_axis(value, rank, mode.output))
        if mode.output < rank - value.rank and value.rank:  # the inner axis is one that the operand lacks
            x = reshape(space.graph, x, (*x.shape, 1), None)
        inputs.append(x)
    attrs = dict(node.attrs)
    if node.op == "broadcast_to":
        attrs["shape"] = physical(node.output.shape, mode.output)
    space.emit(node, node.op, inputs, attrs, mode.output)


# Along an axis: softmax, concatenation, slices, padding, layer norm


def _same_modes(node: Node) -> list[Mode]:
    """Any axis innermost, the same in all operands."""
    return [Mode(tuple((inner,) for _ in node.inputs), inner) for inner in candidates(node.outputs[0])]


def _along_modes(node: Node) -> list[Mode]:
    x = node.inputs[0]
    reduced = [node.attrs["axis"] % x.rank] if node.op in ("nn.softmax", "nn.log_softmax") else []
    return [Mode(m.inputs, m.output, _reduction_cost(x.shape, m.output, reduced)) for m in _same_modes(node)]


def _along_rewrite(space: Space, node: Node, mode: Mode) -> None:
    inputs = [space.read(v, mode.output)[0] for v in node.inputs]
    axis = position(node.attrs["axis"], node.inputs[0].rank, mode.output)
    space.emit(node, node.op, inputs, {**node.attrs, "axis": axis}, mode.output)


def _slice_rewrite(space: Space, node: Node, mode: Mode) -> None:
    x, _ = space.read(node.inputs[0], mode.output)
    axes = tuple(position(axis, x.rank, mode.output) for axis in node.attrs["axes"])
    space.emit(node, node.op, [x], {**node.attrs, "axes": axes}, mode.output)


def _pad_rewrite(space: Space, node: Node, mode: Mode) -> None:
    x, _ = space.read(node.inputs[0], mode.output)
    width = node.attrs["pad_width"]
    moved = tuple(w for axis in order(x.rank, mode.output) for w in width[2 * axis : 2 * axis + 2])
    space.emit(node, node.op, [x], {**node.attrs, "pad_width": moved}, mode.output)


def _norm_axes(node: Node) -> list[int]:
    axes = node.attrs["axes"]
    return [axis % node.inputs[0].rank for axis in ((axes,) if isinstance(axes, int) else axes)]


def _layer_norm_modes(node: Node) -> list[Mode]:
    x, *parameters = node.inputs
    rows = tuple((last(p),) for p in parameters)
    modes = []
    for inner in candidates(node.output):
        moved = [position(axis, x.rank, inner) for axis in _norm_axes(node)]
        if moved == sorted(moved):  # gamma and beta have the normalized axes in this order
            modes.append(Mode(((inner,), *rows), inner, _reduction_cost(x.shape, inner, _norm_axes(node))))
    return modes


def _layer_norm_rewrite(space: Space, node: Node, mode: Mode) -> None:
    x, _ = space.read(node.inputs[0], mode.output)
    parameters = [space.read(p, last(p))[0] for p in node.inputs[1:]]
    axes = tuple(position(axis, x.rank, mode.output) for axis in _norm_axes(node))
    space.emit(node, node.op, [x, *parameters], {**node.attrs, "axes": axes}, mode.output)


# Reductions


def _reduced(node: Node) -> list[int]:
    axes = node.attrs["axis"]
    return sorted(axis % node.inputs[0].rank for axis in ((axes,) if isinstance(axes, int) else axes))


def _reduction_modes(node: Node) -> list[Mode]:
    axes, modes = _reduced(node), []
    for inner in candidates(node.inputs[0]):
        if node.attrs.get("keepdims"):
            output = inner
        elif inner in axes:
            output = last(node.output)
        else:
            output = inner - sum(axis < inner for axis in axes)
        modes.append(Mode(((inner,),), output, _reduction_cost(node.inputs[0].shape, inner, axes)))
    return modes


def _reduction_rewrite(space: Space, node: Node, mode: Mode) -> None:
    ((inner,),) = mode.inputs
    x, _ = space.read(node.inputs[0], inner)
    axes = tuple(sorted(position(axis, x.rank, inner) for axis in _reduced(node)))
    space.emit(node, node.op, [x], {**node.attrs, "axis": axes}, mode.output)


# Relabelling


def _reshape_modes(node: Node) -> list[Mode]:
    source, target = node.inputs[0], node.output
    modes = [Mode(((last(source),),), last(target))]
    for left, right in reshape_groups(source.shape, target.shape):
        if len(left) == len(right) == 1:
            modes.append(Mode(((left[0],),), right[0]))
    return modes


def _reshape_rewrite(space: Space, node: Node, mode: Mode) -> None:
    x, _ = space.read(node.inputs[0], *mode.inputs[0])
    space.set(node, reshape(space.graph, x, physical(node.output.shape, mode.output), None), mode.output)


def _stored_axes(node: Node, source: int, target: int) -> tuple[int, ...]:
    """The permutation of physical axes that a permutation of logical ones comes down to."""
    axes, rank = node.attrs["axes"], node.output.rank
    return tuple(position(axes[axis], rank, source) for axis in order(rank, target))


def _permute_modes(node: Node) -> list[Mode]:
    modes = []
    for source in candidates(node.inputs[0]):
        stored = physical(node.inputs[0].shape, source)
        for target in candidates(node.output):
            moving = [axis for axis in _stored_axes(node, source, target) if not is_one(stored[axis])]
            modes.append(Mode(((source,),), target, 0 if moving == sorted(moving) else 1))
    return modes


def _permute_rewrite(space: Space, node: Node, mode: Mode) -> None:
    ((source,),) = mode.inputs
    x, _ = space.read(node.inputs[0], source)
    space.set(node, permute(space.graph, x, _stored_axes(node, source, mode.output), None), mode.output)


# Products


def _linear_modes(node: Node) -> list[Mode]:
    """Rows of x are independent, so that any axis but the last may hold the columns; long ones are best."""
    *leading, _ = node.output.shape
    return [Mode(((axis,), (1,)), axis, _short_columns(leading[axis])) for axis in reversed(range(len(leading)))]


def _short_columns(extent: Dim) -> float:
    """What vectors that are not full cost."""
    return max(0.0, VECTOR / extent - 1) if isinstance(extent, int) else 0.0


def _linear_rewrite(space: Space, node: Node, mode: Mode) -> None:
    x, _ = space.read(node.inputs[0], mode.output)
    weight, _ = space.read(node.inputs[1], 1)
    space.emit(node, "linear_cols", [x, weight], {}, mode.output)


def _matmul_modes(node: Node) -> list[Mode]:
    a, b = (v.rank for v in node.inputs)
    rank = node.output.rank
    return [Mode(((a - 1, a - 2), (b - 1,)), rank - 1), Mode(((a - 2,), (b - 1, b - 2)), rank - 2)]


def _matmul_rewrite(space: Space, node: Node, mode: Mode) -> None:
    """C = A B as it is, or Cᵀ = Bᵀ Aᵀ; the operand read by scalars comes first, in whichever order it is stored."""
    is_plain = mode.output == node.output.rank - 1
    scalars, vectors = node.inputs if is_plain else node.inputs[::-1]
    axes = mode.inputs[0 if is_plain else 1]
    lhs, inner = space.read(scalars, *axes)
    rhs, _ = space.read(vectors, *mode.inputs[1 if is_plain else 0])
    rows = scalars.rank - (2 if is_plain else 1)  # the axis of the result's rows in the operand read by scalars
    space.emit(node, "batch_matmul", [lhs, rhs], {"lhs_transposed": inner == rows}, mode.output)


_ALONG_AXIS = {"concat", "cumprod", "cumsum", "flip", "nn.log_softmax", "nn.softmax", "split"}

_AXIS = Rule(_along_modes, _along_rewrite)
_ELEMENTWISE = Rule(_elementwise_modes, _elementwise_rewrite)
_REDUCTION = Rule(_reduction_modes, _reduction_rewrite)
_ROW_MAJOR = Rule(_row_major_modes, _row_major_rewrite)

_RULES = {
    "linear": Rule(_linear_modes, _linear_rewrite),
    "matmul": Rule(_matmul_modes, _matmul_rewrite),
    "nn.layer_norm": Rule(_layer_norm_modes, _layer_norm_rewrite),
    "nn.pad": Rule(_same_modes, _pad_rewrite),
    "permute_dims": Rule(_permute_modes, _permute_rewrite),
    "reshape": Rule(_reshape_modes, _reshape_rewrite),
    "strided_slice": Rule(_same_modes, _slice_rewrite),
}
