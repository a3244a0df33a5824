"""Run a batch a few items at a time, where all of a graph treats its items independently.

The activations of many items stream through the outer caches at every step, those of a few stay in L2. So the graph is
compiled for a few items, and the runtime runs it for one slice of the inputs and outputs after the other, with the same
memory in between. The batch is followed as an axis of each value through what operators say of their axes
(:mod:`sparsec.graph.channel_relations`, and the rules here). A reshape may merge it with the axes behind it: then items
are equal parts of the merged axis, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sparsec.graph.channel_relations import Slot, Tie, relate, slots
from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.work import count_entries
from sparsec.targets import Target

LEAST = 32
"""The largest node of a slice reads and writes at least one part in so many of L2."""


def split_batch(graph: Graph, target: Target) -> None:
    """Rewrite a graph over a constant batch for a few of its items, and set `Graph.slices`, where that pays."""
    whole = _batch_size(graph)
    batch = _Batch(whole)
    if whole > 1 and batch.follow(graph):
        batch.cut(graph, whole // _items(graph, batch, target))


def _batch_size(graph: Graph) -> int:
    """The extent that all inputs have in front; 1 where there is none."""
    leading = {value.shape[0] if value.rank else 1 for value in graph.inputs}
    if graph.symbols or len(leading) != 1:
        return 1
    (extent,) = leading
    return extent if isinstance(extent, int) else 1


@dataclass
class _Batch:
    """Where the items of a batch are: the axis of each value that has them, and constants with a part for each item."""

    whole: int
    axes: dict[Value, int] = field(default_factory=dict)
    parts: dict[tuple[Node, int], int] = field(default_factory=dict)

    def follow(self, graph: Graph) -> bool:
        """Find the axes; false where a node mixes items, or an output does not have them in front."""
        self.axes = dict.fromkeys(graph.inputs, 0)
        return all(map(self._pass, graph.nodes)) and all(self.axes.get(value) == 0 for value in graph.outputs)

    def _pass(self, node: Node) -> bool:
        batched = [value for value in node.inputs if value in self.axes]
        if not batched:
            return True
        if len(batched) > len(set(batched)) and node.op not in ELEMENTWISE:
            return False  # ties do not tell one use of a value from another
        ties = list(self._ties(node))
        inputs, outputs = slots(node)
        for y, value in zip(outputs, node.outputs, strict=True):
            places = {_tied(ties, Slot(x, x.shape), self.axes[x], y) for x in batched}
            axis = places.pop()
            if axis is None or places:
                return False
            self.axes[value] = axis
            shared = [(i, x) for i, x in enumerate(inputs) if node.inputs[i] not in self.axes]
            for i, x in shared:
                part = _tied(ties, y, axis, x)
                if part is not None and x.shape[part] == y.shape[axis]:
                    if not _same_for_all(node.inputs[i], part, self.whole):
                        return False
                    self.parts[node, i] = part
        return True

    def _ties(self, node: Node) -> Iterator[Tie]:
        if node.op == "reshape":
            return self._reshape(node)
        rule = _RULES.get(node.op)
        return rule(node) if rule else (tie for tie in relate(node) if isinstance(tie, Tie))

    def _reshape(self, node: Node) -> Iterator[Tie]:
        """The axis with as many elements before it as the batch had, if it still holds whole items."""
        (x,), (y,) = slots(node)
        axis = self.axes[node.inputs[0]]
        before = math.prod(x.shape[:axis])  # type: ignore[arg-type]
        for target, extent in enumerate(y.shape):
            if math.prod(y.shape[:target]) == before and extent % self.whole == 0:  # type: ignore
                yield Tie(x, (axis,), y, (target,))

    def cut(self, graph: Graph, slices: int) -> None:
        """Keep one slice of every value."""
        for (node, index), axis in self.parts.items():
            inputs = list(node.inputs)
            data = inputs[index].data
            assert data is not None
            part = np.split(data, slices, axis)[0]
            inputs[index] = graph.constant(part, inputs[index].name)
            graph.set_inputs(node, inputs)
        for value, axis in self.axes.items():
            value.shape = (*value.shape[:axis], value.shape[axis] // slices, *value.shape[axis + 1 :])
        for node in graph.nodes:
            if node.op in ("broadcast_to", "reshape"):
                node.attrs["shape"] = node.output.shape
        graph.slices = slices


def _tied(ties: Iterable[Tie], a: Slot, axis: int, b: Slot) -> int | None:
    """The axis of a tensor that stands for an axis of another as a whole."""
    for tie in ties:
        for x, x_axes, y, y_axes in ((tie.a, tie.a_axes, tie.b, tie.b_axes), (tie.b, tie.b_axes, tie.a, tie.a_axes)):
            if (x, x_axes, y, len(y_axes), tie.at) == (a, (axis,), b, 1, slice(None)):
                return y_axes[0]
    return None


def _same_for_all(value: Value, axis: int, count: int) -> bool:
    """Whether equal parts along an axis of a constant hold the same; other values may differ."""
    if value.data is None:
        return False
    first, *others = np.split(value.data, count, axis)
    return all(np.array_equal(first, other) for other in others)


# How many


def _items(graph: Graph, batch: _Batch, target: Target) -> int:
    """The most items that divide the batch, of which what one node reads and writes fits into L2; at least one.

    Each slice reads all weights again and calls all steps again: where weights are more than its activations, or these
    are next to nothing, as for a prime number of short rows, the batch stays whole.
    """
    sizes = [_traffic(node, batch) for node in graph.nodes]
    fitting = [
        count
        for count in range(1, batch.whole + 1)
        if batch.whole % count == 0 and all(fixed + count * item <= target.l2_bytes for fixed, item in sizes)
    ]
    count = max(fitting, default=1)
    slices = [fixed + count * item for fixed, item in sizes]
    pays = max(slices, default=0) * LEAST >= target.l2_bytes and sum(slices) >= sum(map(_weight_bytes, graph.nodes))
    return count if pays else batch.whole


def _traffic(node: Node, batch: _Batch) -> tuple[int, int]:
    """The bytes of activations that a node reads and writes: those that all items share, and those of each item."""
    shared = own = 0
    for value in (*dict.fromkeys(node.inputs), *node.outputs):
        nbytes = math.prod(value.shape) * np.dtype(value.dtype).itemsize  # type: ignore[arg-type]
        if value in batch.axes:
            own += nbytes // batch.whole
        elif not value.is_constant:
            shared += nbytes
    return shared, own


def _weight_bytes(node: Node) -> int:
    """The bytes of what is kept of the weight of a layer."""
    weight = node.inputs[1] if node.op in ("conv2d", "linear") else None
    return 0 if weight is None or weight.data is None else count_entries(weight) * weight.data.itemsize


# Operators of whose channels nothing is said, or too little


def _all_but(*names: str) -> Callable[[Node], Iterator[Tie]]:
    """Every axis of all inputs of the rank of the output, but those that attributes name."""

    def rule(node: Node) -> Iterator[Tie]:
        inputs, outputs = slots(node)
        rank = node.inputs[0].rank
        attrs = [node.attrs[name] for name in names]
        if None in attrs:  # all axes
            return
        fixed = {axis % rank for attr in attrs for axis in np.atleast_1d(attr).tolist()}
        for y in outputs:
            for x in inputs:
                if len(x.shape) == len(y.shape) == rank:
                    yield from (Tie(x, (axis,), y, (axis,)) for axis in range(rank) if axis not in fixed)

    return rule


def _in_front(node: Node) -> Iterator[Tie]:
    """Images one by one."""
    (x, *_), outputs = slots(node)
    layout = node.attrs.get("data_layout") or node.attrs.get("layout") or ""
    if layout.startswith("N"):
        yield from (Tie(x, (0,), y, (0,)) for y in outputs)


def _quantization(node: Node) -> Iterator[Tie]:
    """Each element by itself, with parameters for all or along one axis."""
    (x, *parameters), (y,) = slots(node)
    along = any(math.prod(p.shape) > 1 for p in parameters)  # type: ignore[arg-type]
    fixed = node.attrs["axis"] % len(x.shape) if along else None
    yield from (Tie(x, (axis,), y, (axis,)) for axis in range(len(x.shape)) if axis != fixed)


def _take(node: Node) -> Iterator[Tie]:
    """Entries of a table for each index."""
    (data, indices), (y,) = slots(node)
    axis = node.attrs.get("axis")
    start = 0 if axis is None else axis % len(data.shape)
    yield from (Tie(indices, (i,), y, (start + i,)) for i in range(len(indices.shape)))
    yield from (tie for tie in relate(node) if isinstance(tie, Tie))


_RULES: dict[str, Callable[[Node], Iterator[Tie]]] = {
    **dict.fromkeys(("dequantize", "quantize"), _quantization),
    **dict.fromkeys(("cumprod", "flip", "gather_elements", "repeat"), _all_but("axis")),
    "flip_sign": _all_but(),
    "nn.group_norm": _all_but("axes", "channel_axis"),
    "nn.instance_norm": _all_but("axes", "channel_axis"),
    "nn.rms_norm": _all_but("axes"),
    **{
        f"nn.{name.format(dimensions)}": _in_front
        for name in ("adaptive_avg_pool{}d", "avg_pool{}d", "conv{}d", "conv{}d_transpose", "max_pool{}d")
        for dimensions in (1, 2, 3)
    },
    "take": _take,
}
