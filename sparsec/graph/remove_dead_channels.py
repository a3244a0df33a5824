"""Remove the channels that zeros in the weights have left without effect.

A channel is dead when no weight reads it, and with it everything that only it feeds; a channel that is known to hold a
constant is one that no weight needs to read, once its share is in the biases. What may go is the greatest set that all
:mod:`relations <sparsec.graph.channel_relations>` of the graph allow: begin with everything but what is fixed, and let
every relation take back what it must, until none does. Weights that were pruned in a structure, such as 2:4 or blocks,
lose channels only by whole periods of it.

The result is exact up to the rounding of sums that are shorter, where activations are finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsec.graph.channel_relations import (
    Relation,
    Slot,
    Spare,
    Tie,
    channel_axis,
    group_views,
    grouped_weight,
    relate,
    slice_ranges,
    slots,
)
from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.known_channels import Known, find_known, seen_everywhere
from sparsec.graph.layer_names import channel_counts
from sparsec.graph.shape import broadcast, same_shape
from sparsec.graph.structure_period import find_periods

LAYERS = ("conv2d", "linear")


def remove_dead_channels(graph: Graph) -> None:
    """Fold constant channels into the biases behind them, then remove channels that nothing needs, until none is left.

    Runs after :func:`sparsec.graph.fold_batch_norm.fold_batch_norm`; inputs and outputs of the graph keep their shapes.
    `Graph.removed` tells what each layer that is left has lost, where all layers of its name are.
    """
    before = channel_counts(graph)
    changed = True
    while changed:
        known = find_known(graph)
        changed = _replace_known_operands(graph, known)
        for node in list(graph.nodes):
            if node.op in LAYERS and node.inputs[1].is_constant:
                changed = _fold_known_inputs(graph, node, known) or changed
        graph.remove_dead()
        changed = _remove(graph, known) or changed
    for name, left in channel_counts(graph).items():
        if len(left) == len(counts := before.get(name, ())):
            graph.removed[name] = [(n - rows, k - depth) for (n, k), (rows, depth) in zip(counts, left, strict=True)]


# Known channels


def _replace_known_operands(graph: Graph, known: Known) -> bool:
    """Let elementwise nodes read a constant in place of an operand of known channels, or skip a zero that is added."""
    changed = False
    for node in list(graph.nodes):
        if node.op not in ELEMENTWISE or len(node.inputs) < 2:
            continue
        for value in node.inputs:
            others = [v for v in node.inputs if v is not value]
            constant = None if value.is_constant else _as_constant(graph, value, known)
            fits = others and same_shape(broadcast(*(v.shape for v in others)), node.output.shape)
            if constant is None or not fits or all(v.is_constant for v in others):
                continue
            (other, *_) = others
            if node.op == "add" and constant.data is not None and not constant.data.any():
                graph.replace(node.output, other)
            else:
                graph.set_inputs(node, [constant if v is value else v for v in node.inputs])
            changed = True
            break
    graph.remove_dead()
    return changed


def _as_constant(graph: Graph, value: Value, known: Known) -> Value | None:
    """The value as a constant that broadcasts to it, if all channels along some axis are known."""
    for axis, channels in known.facts.get(value, {}).items():
        if not np.isnan(channels).any():
            shape = (-1,) + (1,) * (value.rank - 1 - axis)
            return graph.constant(channels.astype(value.dtype).reshape(shape), value.name)
    return None


def _fold_known_inputs(graph: Graph, layer: Node, known: Known) -> bool:
    """W x + W' c = W x + b, with zeros in the place of W'; a constant beside other padding stays."""
    x, weight = layer.inputs
    axis = channel_axis(layer)
    channels = known.channels(x, axis)
    if channels is None or weight.data is None:
        return False
    groups = grouped_weight(layer, weight.data)
    channels = channels.reshape(len(groups), 1, -1)
    foldable = seen_everywhere(layer, channels)
    if not (foldable & groups.any(axis=3)).any():
        return False
    shift = (groups.sum(axis=3, dtype="float64") * np.where(foldable, channels, 0)).sum(axis=2).reshape(-1)
    rest = np.where(foldable[..., None], np.zeros((), weight.dtype), groups).reshape(weight.data.shape)
    inputs = [x, graph.constant(rest, weight.name)]
    y = layer.output
    result = graph.add(layer.op, inputs, y.shape, layer.attrs, dtype=y.dtype, before=layer, name=y.name)
    if shift.any():
        bias = graph.constant(shift.astype(y.dtype).reshape(-1, *[1] * (y.rank - 1 - axis)), "channels")
        result = graph.add("add", [result, bias], y.shape, before=layer)
    graph.replace(y, result)
    return True


# Removal


@dataclass
class _Marks:
    """Which channels may go: for every slot and axis a boolean vector, all true at first."""

    marks: dict[tuple[Slot, int], np.ndarray] = field(default_factory=dict)

    def along(self, slot: Slot, axis: int) -> np.ndarray:
        extent = slot.shape[axis]
        if (slot, axis) not in self.marks:
            known = isinstance(extent, int)
            self.marks[slot, axis] = np.full(extent if known else 1, known and extent != 1)  # type: ignore[arg-type]
        return self.marks[slot, axis]

    def keep(self, slot: Slot, axis: int, kept: np.ndarray | bool) -> bool:
        """Take some channels back; whether any of them was marked."""
        mark = self.along(slot, axis)
        if not (mark & kept).any():
            return False
        mark &= np.logical_not(kept)
        return True

    def elements(self, slot: Slot, axes: Sequence[int]) -> np.ndarray:
        """The elements over some axes that go, which are those in a channel that goes, flattened."""
        grid = np.zeros((), bool)
        for axis in axes:
            grid = grid[..., None] | self.along(slot, axis)
        return grid.reshape(-1)

    def keep_elements(self, slot: Slot, axes: Sequence[int], kept: np.ndarray) -> bool:
        grid = kept.reshape([len(self.along(slot, axis)) for axis in axes])
        changed = False
        for position, axis in enumerate(axes):
            others = tuple(i for i in range(len(axes)) if i != position)
            changed = self.keep(slot, axis, np.asarray(grid.any(axis=others))) or changed
        return changed

    def apply(self, tie: Tie) -> bool:
        """Keep on either side of a tie what the other side keeps."""
        a, b = self.elements(tie.a, tie.a_axes), self.elements(tie.b, tie.b_axes)
        if np.array_equal(a[tie.at], b):
            return False
        kept = np.zeros(len(a), bool)
        kept[tie.at] = ~b
        changed = self.keep_elements(tie.a, tie.a_axes, kept)
        return self.keep_elements(tie.b, tie.b_axes, ~self.elements(tie.a, tie.a_axes)[tie.at]) or changed


def _remove(graph: Graph, known: Known) -> bool:
    """Remove what may go; whether that was anything."""
    marks = _solve(graph, known)
    if not any(mark.any() for mark in marks.marks.values()):
        return False
    shapes: dict[Value, list] = {}
    for (slot, axis), mark in marks.marks.items():
        if isinstance(slot.of, Value) and mark.any():
            shapes.setdefault(slot.of, list(slot.of.shape))[axis] = int((~mark).sum())
    sliced: dict[tuple, Value] = {}
    for node in graph.nodes:
        _resize(node, marks)
        graph.set_inputs(
            node, [_without(graph, v, s, marks, sliced) for v, s in zip(node.inputs, slots(node)[0], strict=True)]
        )
    for value, shape in shapes.items():
        value.shape = tuple(shape)
    for node in graph.nodes:
        if "shape" in node.attrs and node.outputs[0] in shapes:
            node.attrs["shape"] = node.output.shape
    return True


def _solve(graph: Graph, known: Known) -> _Marks:
    """The greatest marks that all relations allow."""
    marks, ties = _Marks(), []
    for value in (*graph.inputs, *graph.outputs):
        for axis in range(value.rank):
            marks.keep(Slot(value, value.shape), axis, True)
    for node in graph.nodes:
        relations = relate(node) + _contracted_zeros(node, known)
        _fix_others(node, relations, marks)
        ties += [relation for relation in relations if isinstance(relation, Tie)]
    layers = [node for node in graph.nodes if node.op in LAYERS and node.inputs[1].is_constant]
    periods: dict[Node, tuple[int, int]] = {}
    _settle(marks, ties)
    while any([_keep_structure(layer, marks, periods) for layer in layers]):
        _settle(marks, ties)
    while emptied := [key for key, mark in marks.marks.items() if mark.size and mark.all()]:
        for slot, axis in emptied:  # a tensor keeps one channel at least
            marks.keep(slot, axis, np.arange(len(marks.marks[slot, axis])) == 0)
        _settle(marks, ties)
    return marks


def _keep_structure(layer: Node, marks: _Marks, periods: dict[Node, tuple[int, int]]) -> bool:
    """Let channels of a weight go by whole periods of its structure, so that those behind them keep their places."""
    data, weight = layer.inputs[1].data, slots(layer)[0][1]
    assert data is not None
    if not any(marks.along(weight, axis).any() for axis in (0, 1)):
        return False
    if layer not in periods:
        periods[layer] = find_periods(data)
    changed = False
    for axis, period in enumerate(periods[layer]):
        mark = marks.along(weight, axis)
        groups = np.pad(mark, (0, -len(mark) % period), constant_values=True).reshape(-1, period)
        changed = marks.keep(weight, axis, np.repeat(~groups.all(axis=1), period)[: len(mark)]) or changed
    return changed


def _settle(marks: _Marks, ties: Sequence[Tie]) -> None:
    changed = True
    while changed:
        changed = False
        for tie in (*ties, *reversed(ties)):
            changed = marks.apply(tie) or changed


def _fix_others(node: Node, relations: Sequence[Relation], marks: _Marks) -> None:
    """Keep what a node cannot spare, and the axes that it says nothing about."""
    named = set()
    for relation in relations:
        if isinstance(relation, Spare):
            named.add((relation.slot, relation.axis))
            marks.keep(relation.slot, relation.axis, ~relation.channels)
        else:
            named |= {(relation.a, axis) for axis in relation.a_axes} | {(relation.b, axis) for axis in relation.b_axes}
    inputs, outputs = slots(node)
    for slot in (*inputs, *outputs, *_views(relations)):
        for axis in range(len(slot.shape)):
            if (slot, axis) not in named:
                marks.keep(slot, axis, True)


def _contracted_zeros(node: Node, known: Known) -> list[Relation]:
    """The terms that a product of activations can do without: those that are zero in either operand."""
    if node.op != "matmul":
        return []
    (a, _), _ = slots(node)
    depth = a.shape[-1]
    if not isinstance(depth, int):
        return []
    zero = np.zeros(depth, bool)
    for value, axis in zip(node.inputs, (-1, -2), strict=True):
        channels = known.channels(value, value.rank + axis)
        zero |= False if channels is None else channels == 0
    return [Spare(a, len(a.shape) - 1, zero)]


def _views(relations: Sequence[Relation]) -> list[Slot]:
    ties = [relation for relation in relations if isinstance(relation, Tie)]
    found = dict.fromkeys(slot for tie in ties for slot in (tie.a, tie.b))
    return [slot for slot in found if isinstance(slot.of, tuple) and isinstance(slot.of[1], str)]


def _resize(node: Node, marks: _Marks) -> None:
    """Adapt the attributes that count channels."""
    inputs, outputs = slots(node)
    if node.op == "conv2d":
        node.attrs["groups"] -= int(marks.along(group_views(node)[1], 0).sum())
    elif node.op == "split":
        axis = node.attrs["axis"] % len(inputs[0].shape)
        if isinstance(inputs[0].shape[axis], int):
            kept = [int((~marks.along(y, axis)).sum()) for y in outputs]
            node.attrs["indices_or_sections"] = tuple(int(n) for n in np.cumsum(kept)[:-1])
    elif node.op == "strided_slice":
        begin, end = list(node.attrs["begin"]), list(node.attrs["end"])
        ranges = slice_ranges(node)
        for position, axis in enumerate(node.attrs["axes"]):
            if axis % len(inputs[0].shape) in ranges:
                run = ranges[axis % len(inputs[0].shape)]
                mark = marks.along(inputs[0], axis % len(inputs[0].shape))
                begin[position] = int((~mark[: run.start]).sum())
                end[position] = begin[position] + int((~mark[run]).sum())
        node.attrs |= {"begin": tuple(begin), "end": tuple(end)}


def _without(graph: Graph, value: Value, slot: Slot, marks: _Marks, sliced: dict[tuple, Value]) -> Value:
    """A constant without the channels that go; readers that need the same part share it."""
    if value.data is None:
        return value
    kept = {axis: ~marks.along(slot, axis) for axis in range(value.rank) if marks.along(slot, axis).any()}
    if not kept:
        return value
    key = (value, *((axis, mask.tobytes()) for axis, mask in kept.items()))
    if key not in sliced:
        data = value.data
        for axis, mask in kept.items():
            data = np.compress(mask, data, axis)
        sliced[key] = graph.constant(data, value.name)
    return sliced[key]
