"""Let linear layers over images take all pixels as columns.

A layer over ``[B, H, W, C]`` has rows for columns, of which weights are read again for each and vectors are seldom
full. Over ``[B, H·W, C]`` it has all pixels, and where images come with their channels in front, as from a convolution,
these lie in memory as the layer wants them: ``[B, C, H·W]`` is ``[B, C, H, W]``.

So what computes each pixel by itself, from the first such layer's inputs to the last one's readers, is rewritten for
merged axes, and the permutes that bring the channels behind and in front again pass the reshapes.
"""

from collections.abc import Iterable

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.move_reshapes import is_row_wise, with_leading
from sparsec.graph.shape import Shape, is_one, product, same_shape
from sparsec.graph.simplify import permute, reshape, simplify

LONG = 64
"""An axis of as many columns is left alone, unless images have their channels in front."""


def merge_positions(graph: Graph) -> None:
    """Merge all axes between the first and the last one around linear layers."""
    seen: set[Node] = set()
    for node in list(graph.nodes):
        if node.op == "linear" and node not in seen:
            members = _reach(node)
            seen |= members
            if _pays(members, node.output.shape):
                for member in [each for each in graph.nodes if each in members]:
                    _merge(graph, member)
    simplify(graph)
    graph.remove_dead()


def _reach(start: Node) -> set[Node]:
    """The nodes that compute each pixel by itself, next to each other, of which one is a linear layer."""
    found, open_ = {start}, [start]
    while open_:
        node = open_.pop()
        for other in _neighbours(node):
            if other not in found and is_row_wise(other) and _same_pixels(other.output, start.output):
                found.add(other)
                open_.append(other)
    return found


def _neighbours(node: Node) -> Iterable[Node]:
    yield from (value.producer for value in node.inputs if value.producer is not None)
    yield from node.output.users


def _same_pixels(one: Value, other: Value) -> bool:
    return same_shape(one.shape[:-1], other.shape[:-1])


def _pays(members: set[Node], shape: Shape) -> bool:
    """Whether there are several axes to merge, all of them short, or behind which channels were brought."""
    space = shape[1:-1]
    if not all(isinstance(extent, int) for extent in space) or sum(not is_one(extent) for extent in space) < 2:
        return False
    return all(extent < LONG for extent in space) or any(map(_meets_channels_in_front, members))


def _meets_channels_in_front(node: Node) -> bool:
    """Whether channels are brought behind the pixels for a node, or to the front after it."""
    rank = node.output.rank
    makers = [value.producer for value in node.inputs if value.producer is not None]
    return any(_permutes(maker, _to_back(rank)) for maker in makers) or any(
        _permutes(user, _to_front(rank)) for user in node.output.users
    )


def _permutes(node: Node, axes: tuple[int, ...]) -> bool:
    return node.op == "permute_dims" and node.attrs["axes"] == axes


def _merge(graph: Graph, node: Node) -> None:
    """Rewrite a node for merged axes, and its readers that bring channels in front."""
    first, *space, _ = node.output.shape
    merged = with_leading(graph, node, (first, product(space)))
    if merged is None:
        return
    assert merged.producer is not None
    for value in merged.producer.inputs:
        _pass_permute(graph, value)
    for reader in list(dict.fromkeys(node.output.users)):
        if _permutes(reader, _to_front(node.output.rank)):
            in_front = permute(graph, merged, _to_front(merged.rank), reader)
            graph.replace(reader.output, reshape(graph, in_front, reader.output.shape, reader))
    graph.replace(node.output, reshape(graph, merged, node.output.shape, node))


def _pass_permute(graph: Graph, value: Value) -> None:
    """reshape(permute(x)) → permute(reshape(x)), where the permute brings channels behind the pixels."""
    merging = value.producer
    moving = merging.inputs[0].producer if merging is not None and merging.op == "reshape" else None
    if moving is None or len(moving.outputs) > 1 or not _permutes(moving, _to_back(moving.output.rank)):
        return
    (source,) = moving.inputs
    first, channels, *space = source.shape
    if same_shape(value.shape, (first, product(space), channels)):
        together = reshape(graph, source, (first, channels, product(space)), merging)
        graph.replace(value, permute(graph, together, _to_back(together.rank), merging))


def _to_back(rank: int) -> tuple[int, ...]:
    """The permutation that brings the channels behind the pixels."""
    return (0, *range(2, rank), 1)


def _to_front(rank: int) -> tuple[int, ...]:
    """The permutation that brings the channels in front of the pixels."""
    return (0, rank - 1, *range(1, rank - 1))
