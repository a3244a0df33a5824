"""Group the nodes of a physical graph: every group becomes one kernel.

A *product group* is an anchor and the elementwise nodes behind it, as an epilogue that runs while the sum is in
registers. A *generic group* is a reduction with what feeds it and what follows it, or a chain of elementwise nodes.
Views (reshapes and the like, which move no element) are in no group: they are other shapes of the same bytes.

A group has one result that others read. So it needs no check for cycles: an operand that depended on the group could
only do so through that result, which depends on the operand.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sparsec.graph.clone_reads import clone_reads, reads_bytes
from sparsec.graph.epilogue import constant_of, express, stored
from sparsec.graph.evaluate import ELEMENTWISE, REDUCTIONS
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.image_borders import WRITES_BORDERS, keep_borders
from sparsec.graph.products import Anchor, find_anchor
from sparsec.graph.shape import Shape, broadcast_in, is_one, same_shape
from sparsec.graph.work import Work, find_work
from sparsec.ir.kernel import Buffer, Expr, Load, Op, walk_expressions
from sparsec.ir.printer import print_expression
from sparsec.ir.product import SUM, Product
from sparsec.schedules.rules.prices import has_few_columns
from sparsec.targets import Target

_RELABELS = {"expand_dims", "flatten", "nn.batch_flatten", "reshape", "squeeze"}
_NORMALIZE = {"nn.layer_norm", "nn.log_softmax", "nn.rms_norm", "nn.softmax"}
_MAPS = {*ELEMENTWISE, "broadcast_to"}
_SLOW = {"erf", "exp", "log", "pow", "sigmoid", "tanh"}
_GATHERS = {"strided_slice", "take"}
"""Operators that pick elements, which an elementwise reader may do as it goes."""
_ADDRESSED = {"pixels"}
"""Operators that tell where elements lie, which a reduction may do as it goes, too."""


@dataclass(frozen=True)
class Operand:
    """A value that an epilogue reads, as its kernel sees it; `shape` is that of `buffer` in graph dimensions."""

    value: Value
    buffer: Buffer
    shape: Shape


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes that one kernel computes, in topological order.

    Parameters
    ----------
    inputs : what the nodes read from outside, constants included, each once
    outputs : what others read, in storage order of the nodes' own shapes
    anchor : the product that the group is made around, if it is one
    epilogue, operands : what is done to each of the product's results
    scores : the group of another product, where the anchor's x is the softmax of its result; see `join_attention`
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    anchor: Anchor | None = None
    epilogue: Expr = SUM
    operands: tuple[Operand, ...] = ()
    scores: Group | None = None

    @property
    def label(self) -> str:
        """The layer, for profiles and reports: where the group's work is."""
        node = self.nodes[0] if self.anchor else self.nodes[-1]
        return node.where or node.op

    @property
    def product(self) -> Product:
        """The anchor's product with its epilogue; its weight has no layout yet."""
        assert self.anchor is not None
        buffers = tuple(operand.buffer for operand in self.operands)
        y = replace(self.anchor.product.y, dtype=self.outputs[0].dtype)
        return replace(self.anchor.product, y=y, operands=buffers, epilogue=stored(self.epilogue, y.dtype))

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """The useful work of each product among the nodes; the entries of large weights are counted once."""
        return tuple(filter(None, map(find_work, self.nodes)))

    def __str__(self) -> str:
        lines = [f"group {self.label!r}", *(f"  {node!r}" for node in self.nodes)]
        if self.scores:
            lines.append(f"  epilogue of the scores {print_expression(self.scores.epilogue)}")
        if self.anchor:
            lines.append(f"  epilogue {print_expression(self.epilogue)}")
        return "\n".join(lines)


def fuse(graph: Graph, target: Target) -> list[Group]:
    """Group all nodes that are no views, in an order in which they can run.

    What surrounds the pixels of a padded image is set by the convolution, its epilogue included, or the pooling that
    makes it; where an elementwise kernel does and may leave something else there, the graph gets a node that sets it.

    Parameters
    ----------
    target : whose vector units say of which products the columns are so few that other kernels call what is slow
    """
    clone_reads(graph)
    groups = _group(graph, target)
    while keep_borders(graph, _borders(groups)):
        groups = _group(graph, target)
    return groups


def _borders(groups: Sequence[Group]) -> dict[Value, int | None]:
    """What kernels write around the pixels of their results."""
    writers = [group for group in groups if group.nodes[0].op in WRITES_BORDERS]
    return {group.outputs[0]: group.nodes[0].attrs["borders"] for group in writers}


