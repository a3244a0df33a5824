"""Channels that hold one number, whatever the input: what is left of zeros in weights behind biases and activations.

Facts are kept per tensor and axis, as a vector with one number per channel and NaN where a channel is not known. They
run forward through the graph: a row of zeros in a weight makes a channel of its layer zero, a bias makes it that bias,
an activation makes it the activation of that bias, a channel that only such channels reach is known again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from sparsec.graph.channel_relations import Tie, channel_axis, grouped_weight, relate
from sparsec.graph.evaluate import ELEMENTWISE, OPERATORS
from sparsec.graph.graph import Graph, Node, Value
from sparsec.ir.types import BYTES, is_float

Facts = dict[int, np.ndarray]
"""Axis to the number in each of its channels, NaN where that is not known; axes without a known one are left out."""


def find_known(graph: Graph) -> Known:
    """Find the channels of every value that are constant."""
    known = Known()
    for node in graph.nodes:
        for value in node.outputs:
            facts = _facts(node, value, known) if _is_tracked(value) else {}
            known.facts[value] = {axis: c for axis, c in facts.items() if not np.isnan(c).all()}
    return known


class Known:
    """What is known of each value of a graph, constants included."""

    def __init__(self) -> None:
        self.facts: dict[Value, Facts] = {}
        self._constant = cache(_uniform)

    def channels(self, value: Value, axis: int) -> np.ndarray | None:
        """The number in each channel along an axis; None where none is known."""
        if value.is_constant:
            return self._constant(value, axis) if _is_tracked(value) else None
        return self.facts.get(value, {}).get(axis)


def seen_everywhere(layer: Node, channels: np.ndarray) -> np.ndarray:
    """Which channels a linear layer or convolution reads as one number: those whose padding is the same, if any is."""
    if any(layer.attrs.get("padding", ())):
        return channels == layer.attrs.get("blank", 0)
    return ~np.isnan(channels)


def _is_tracked(value: Value) -> bool:
    """Whether the numbers in the channels of a value are followed: those of activations, quantised ones too."""
    return is_float(value.dtype) or value.dtype in (*BYTES, "int32")


def _uniform(constant: Value, axis: int) -> np.ndarray | None:
    data = constant.data
    assert data is not None
    if not data.size:
        return None
    extent = data.shape[axis] if data.ndim else 1
    planes = data.reshape(math.prod(data.shape[:axis]), extent, -1)
    first = planes[0, :, 0]
    likely = np.flatnonzero((first == planes[-1, :, -1]) & np.isfinite(first))  # spares large tables the rest
    even = likely[(planes[:, likely] == first[likely, None]).all(axis=(0, 2))]
    numbers = np.full(extent, np.nan)
    numbers[even] = first[even]
    return numbers if len(even) else None


def _facts(node: Node, y: Value, known: Known) -> Facts:
    if node.op in ELEMENTWISE:
        return _elementwise(node, known)
    if node.op in _RULES:
        return _RULES[node.op](node, known)
    facts: Facts = {}
    for tie in relate(node):
        if isinstance(tie, Tie) and tie.moves:
            for axis, channels in _moved(tie, node, y, known).items():
                facts[axis] = np.fmin(facts[axis], channels) if axis in facts else channels
    return facts


# Elementwise


def _elementwise(node: Node, known: Known) -> Facts:
    if not all(map(_is_tracked, node.inputs)):
        return {}
    facts: Facts = {}
    for axis, extent in enumerate(node.output.shape):
        if not isinstance(extent, int):
            continue
        args = [_along(v, axis - (node.output.rank - v.rank), extent, known) for v in node.inputs]
        if node.op != "multiply" and any(arg is None for arg in args):
            continue
        vectors = [np.full(extent, np.nan) if arg is None else arg for arg in args]
        facts[axis] = _apply(node, vectors)
    return facts


def _along(value: Value, axis: int, extent: int, known: Known) -> np.ndarray | None:
    """The numbers of an operand that broadcasts against an axis of this extent."""
    if axis < 0:
        if value.data is None:
            return None
        axis = 0  # the operand meets every channel as a whole, so that it must hold one number
        flat = known.channels(value, 0)
        if flat is None or np.isnan(flat).any() or (flat != flat[0]).any():
            return None
        return np.full(extent, flat[0])
    channels = known.channels(value, axis)
    return None if channels is None else np.broadcast_to(channels, (extent,))


def _apply(node: Node, args: Sequence[np.ndarray]) -> np.ndarray:
    unknown = np.isnan(args).any(axis=0)
    with np.errstate(all="ignore"):
        typed = [arg.astype(v.dtype) for arg, v in zip(args, node.inputs, strict=True)]
        result = np.asarray(OPERATORS[node.op](*typed, **node.attrs)).astype(node.output.dtype).astype("float64")
    result[unknown | ~np.isfinite(result)] = np.nan
    if node.op == "multiply":
        result[(np.asarray(args) == 0).any(axis=0)] = 0.0
    return result


# Layers


def _layer(node: Node, known: Known) -> Facts:
    """Outputs whose nonzero weights all meet known channels; a constant is none beside other padding."""
    x, weight = node.inputs
    if weight.data is None:
        return {}
    groups = grouped_weight(node, weight.data)
    channels = known.channels(x, channel_axis(node))
    if channels is None:
        result = np.where(groups.any(axis=(2, 3)), np.nan, 0.0)
    else:
        channels = channels.reshape(len(groups), 1, -1)
        usable = seen_everywhere(node, channels)
        mixed = (np.where(usable[..., None], 0, groups) != 0).any(axis=(2, 3))
        sums = groups.sum(axis=3, dtype="float64") * np.where(usable, channels, 0)
        result = np.where(mixed, np.nan, sums.sum(axis=2))
    return {channel_axis(node): result.reshape(-1)}


def _matmul(node: Node, known: Known) -> Facts:
    """Rows, columns and matrices of zeros."""
    facts: Facts = {}
    rank = node.output.rank
    for value, contracted in zip(node.inputs, (-1, -2), strict=True):
        for axis in range(value.rank):
            channels = known.channels(value, axis)
            target = axis + rank - value.rank
            extent = node.output.shape[target]
            if axis == value.rank + contracted or channels is None or extent != len(channels):
                continue
            zeros = np.where(channels == 0, 0.0, np.nan)
            facts[target] = np.fmin(zeros, facts[target]) if target in facts else zeros
    return facts


# What passes channels on


def _moved(tie: Tie, node: Node, y: Value, known: Known) -> Facts:
    """Facts that go with the elements, from the input of a tie to its output."""
    forward = tie.b.of is y
    if not forward and tie.a.of is not y:
        return {}
    (source, axes), (_, targets) = (
        ((tie.a, tie.a_axes), (tie.b, tie.b_axes)) if forward else ((tie.b, tie.b_axes), (tie.a, tie.a_axes))
    )
    x = source.of if isinstance(source.of, Value) else node.inputs[int(source.of[1])]
    shape = [x.shape[axis] for axis in axes]
    numbers = [known.channels(x, axis) for axis in axes]
    if all(c is None for c in numbers) or not math.prod(shape) or 0 in y.shape:  # type: ignore[arg-type]
        return {}
    elements = np.full(shape, np.nan)
    for position, channels in enumerate(numbers):
        if channels is not None:
            along = channels.reshape([-1 if i == position else 1 for i in range(len(shape))])
            elements = np.where(np.isnan(along), elements, along)
    flat = elements.reshape(-1)
    if forward:
        flat = flat[tie.at]
    else:
        (target,) = targets
        whole = np.full(y.shape[target], np.nan)
        whole[tie.at] = flat
        flat = whole
    return _project(flat, [y.shape[axis] for axis in targets], targets)


def _project(flat: np.ndarray, shape: Sequence[object], axes: Sequence[int]) -> Facts:
    """The channels along each axis whose elements are all the same number."""
    grid, facts = flat.reshape(shape), {}  # type: ignore[arg-type]
    for position, axis in enumerate(axes):
        rows = np.moveaxis(grid, position, 0).reshape(grid.shape[position], -1)
        facts[axis] = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)
    return facts


def _kept(zeros_only: Callable[[Node], bool]) -> Callable[[Node, Known], Facts]:
    """Planes and rows of one number stay what they are; where the operator mixes in zeros, if that number is zero."""

    def rule(node: Node, known: Known) -> Facts:
        facts: Facts = {}
        for tie in relate(node):
            if isinstance(tie, Tie) and tie.b.of is node.outputs[0]:
                (source,), (target,) = tie.a_axes, tie.b_axes
                channels = known.channels(node.inputs[0], source)
                if channels is not None:
                    facts[target] = np.where(channels == 0, channels, np.nan) if zeros_only(node) else channels
        return facts

    return rule


def _layer_norm(node: Node, known: Known) -> Facts:
    """Where the scale is zero, the shift is left."""
    x, gamma, beta = node.inputs
    axes = node.attrs["axes"]
    axes = (axes,) if isinstance(axes, int) else axes
    if gamma.data is None or beta.data is None or len(axes) != 1 or not node.attrs.get("scale", True):
        return {}
    shift = beta.data if node.attrs.get("center", True) else np.zeros_like(beta.data)
    return {axes[0] % x.rank: np.where(gamma.data == 0, shift.astype("float64"), np.nan)}


def _mixes_padding(node: Node) -> bool:
    return bool(node.attrs.get("count_include_pad")) and any(node.attrs["padding"])


def _pads_with_other(node: Node) -> bool:
    return node.attrs.get("pad_mode", "constant") == "constant"


_RULES: dict[str, Callable[[Node, Known], Facts]] = {
    "conv2d": _layer,
    "image.resize2d": _kept(lambda node: True),  # the weights of an interpolation need not add up to one exactly
    "linear": _layer,
    "matmul": _matmul,
    "max": _kept(lambda node: False),
    "mean": _kept(lambda node: False),
    "min": _kept(lambda node: False),
    "nn.adaptive_avg_pool2d": _kept(lambda node: False),
    "nn.avg_pool2d": _kept(_mixes_padding),
    "nn.layer_norm": _layer_norm,
    "nn.max_pool2d": _kept(lambda node: False),
    "nn.pad": _kept(_pads_with_other),
    "sum": _kept(lambda node: True),
}
