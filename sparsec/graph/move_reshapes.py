"""Move reshapes that only merge or split leading axes out of the way of linear layers.

Importers write ``[B, T, K] → [B·T, K]`` before a matrix product and split the axes again behind it. A linear layer
takes any number of leading axes, so these reshapes can pass it, meet their inverses, and vanish; what is left computes
on ``[B, T, …]`` throughout, where the token axis can be told from the batch.
"""

import math
from typing import Any

from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import Shape, broadcast_in, equal, is_one, same_shape
from sparsec.graph.simplify import reshape, simplify

ENOUGH_TOKENS = 16
"""A reshape that would leave no axis of this many tokens (windows of 7 × 7, say) stays where it is."""


_LAST_AXIS: dict[str, dict[str, Any]] = {"nn.softmax": {"axis": -1}, "nn.layer_norm": {"axes": (-1,)}}
"""How row-wise operators name the last axis, whatever the rank."""


def move_reshapes(graph: Graph) -> None:
    """Sink merging reshapes below row-wise nodes and hoist splitting ones above, until none moves."""
    moved = True
    while moved:
        moved = False
        for node in list(graph.nodes):
            moved = _sink(graph, node) or moved
        graph.remove_dead()
        for node in reversed(list(graph.nodes)):
            moved = _hoist(graph, node) or moved
        simplify(graph)


def _sink(graph: Graph, node: Node) -> bool:
    """f(reshape(x)) → reshape(f(x)), where the reshape merges axes."""
    sources = [v.producer.inputs[0] for v in node.inputs if v.producer is not None and v.producer.op == "reshape"]
    if not sources or not is_row_wise(node):
        return False
    source, target = sources[0], _rows(node)
    if not _merges(source.shape, target.shape) or not all(same_shape(s.shape, source.shape) for s in sources):
        return False
    moved = with_leading(graph, node, source.shape[:-1])
    if moved is not None:
        graph.replace(node.output, reshape(graph, moved, node.output.shape, node))
    return moved is not None


def _hoist(graph: Graph, node: Node) -> bool:
    """reshape(f(x)) → f(reshape(x)), where every reader splits axes in the same way."""
    if not is_row_wise(node) or not node.output.users or node.output in graph.outputs:
        return False
    readers = list(dict.fromkeys(node.output.users))
    target = readers[0].outputs[0]
    if any(r.op != "reshape" or not same_shape(r.output.shape, target.shape) for r in readers):
        return False
    if not _merges(target.shape, node.output.shape):
        return False
    moved = with_leading(graph, node, target.shape[:-1])
    if moved is not None:
        for reader in readers:
            graph.replace(reader.output, moved)
    return moved is not None


def with_leading(graph: Graph, node: Node, leading: Shape) -> Value | None:
    """The node over inputs with other leading axes; None where an operand broadcasts along them."""
    if node.op == "linear":
        x, weight = node.inputs
        inputs = [reshape(graph, x, (*leading, x.shape[-1]), node), weight]
    else:
        inputs = []
        for value in node.inputs:
            if same_shape(value.shape, node.output.shape):
                inputs.append(reshape(graph, value, (*leading, value.shape[-1]), node))
            elif value.is_constant and all(map(is_one, value.shape[:-1])):
                inputs.append(reshape(graph, value, value.shape[-1:], node))
            else:
                shape = broadcast_in(value.shape, node.output.shape, (*leading, node.output.shape[-1]))
                if not value.is_constant or shape is None:
                    return None
                inputs.append(reshape(graph, value, shape, node))
    shape = (*leading, node.output.shape[-1])
    attrs = {**node.attrs, **_LAST_AXIS.get(node.op, {})}
    return graph.add(node.op, inputs, shape, attrs, dtype=node.output.dtype, before=node)


def is_row_wise(node: Node) -> bool:
    """Whether a node computes each row of its output from the same row of its inputs."""
    if node.op in ELEMENTWISE or node.op == "linear":
        return node.output.rank > 0
    last = node.output.rank - 1 if len(node.outputs) == 1 else -1
    if node.op == "nn.softmax":
        return node.attrs["axis"] in (-1, last)
    return node.op == "nn.layer_norm" and node.attrs["axes"] in ((-1,), (last,))


def _rows(node: Node) -> Value:
    """The value whose leading axes the node's output shares."""
    return node.inputs[0] if node.op == "linear" else node.output


def _merges(long: Shape, short: Shape) -> bool:
    """Whether a reshape from ``long`` to ``short`` merges leading axes, keeps the last, and is worth undoing."""
    if len(long) <= len(short) or not short or not equal(long[-1], short[-1]):
        return False
    return _longest(long) >= min(ENOUGH_TOKENS, _longest(short))


def _longest(shape: Shape) -> float:
    """The longest axis but the last; a symbolic one may be as long as it likes."""
    return max((d if isinstance(d, int) else math.inf for d in shape[:-1]), default=0)
