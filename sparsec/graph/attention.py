"""Attention: two products of activations and the softmax between them, which become one kernel.

What the softmax reads and makes is larger than anything else in a transformer of many tokens. One kernel for all three
keeps a panel of it in the caches of a core. Attention of symbolic shape, of more keys than these caches hold, or of
fewer queries than a vector, stays three kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparsec.graph.fuse import Group, is_view
from sparsec.graph.graph import Graph, Value
from sparsec.graph.patterned import Patterned
from sparsec.graph.shape import Shape
from sparsec.ir.attention import Attention
from sparsec.ir.types import is_float
from sparsec.schedules.rules.attention import has_schedule, schedule_attention
from sparsec.targets import Target


def join_attention(graph: Graph, groups: Sequence[Group], target: Target) -> list[Group]:
    """Make one group of the groups of two products and the softmax between them, in the place of the last one."""
    makes = {value: group for group in groups for value in group.outputs}
    joined: dict[Group, Group] = {}
    within: set[Group] = set()
    for mix in groups:
        if found := _find_softmax(graph, mix, makes):
            group = _join(*found, mix)
            if has_schedule(_operator(group), target):
                joined[mix] = group
                within |= set(found)
    return [joined.get(group, group) for group in groups if group not in within]


def find_attention(group: Group) -> Patterned:
    """Return a group that was joined as an operator of the IR."""
    assert group.scores is not None
    values: dict[str, tuple[Value, Shape]] = {}
    for part, names in ((group.scores, _names(group.scores, "KQS", "s")), (group, _names(group, "VPY", "y"))):
        anchor = part.anchor
        assert anchor is not None
        values[names["W"]] = anchor.weight, anchor.shapes["W"]
        values[names["X"]] = anchor.x, anchor.shapes["X"]
        values[names["Y"]] = part.outputs[0], anchor.shapes["Y"]
        values |= {names[operand.buffer.name]: (operand.value, operand.shape) for operand in part.operands}
    return Patterned(_operator(group), schedule_attention, values=values)


def _operator(group: Group) -> Attention:
    assert group.scores is not None
    scores = group.scores.product.renamed(_names(group.scores, "KQS", "s"))
    return Attention("attention", scores, group.product.renamed(_names(group, "VPY", "y")))


def _names(group: Group, buffers: str, operands: str) -> dict[str, str]:
    """Return names for the buffers of a product in attention: its weight, X and Y, and what its epilogue reads."""
    names = dict(zip("WXY", buffers, strict=True))
    return names | {operand.buffer.name: f"{operands}{n}" for n, operand in enumerate(group.operands)}


def _find_softmax(graph: Graph, mix: Group, makes: Mapping[Value, Group]) -> tuple[Group, Group] | None:
    """Return the groups of the scores and of their softmax, of which the product alone reads the result."""
    softmax = _sole_maker(graph, mix, makes) if _is_constant_product(mix) else None
    if softmax is None or [node.op for node in softmax.nodes] != ["nn.softmax"]:
        return None
    (node,) = softmax.nodes
    scores = _sole_maker(graph, softmax, makes)
    if scores is None or not _is_constant_product(scores):
        return None
    if node.attrs["axis"] % node.output.rank != node.output.rank - 2:
        return None
    assert scores.anchor is not None and mix.anchor is not None
    ends = {value.shape[-2:] for value in (scores.anchor.y, node.output, mix.anchor.x)}
    return (scores, softmax) if len(ends) == 1 else None


def _sole_maker(graph: Graph, group: Group, makes: Mapping[Value, Group]) -> Group | None:
    """Return the group that makes the X of a product, or what a softmax reads, if nothing else reads it."""
    value = group.anchor.x if group.anchor else group.nodes[0].inputs[0]
    while len(value.users) == 1 and value not in graph.outputs:
        if value.producer is None or not is_view(value.producer):
            return makes.get(value)
        value = value.producer.inputs[0]
    return None


def _is_constant_product(group: Group) -> bool:
    """Whether a group is a product of floats, both of them activations, and of constant shape."""
    if group.anchor is None or group.anchor.matrix is not None:
        return False
    product = group.product
    extents = (product.batch, product.rows, product.depth, product.columns)
    return is_float(product.sums) and all(isinstance(extent, int) for extent in extents)


def _join(scores: Group, softmax: Group, mix: Group) -> Group:
    assert mix.anchor is not None
    read = (*scores.inputs, *(value for value in mix.inputs if value is not mix.anchor.x))
    nodes = (*scores.nodes, *softmax.nodes, *mix.nodes)
    return replace(mix, nodes=nodes, inputs=tuple(dict.fromkeys(read)), scores=scores)