def _group(graph: Graph, target: Target) -> list[Group]:
    index = {node: position for position, node in enumerate(graph.nodes)}
    group_of: dict[Node, Group] = {}

    def add(group: Group) -> None:
        group_of.update(dict.fromkeys(group.nodes, group))

    # The later of two products takes the residual that adds them up, the earlier one being stored by then.
    for node in reversed(graph.nodes):
        anchor = None if node in group_of else find_anchor(node)
        if anchor is not None:
            add(_Epilogue(graph, anchor, index, group_of, target).grow())
    for node in reversed(graph.nodes):
        if node not in group_of and not is_view(node):
            add(_absorb(graph, node, index, group_of))
    last = {group: max(index[node] for node in group.nodes if not is_view(node)) for group in group_of.values()}
    return sorted(last, key=last.__getitem__)


def is_view(node: Node) -> bool:
    """Whether a node only gives the bytes of its first input another shape."""
    if node.op == "permute_dims":
        (x,) = node.inputs
        axes = node.attrs["axes"] or tuple(reversed(range(x.rank)))
        moving = [axis % x.rank for axis in axes if not is_one(x.shape[axis])]
        return moving == sorted(moving)
    if node.op == "broadcast_to":
        return same_shape(node.inputs[0].shape, node.output.shape)
    return node.op in _RELABELS


def root(value: Value) -> Value:
    """The value whose bytes a view shows: an input, a constant or the result of a kernel."""
    while value.producer is not None and is_view(value.producer):
        value = value.producer.inputs[0]
    return value


class _Epilogue:
    """Grows an anchor by the elementwise nodes that read it, as long as one result is left for others to read.

    A GELU that is spelled out reads its input twice, so nodes are added until all its branches have met again, and
    what was added after the last such point is given back. Where sums are less than a vector, though all results
    together are many, what is slow is left to other kernels.
    """

    def __init__(
        self, graph: Graph, anchor: Anchor, index: dict[Node, int], taken: dict[Node, Group], target: Target
    ) -> None:
        self.anchor = anchor
        self.leaves_slow = has_few_columns(anchor.product, target) and not anchor.has_image
        self.index = index
        self.taken = taken
        self.results = set(graph.outputs)
        assert anchor.y.producer is not None
        self.nodes = [anchor.y.producer]
        self.known: dict[Value, Expr] = {anchor.y: SUM}
        self.operands: dict[Value, tuple[Operand, Expr]] = {}

    def grow(self) -> Group:
        """The largest group."""
        best = self._group(self.anchor.y)
        frontier: list[tuple[int, Node]] = []
        seen = set(self.nodes)
        self._reach(self.anchor.y, frontier, seen)
        while frontier:
            _, node = heapq.heappop(frontier)
            if node in self.taken or not self._add(node):
                continue
            self._reach(node.output, frontier, seen)
            escaping = self._escaping()
            if len(escaping) == 1:
                best = self._group(escaping.pop())
        return best

    def _reach(self, value: Value, frontier: list[tuple[int, Node]], seen: set[Node]) -> None:
        for user in value.users:
            if user not in seen:
                seen.add(user)
                heapq.heappush(frontier, (self.index[user], user))

    def _add(self, node: Node) -> bool:
        """Add a node whose result can be expressed."""
        if is_view(node):
            self.known[node.output] = self.known[node.inputs[0]]
        else:
            (inner, *_) = (value for value in node.inputs if value in self.known)
            if len(node.outputs) != 1 or not same_shape(node.output.shape, inner.shape):
                return False
            result = self._express(node, inner.shape)
            if result is None or (self.leaves_slow and _calls_slow(result)):
                return False
            self.known[node.output] = result
        self.nodes.append(node)
        return True

    def _express(self, node: Node, frame: Shape) -> Expr | None:
        args = [self._argument(value, frame) for value in node.inputs]
        return None if None in args else express(node, [arg for arg in args if arg is not None])

    def _argument(self, value: Value, frame: Shape) -> Expr | None:
        if value in self.known:
            return self.known[value] if same_shape(value.shape, frame) else None
        constant = constant_of(value)
        if constant is not None:
            return constant
        if value.producer is not None and self._is_read(value.producer):
            return self._express(value.producer, frame)
        if value not in self.operands:
            shape = broadcast_in(value.shape, frame, self.anchor.y.shape)
            if shape is None:
                return None
            name = f"e{len(self.operands)}"
            read = self.anchor.operand(Value(value.name, shape, value.dtype), name)
            if read is None:
                return None
            buffer, load, extents = read
            self.operands[value] = Operand(value, buffer, extents), load
        return self.operands[value][1]

    def _is_read(self, node: Node) -> bool:
        """Whether a node turns stored integers into numbers for one reader, which can do that itself."""
        private = len(node.output.users) == 1 and node.output not in self.results
        return private and node not in self.taken and reads_bytes(node)

    def _escaping(self) -> set[Value]:
        """The results that are read outside the group, views of one counted as one."""
        inside = set(self.nodes)
        return {root(value) for value in self.known if value in self.results or not inside.issuperset(value.users)}

    def _group(self, output: Value) -> Group:
        nodes = self._members(output)
        read = {part.buffer for part in walk_expressions(self.known[output]) if isinstance(part, Load)}
        operands = tuple(operand for operand, _ in self.operands.values() if operand.buffer.name in read)
        inputs = [self.anchor.weight, self.anchor.x, *(operand.value for operand in operands)]
        return Group(nodes, tuple(dict.fromkeys(inputs)), (output,), self.anchor, self.known[output], operands)

    def _members(self, output: Value) -> tuple[Node, ...]:
        """The anchor, and the nodes behind it and behind stored integers that lead to a result."""
        found = {self.nodes[0]}
        waiting = [] if output.producer is None else [output.producer]
        while waiting:
            node = waiting.pop()
            if node not in found and (node in self.nodes or self._is_read(node)):
                found.add(node)
                waiting += _producers(node)
        found.remove(self.nodes[0])
        return (self.nodes[0], *sorted(found, key=self.index.__getitem__))


