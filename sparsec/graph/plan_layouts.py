"""Choose for every tensor the axis that is stored innermost, and rewrite the graph into physical space.

Kernels vectorise over the innermost axis: linear layers and attention want tokens there, convolutions the width of the
image. Every operator has modes (:mod:`sparsec.graph.layout_rules`); where the axis that a tensor is stored with is not
one that a reader wants, the tensor is converted, which costs its bytes. The cheapest choice over the whole graph is a
minimum over one variable per node (:mod:`sparsec.graph.minimize`); it is found exactly. A minimum cut would need the
choices to agree along every edge, and a transpose, or the two ways to run a product of activations, flips them.

After the pass everything is row-major again, and what is left of layouts is explicit ``permute_dims``. Two operators
take the place of ``linear`` and ``matmul``:

``linear_cols(X, W)``
    ``Y[b.., n, m] = Σ_k W[n, k] · X[b.., k, m]`` with a constant ``W`` and columns ``m``, the tokens, innermost.
    A layer over one token has m = 1.
``batch_matmul(A, B; lhs_transposed)``
    ``C[b.., p, m] = Σ_k A[b.., p, k] · B[b.., k, m]``, where ``A`` lies as ``[b.., k, p]`` if ``lhs_transposed``. ``B``
    is read by vectors along m, ``A`` by scalars. Leading axes broadcast as in NumPy.

Where :mod:`sparsec.graph.pad_columns` makes columns longer, both are told how many count.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.layout_rules import Mode, last, order, physical, rule_of, same_memory
from sparsec.graph.minimize import Factor, minimize
from sparsec.graph.shape import evaluate_dim, product, symbols_of
from sparsec.graph.simplify import permute, reshape, simplify

ANY_EXTENT = 1024
"""The size at which the traffic of a symbolic dimension without a range is reckoned."""

RELABEL = 0.25
"""Bytes that a reshape counts for: it moves nothing, but stands between operators that could be fused."""


def plan_layouts(graph: Graph) -> None:
    """Rewrite a canonical graph into physical space, with the fewest bytes converted."""
    planner = _Planner(graph)
    inner = planner.solve()
    space = _Space(graph, inner)
    for node in graph.nodes:
        space.rewrite(node, planner.mode(node, inner))
    graph.outputs = [space.read(value, last(value))[0] for value in graph.outputs]
    graph.inputs, graph.nodes = space.graph.inputs, space.graph.nodes
    graph.remove_dead()
    simplify(graph)
    graph.verify()


class _Planner:
    """One variable per graph input and node: which of its possible inner axes it has."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.largest = {name: upper for name, (_, upper) in graph.symbols.items()}
        self.modes = {node: rule_of(node).modes(node) for node in graph.nodes}
        self.variable: dict[Value, int] = {}
        self.choices: list[list[int]] = []
        for value in graph.inputs:
            self._declare([value], [last(value)])
        for node in graph.nodes:
            self._declare(node.outputs, list(dict.fromkeys(mode.output for mode in self.modes[node])))

    def solve(self) -> dict[Value, int]:
        """The inner axis of every value that is no constant."""
        factors = [factor for node in self.graph.nodes for factor in self._factors(node)]
        factors += [self._output_factor(value) for value in self.graph.outputs if not value.is_constant]
        factors += [self._tie_break(node.outputs[0]) for node in self.graph.nodes]
        chosen = minimize([len(c) for c in self.choices], factors)
        return {value: _inner(value, self.choices[v][chosen[v]]) for value, v in self.variable.items()}

    def mode(self, node: Node, inner: dict[Value, int]) -> Mode:
        """The cheapest mode of a node for these inner axes."""
        fitting = [mode for mode in self.modes[node] if mode.output == inner[node.outputs[0]]]
        return min(fitting, key=lambda mode: self._cost(node, mode, inner))

    def _cost(self, node: Node, mode: Mode, inner: dict[Value, int]) -> float:
        reads = [(v, axes) for v, axes in zip(node.inputs, mode.inputs, strict=True) if not v.is_constant]
        return self._own(node, mode) + sum(self._conversion(v, inner[v], axes) for v, axes in reads)

    def _declare(self, values: Sequence[Value], choices: list[int]) -> None:
        self.variable.update((value, len(self.choices)) for value in values)
        self.choices.append(choices)

    def _factors(self, node: Node) -> list[Factor]:
        """What a node costs, conversions of its inputs included, by its inner axis and theirs.

        A node with one input may have several modes for one output axis; with several, the output axis decides the
        mode, and the cost is a sum over the inputs.
        """
        out, modes = self.variable[node.outputs[0]], self.modes[node]
        reads = {v: [i for i, w in enumerate(node.inputs) if w is v] for v in node.inputs if not v.is_constant}
        own = Factor(
            (out,), np.array([min(self._own(node, m) for m in modes if m.output == o) for o in self.choices[out]])
        )
        if len(reads) != 1:
            assert len({mode.output for mode in modes}) == len(modes)
            pairs = [self._pair(node, v, slots, modes, with_own=False) for v, slots in reads.items()]
            return [own, *pairs]
        ((value, slots),) = reads.items()
        return [self._pair(node, value, slots, modes, with_own=True)]

    def _pair(self, node: Node, value: Value, slots: list[int], modes: list[Mode], with_own: bool) -> Factor:
        source, out = self.variable[value], self.variable[node.outputs[0]]
        table = np.full((len(self.choices[source]), len(self.choices[out])), np.inf)
        for mode in modes:
            column = self.choices[out].index(mode.output)
            for row, stored in enumerate(self.choices[source]):
                cost = sum(self._conversion(value, _inner(value, stored), mode.inputs[i]) for i in slots)
                cost += self._own(node, mode) if with_own else 0
                table[row, column] = min(table[row, column], cost)
        return Factor((source, out), table)

    def _own(self, node: Node, mode: Mode) -> float:
        return mode.cost * self._bytes(node.outputs[0])

    def _output_factor(self, value: Value) -> Factor:
        v = self.variable[value]
        costs = [self._conversion(value, _inner(value, stored), (last(value),)) for stored in self.choices[v]]
        return Factor((v,), np.array(costs))

    def _tie_break(self, value: Value) -> Factor:
        """A byte for not being row-major, and less for an odd shape, so that ties are broken the plain way."""
        v = self.variable[value]
        costs = [0.0 if c == last(value) else self._tie(value, c) for c in self.choices[v]]
        return Factor((v,), np.array(costs))

    def _tie(self, value: Value, inner: int) -> float:
        return RELABEL / 2 if same_memory(value.shape, inner, last(value)) else 1.0

    def _conversion(self, value: Value, stored: int, wanted: Sequence[int]) -> float:
        if stored in wanted:
            return 0.0
        return RELABEL if any(same_memory(value.shape, stored, w) for w in wanted) else self._bytes(value)

    def _bytes(self, value: Value) -> float:
        sizes = {v.name: self.largest.get(v.name, ANY_EXTENT) for v in symbols_of(value.shape)}
        return float(evaluate_dim(product(value.shape), sizes)) * np.dtype(value.dtype).itemsize


