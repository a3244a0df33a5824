"""Contract chains of constant factors in the cheapest order.

A chain of layers without a nonlinearity between them computes ``x · A · B · C …``. Since x is known only when the model
runs, any run of neighbouring factors can be multiplied beforehand. Pruned or low-rank factors are mostly cheaper apart,
wide ones together. The cheapest way to cut the chain into runs is found by dynamic programming, as for the matrix chain
product (Cormen et al., "Introduction to Algorithms", section 15.2), with the nonzeros that are left as the cost of a
factor. Tensor-train layers (Novikov et al., "Tensorizing Neural Networks", 2015) are such chains too, with reshapes and
transposes among their factors, and so are convolutions next to pointwise ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparsec.graph.compose import Composed, Run, compose_images, compose_rows, is_image_step, is_row_step
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.plan_layouts import ANY_EXTENT
from sparsec.graph.shape import Shape, evaluate_dim, product, symbols_of
from sparsec.graph.simplify import permute, reshape

LAYERS = ("conv2d", "linear")

PER_BYTE = 1.0
"""Multiplications by a nonzero that take as long as a byte of an activation or a weight takes to be moved."""

NONZERO_BYTES = 6
"""Bytes of a nonzero with its index."""


def associate(graph: Graph) -> None:
    """Write ``x · (A · B)`` as ``(x · A) · B``, so that constants are multiplied only where that is cheaper.

    Runs before constants are folded; :func:`contract_chains` multiplies them again where it pays.
    """
    for node in list(graph.nodes):
        if node.op == "matmul" and len(node.inputs) == 2:
            left, right = node.inputs
            if not _is_fixed(left) and len(factors := _factors(graph, right, node)) > 1:
                for factor in factors:
                    left = _matmul(graph, left, factor, node)
                graph.replace(node.output, left)
            elif not _is_fixed(right) and right.rank > 1 and len(factors := _factors(graph, left, node)) > 1:
                for factor in reversed(factors):
                    right = _matmul(graph, factor, right, node)
                graph.replace(node.output, right)
    graph.remove_dead()


def _is_fixed(value: Value) -> bool:
    """Whether a value depends on constants alone."""
    seen, waiting = {value}, [value]
    while waiting:
        found = waiting.pop()
        if found.is_constant:
            continue
        if found.producer is None:
            return False
        new = [v for v in found.producer.inputs if v not in seen]
        seen.update(new)
        waiting += new
    return True


def _factors(graph: Graph, value: Value, before: Node) -> list[Value]:
    """The matrices whose product a value is, itself where it is no product of constants."""
    node = value.producer
    if node is not None and value.rank == 2 and _is_fixed(value):
        if node.op == "matmul" and all(v.rank == 2 for v in node.inputs):
            return [factor for v in node.inputs for factor in _factors(graph, v, before)]
        if node.op == "permute_dims" and len(factors := _factors(graph, node.inputs[0], before)) > 1:
            return [permute(graph, factor, (1, 0), before) for factor in reversed(factors)]
    return [value]


def _matmul(graph: Graph, a: Value, b: Value, node: Node) -> Value:
    shape = (*a.shape[:-1], b.shape[-1]) if b.rank == 2 else (*b.shape[:-2], a.shape[-2], b.shape[-1])
    return graph.add("matmul", [a, b], shape, node.attrs, dtype=node.output.dtype, before=node)


def contract_chains(graph: Graph) -> None:
    """Multiply neighbouring linear layers and convolutions where that leaves less work.

    Runs after :func:`sparsec.graph.remove_dead_channels.remove_dead_channels`, on canonical layers. The sums of a
    merged layer are rounded otherwise than those of the layers that it stands for.
    """
    costs = _Costs(graph)
    for chain in list(_chains(graph)):
        apart = [costs.node(node) for node in chain]
        compose = compose_images if any(node.op == "conv2d" for node in chain) else compose_rows
        # Runs that are no cheaper than their nodes are in no best cut, and would take much memory.
        runs = {
            (start, stop): (cost, made)
            for (start, stop), made in compose(chain)
            if (cost := costs.composed(made)) < sum(apart[start:stop])
        }
        for start, stop in _cut(apart, {run: cost for run, (cost, _) in runs.items()}):
            _emit(graph, chain[start:stop], runs[start, stop][1])
    graph.remove_dead()


def _cut(apart: Sequence[float], runs: dict[Run, float]) -> list[Run]:
    """The runs in the cheapest cut of a chain whose nodes cost so much apart, the last first."""
    best = [(0.0, 0)]
    for stop, cost in enumerate(apart, 1):
        ways = [(best[stop - 1][0] + cost, stop - 1)]
        ways += [(best[start][0] + whole, start) for (start, end), whole in runs.items() if end == stop]
        best.append(min(ways))
    chosen, stop = [], len(apart)
    while stop:
        start = best[stop][1]
        if (start, stop) in runs:
            chosen.append((start, stop))
        stop = start
    return chosen


def _chains(graph: Graph) -> Iterator[list[Node]]:
    """Runs of nodes, each the only reader of the one before, that hold at least two layers of one kind."""
    taken: set[Node] = set()
    for kind in (is_row_step, is_image_step):
        for node in graph.nodes:
            if node in taken or not kind(node):
                continue
            chain = [node]
            while (step := _only_reader(graph, chain[-1])) is not None and kind(step):
                chain.append(step)
            if sum(step.op in LAYERS for step in chain) > 1:
                taken.update(chain)
                yield chain


def _only_reader(graph: Graph, node: Node) -> Node | None:
    users = node.output.users
    alone = len(users) == 1 and node.output not in graph.outputs and users[0].inputs[0] is node.output
    return users[0] if alone else None


class _Costs:
    """What nodes take, in multiplications; symbolic dimensions are as large as they may be."""

    def __init__(self, graph: Graph) -> None:
        self.largest = {name: upper for name, (_, upper) in graph.symbols.items()}

    def node(self, node: Node) -> float:
        if node.op in LAYERS:
            weight = node.inputs[1].data
            assert weight is not None
            return self._layer(weight, node.output.shape, node.op)
        return PER_BYTE * 2 * self._bytes(node.output.shape) if node.op == "permute_dims" else 0.0

    def composed(self, made: Composed) -> float:
        return self._layer(made.weight, made.shape, made.op)

    def _layer(self, weight: np.ndarray, shape: Shape, op: str) -> float:
        nonzeros = np.count_nonzero(weight)
        outputs = shape[1] if op == "conv2d" else shape[-1]
        assert isinstance(outputs, int)
        moved = 2 * self._bytes(shape) + NONZERO_BYTES * nonzeros  # the result is written here and read by the next
        return nonzeros * self._count(shape) / outputs + PER_BYTE * moved

    def _bytes(self, shape: Shape) -> float:
        """The size of a tensor in float32."""
        return 4 * self._count(shape)

    def _count(self, shape: Shape) -> float:
        sizes = {v.name: self.largest.get(v.name, ANY_EXTENT) for v in symbols_of(shape)}
        return float(evaluate_dim(product(shape), sizes))


def _emit(graph: Graph, nodes: Sequence[Node], made: Composed) -> None:
    first, y = nodes[0], nodes[-1].output
    layer = next(node for node in nodes if node.op in LAYERS)
    source, shape = ((1, *s) if len(s) == 1 else s for s in (made.source, made.shape))  # layers take rows of features
    x = reshape(graph, first.inputs[0], source, first)
    weight = graph.constant(made.weight.astype(y.dtype), layer.inputs[1].name)
    result = graph.add(made.op, [x, weight], shape, made.attrs, dtype=y.dtype, before=layer, name=y.name)
    if made.bias.any():
        bias = graph.constant(made.bias.astype(y.dtype).reshape(made.bias_shape), "bias")
        result = graph.add("add", [result, bias], shape, before=layer)
    graph.replace(y, reshape(graph, result, y.shape, layer))