def _calls_slow(result: Expr) -> bool:
    """Whether an expression calls what takes tens of instructions, for one number as for a vector of them."""
    return any(isinstance(part, Op) and part.name in _SLOW for part in walk_expressions(result))


def _absorb(graph: Graph, sink: Node, index: dict[Node, int], taken: dict[Node, Group]) -> Group:
    """Group a node with the producers that nothing else reads, the latest first."""
    members = [sink]
    frontier = [(-index[p], p) for p in _producers(sink)]
    heapq.heapify(frontier)
    seen = {p for _, p in frontier}
    results = set(graph.outputs)
    while frontier:
        _, node = heapq.heappop(frontier)
        inside = set(members)
        private = all(value not in results and inside.issuperset(value.users) for value in node.outputs)
        if node in taken or is_view(node) or not private or not _fits(node, members):
            continue
        members.append(node)
        for producer in _producers(node):
            if producer not in seen:
                seen.add(producer)
                heapq.heappush(frontier, (-index[producer], producer))
    members.sort(key=index.__getitem__)
    made = {value for node in members for value in node.outputs}
    inputs = dict.fromkeys(value for node in members for value in node.inputs if value not in made)
    return Group(tuple(members), tuple(inputs), tuple(sink.outputs))


def _producers(node: Node) -> list[Node]:
    return list(dict.fromkeys(value.producer for value in node.inputs if value.producer is not None))


def _fits(node: Node, members: Sequence[Node]) -> bool:
    """Whether a producer can be computed inside a group: all its readers are among the members."""
    readers = [member for member in members if any(value in member.inputs for value in node.outputs)]
    if not all(member.op in _MAPS or _is_reduction(member) for member in readers):
        return False
    if node.op in _GATHERS:
        return all(reader.op in _MAPS for reader in readers)
    if _is_reduction(node):
        return all(_same_axes(node, member) for member in members if _is_reduction(member))
    return node.op in _MAPS or node.op in _ADDRESSED


def _is_reduction(node: Node) -> bool:
    return node.op in REDUCTIONS or node.op in _NORMALIZE


def _same_axes(a: Node, b: Node) -> bool:
    """Whether two reductions run over the same axes of tensors of one shape, so that one loop holds both."""
    return same_shape(a.inputs[0].shape, b.inputs[0].shape) and _axes(a) == _axes(b)


def _axes(node: Node) -> list[int]:
    rank = node.inputs[0].rank
    axes = node.attrs.get("axis", node.attrs.get("axes"))
    if axes is None:
        return list(range(rank))
    every: Iterable[int] = (axes,) if isinstance(axes, int) else axes
    return sorted(axis % rank for axis in every)