def _inner(value: Value, chosen: int) -> int:
    """The inner axis of one of a node's outputs; those of another rank than the first are row-major."""
    return chosen if chosen < value.rank else last(value)


class _Space:
    """The physical graph as it grows, and where in it every logical value lies."""

    def __init__(self, logical: Graph, inner: dict[Value, int]) -> None:
        self.graph = Graph(symbols=logical.symbols)
        self.inner = inner
        self.stored: dict[tuple[Value, int], Value] = {}
        for value in logical.inputs:
            self.stored[value, inner[value]] = self.graph.input(value.name, value.shape, value.dtype)

    def rewrite(self, node: Node, mode: Mode) -> None:
        first = len(self.graph.nodes)
        rule_of(node).rewrite(self, node, mode)
        for made in self.graph.nodes[first:]:
            made.where = node.where

    def read(self, value: Value, *inner: int) -> tuple[Value, int]:
        if value.data is not None:
            stored = order(value.rank, inner[0])
            constant = self.graph.constant(np.asarray(value.data.transpose(stored), order="C"), value.name)
            constant.origin = value.origin
            return constant, inner[0]
        at = self.inner[value]
        if at in inner:
            return self.stored[value, at], at
        axis = next((i for i in inner if same_memory(value.shape, at, i)), inner[0])
        if (value, axis) not in self.stored:
            self.stored[value, axis] = self._convert(value, at, axis)
        return self.stored[value, axis], axis

    def emit(self, node: Node, op: str, inputs: Sequence[Value], attrs: dict[str, Any], inner: int) -> None:
        types = [(physical(v.shape, _inner(v, inner)), v.dtype) for v in node.outputs]
        made = self.graph.add_node(op, inputs, types, attrs, name=node.outputs[0].name)
        for value, result in zip(node.outputs, made.outputs, strict=True):
            self.stored[value, self.inner[value]] = result

    def set(self, node: Node, value: Value, inner: int) -> None:
        self.stored[node.output, inner] = value

    def _convert(self, value: Value, stored: int, wanted: int) -> Value:
        x = self.stored[value, stored]
        if same_memory(value.shape, stored, wanted):
            return reshape(self.graph, x, physical(value.shape, wanted), None)
        axes = order(value.rank, stored)
        return permute(self.graph, x, tuple(axes.index(axis) for axis in order(value.rank, wanted)), None)
