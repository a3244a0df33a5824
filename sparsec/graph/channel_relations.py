"""Which channels of a node's tensors stay or go together: what every operator says about removing channels.

A *channel* is a slice of a tensor at one position of one axis, whichever axis it is: an output of a linear layer, a
plane of an image, an attention head. For each operator, :func:`relate` lists

* a :class:`Tie` where channels of two of its tensors stand for each other: one cannot go without the other, and
* a :class:`Spare` where it can do without some channels of a tensor.

An axis that it names in neither is fixed. These are the dependencies of structural pruning (Fang et al., "DepGraph:
Towards Any Structural Pruning", CVPR 2023), element by element in place of axis by axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sparsec.graph.evaluate import ELEMENTWISE, REDUCTIONS
from sparsec.graph.graph import Node, Value
from sparsec.graph.shape import Shape, equal, product, reshape_groups

LARGEST_GROUP = 1 << 22
"""Elements of axes that a reshape merges or splits, beyond which nothing is said about them."""


@dataclass(frozen=True)
class Slot:
    """A tensor whose channels may go: a value, one use of a constant, or a view that only a relation speaks of.

    Each use of a constant is a tensor of its own, since two readers may need different parts of it.
    """

    of: Value | tuple[Node, int | str]
    shape: Shape = field(compare=False)


@dataclass(frozen=True)
class Tie:
    """The elements `at` of some axes of `a`, in row-major order, stand for all elements of some axes of `b`.

    `moves` says that `b` holds there what `a` holds, so that what is known of one is known of the other.
    """

    a: Slot
    a_axes: tuple[int, ...]
    b: Slot
    b_axes: tuple[int, ...]
    at: slice = field(default_factory=lambda: slice(None))
    moves: bool = False


@dataclass(frozen=True)
class Spare:
    """The channels along an axis, marked in a boolean vector, that a node can do without."""

    slot: Slot
    axis: int
    channels: np.ndarray


Relation = Tie | Spare


def slots(node: Node) -> tuple[list[Slot], list[Slot]]:
    """The inputs and the outputs of a node."""
    inputs = [Slot((node, i) if v.is_constant else v, v.shape) for i, v in enumerate(node.inputs)]
    return inputs, [Slot(v, v.shape) for v in node.outputs]


def relate(node: Node) -> list[Relation]:
    """The ties and the spare channels of a node."""
    rule = _elementwise if node.op in ELEMENTWISE else _RULES.get(node.op)
    return [] if rule is None else list(rule(node))


def channel_axis(layer: Node) -> int:
    """The axis of the channels that a linear layer or convolution reads and writes."""
    return 1 if layer.op == "conv2d" else layer.output.rank - 1


def grouped_weight(layer: Node, weight: np.ndarray) -> np.ndarray:
    """The weight of a linear layer or convolution as [groups, outputs, inputs, taps]."""
    groups = layer.attrs.get("groups", 1)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], math.prod(weight.shape[2:]))


def _same(a: Slot, b: Slot, axes: Iterable[int], moves: bool = False) -> Iterator[Tie]:
    """Ties of equal axes of two tensors of one rank, where the extents agree."""
    for axis in axes:
        if equal(a.shape[axis], b.shape[axis]):
            yield Tie(a, (axis,), b, (axis,), moves=moves)


def _elementwise(node: Node) -> Iterator[Relation]:
    inputs, (y,) = slots(node)
    for x in inputs:
        skipped = len(y.shape) - len(x.shape)
        for axis, extent in enumerate(x.shape):
            if equal(extent, y.shape[axis + skipped]):
                yield Tie(x, (axis,), y, (axis + skipped,))


def _linear(node: Node) -> Iterator[Relation]:
    (x, weight), (y,) = slots(node)
    last = len(y.shape) - 1
    yield from _same(x, y, range(last))
    yield Tie(x, (last,), weight, (1,))
    yield Tie(y, (last,), weight, (0,))
    yield from _unused_columns(node, weight)


def _unused_columns(layer: Node, weight: Slot) -> Iterator[Spare]:
    data = layer.inputs[1].data
    if data is not None:
        used = data.any(axis=tuple(axis for axis in range(data.ndim) if axis != 1))
        yield Spare(weight, 1, np.logical_not(used))


def _conv2d(node: Node) -> Iterator[Relation]:
    (x, weight), (y,) = slots(node)
    yield from _same(x, y, [0])
    # Views of the inputs and outputs, [groups, channels of one]: a group goes as a whole, or a channel from each group.
    inputs, outputs = group_views(node)
    yield Tie(x, (1,), inputs, (0, 1))
    yield Tie(y, (1,), outputs, (0, 1))
    yield Tie(weight, (0,), outputs, (0, 1))
    yield Tie(weight, (1,), inputs, (1,))
    yield from _unused_columns(node, weight)
    yield Tie(inputs, (0,), outputs, (0,))


def group_views(node: Node) -> tuple[Slot, Slot]:
    """The input and output channels of a convolution, as [groups, channels of one]."""
    groups, weight = node.attrs["groups"], node.inputs[1]
    outputs = weight.shape[0]
    assert isinstance(outputs, int)
    return Slot((node, "inputs"), (groups, weight.shape[1])), Slot((node, "outputs"), (groups, outputs // groups))


def _matmul(node: Node) -> Iterator[Relation]:
    (a, b), (y,) = slots(node)
    rank = len(y.shape)
    for x in (a, b):
        skipped = rank - len(x.shape)
        for axis in range(len(x.shape) - 2):
            if equal(x.shape[axis], y.shape[axis + skipped]):
                yield Tie(x, (axis,), y, (axis + skipped,))
    yield Tie(a, (len(a.shape) - 2,), y, (rank - 2,))
    yield Tie(b, (len(b.shape) - 1,), y, (rank - 1,))
    yield Tie(a, (len(a.shape) - 1,), b, (len(b.shape) - 2,))


def _all_but(*names: str) -> Callable[[Node], Iterator[Relation]]:
    """Along every axis but those that an attribute names, each output depends on the same part of the first input."""

    def rule(node: Node) -> Iterator[Relation]:
        (x, *_), outputs = slots(node)
        fixed = _axes(node, names)
        for y in outputs:
            if len(y.shape) == len(x.shape):
                yield from _same(x, y, [axis for axis in range(len(x.shape)) if axis not in fixed])

    return rule


def _axes(node: Node, names: Iterable[str]) -> set[int]:
    """The axes in an attribute; all where it is None."""
    rank = node.inputs[0].rank
    axes = next(node.attrs[name] for name in names if name in node.attrs)
    if axes is None:
        return set(range(rank))
    return {axis % rank for axis in ((axes,) if isinstance(axes, int) else axes)}


def _reduction(node: Node) -> Iterator[Relation]:
    (x,), (y,) = slots(node)
    reduced = _axes(node, ["axis"])
    kept = [axis for axis in range(len(x.shape)) if axis not in reduced]
    for position, axis in enumerate(kept):
        yield Tie(x, (axis,), y, (axis if node.attrs.get("keepdims") else position,))


def _planes(node: Node) -> Iterator[Relation]:
    """Each plane of an image by itself."""
    (x, *_), (y,) = slots(node)
    if node.attrs.get("layout", "NCHW") == "NCHW" and len(x.shape) == 4:
        yield from _same(x, y, (0, 1))


def _permute(node: Node) -> Iterator[Relation]:
    (x,), (y,) = slots(node)
    for axis, source in enumerate(node.attrs["axes"]):
        yield Tie(x, (source,), y, (axis,), moves=True)


def _reshape(node: Node) -> Iterator[Relation]:
    (x,), (y,) = slots(node)
    for left, right in reshape_groups(x.shape, y.shape):
        count = product(x.shape[axis] for axis in left)
        is_known = all(isinstance(d, int) for d in (*(x.shape[i] for i in left), *(y.shape[i] for i in right)))
        if is_known and isinstance(count, int) and count <= LARGEST_GROUP:
            yield Tie(x, tuple(left), y, tuple(right), moves=True)


def _broadcast_to(node: Node) -> Iterator[Relation]:
    (x,), (y,) = slots(node)
    skipped = len(y.shape) - len(x.shape)
    for axis, extent in enumerate(y.shape):
        if axis >= skipped and equal(x.shape[axis - skipped], extent):
            yield Tie(x, (axis - skipped,), y, (axis,), moves=True)
        elif isinstance(extent, int):
            yield Spare(y, axis, np.ones(extent, bool))


def _concat(node: Node) -> Iterator[Relation]:
    inputs, (y,) = slots(node)
    (along,) = _axes(node, ["axis"]) if node.attrs["axis"] is not None else (0,)
    extents = [x.shape[along] for x in inputs]
    start = 0
    for x, extent in zip(inputs, extents, strict=True):
        yield from _same(x, y, [axis for axis in range(len(y.shape)) if axis != along], moves=len(inputs) == 1)
        if all(isinstance(d, int) for d in extents):
            assert isinstance(extent, int)
            yield Tie(y, (along,), x, (along,), slice(start, start + extent), moves=True)
            start += extent


def _split(node: Node) -> Iterator[Relation]:
    (x,), outputs = slots(node)
    (along,) = _axes(node, ["axis"])
    start = 0
    for y in outputs:
        yield from _same(x, y, [axis for axis in range(len(y.shape)) if axis != along], moves=True)
        extent = y.shape[along]
        if isinstance(extent, int) and isinstance(x.shape[along], int):
            yield Tie(x, (along,), y, (along,), slice(start, start + extent), moves=True)
            start += extent


def _strided_slice(node: Node) -> Iterator[Relation]:
    (x, *_), (y,) = slots(node)
    ranges = slice_ranges(node)
    for axis in range(len(x.shape)):
        if axis not in _axes(node, ["axes"]):
            yield Tie(x, (axis,), y, (axis,), moves=True)
        elif axis in ranges:
            yield Tie(x, (axis,), y, (axis,), ranges[axis], moves=True)


def slice_ranges(node: Node) -> dict[int, slice]:
    """The runs of channels that a slice takes, by axis, where they are known."""
    x, attrs, ranges = node.inputs[0], node.attrs, {}
    strides = attrs.get("strides") or (1,) * len(attrs["axes"])
    for axis, begin, end, stride in zip(attrs["axes"], attrs["begin"], attrs["end"], strides, strict=True):
        extent = x.shape[axis]
        if all(isinstance(d, int) for d in (extent, begin, end)) and stride == 1:
            ranges[axis % x.rank] = slice(*slice(begin, end).indices(extent))  # type: ignore[arg-type]
    return ranges


def _take(node: Node) -> Iterator[Relation]:
    (data, indices), (y,) = slots(node)
    if node.attrs.get("axis") is None:
        return
    axis = node.attrs["axis"] % len(data.shape)
    for source in range(len(data.shape)):
        if source != axis:
            target = source if source < axis else source + len(indices.shape) - 1
            yield Tie(data, (source,), y, (target,), moves=True)


def _pad(node: Node) -> Iterator[Relation]:
    (x, *_), (y,) = slots(node)
    width = node.attrs["pad_width"]
    yield from _same(x, y, [axis for axis in range(len(x.shape)) if not any(width[2 * axis : 2 * axis + 2])])


_along_axis = _all_but("axis", "axes")

_RULES: dict[str, Callable[[Node], Iterator[Relation]]] = {
    **dict.fromkeys(REDUCTIONS, _reduction),
    "broadcast_to": _broadcast_to,
    "concat": _concat,
    "conv2d": _conv2d,
    "cumsum": _along_axis,
    "image.resize2d": _planes,
    "linear": _linear,
    "matmul": _matmul,
    "nn.adaptive_avg_pool2d": _planes,
    "nn.avg_pool2d": _planes,
    "nn.layer_norm": _along_axis,
    "nn.log_softmax": _along_axis,
    "nn.max_pool2d": _planes,
    "nn.pad": _pad,
    "nn.softmax": _along_axis,
    "permute_dims": _permute,
    "reshape": _reshape,
    "split": _split,
    "strided_slice": _strided_slice,
    "take": _take,
}
