"""Fill up the columns of products to whole vectors, through everything between them.

What is left of a row of columns behind the last whole vector would be tiles of its own, which take as long for a few
columns as for many, and rows of an odd length start in the midst of a line. So in a physical graph
(:mod:`sparsec.graph.plan_layouts`) the innermost axis is made longer from the first product on, and what stands there
is computed with the rest and read by nobody. Operators that keep their columns apart need not know; only divisions of
integers read no such rows. Two are told:

``linear_cols(X, W; columns)``, ``batch_matmul(A, B; lhs_transposed, rows, columns)``
    ``columns`` is how many of the innermost axis count. Along its own, ``A`` may be longer than what is read of it: the
    depths that ``B`` has or, where it lies transposed, as many ``rows`` as the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparsec.graph.evaluate import ELEMENTWISE, REDUCTIONS
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.products import find_anchor
from sparsec.graph.shape import Dim, Shape, product
from sparsec.graph.simplify import add_zeros, take_part
from sparsec.ir.types import is_float
from sparsec.targets import Target

MOVE = 0.25
"""Cycles to copy an element to or from rows of another length."""

OPEN = 8
"""Cycles that a tile takes to open a row, beside its entries."""

_ALONG = dict.fromkeys(REDUCTIONS, "axis") | {
    "nn.layer_norm": "axes",
    "nn.log_softmax": "axis",
    "nn.rms_norm": "axes",
    "nn.softmax": "axis",
    "split": "axis",
    "strided_slice": "axes",
}
"""The attribute with the axes along which an operator works; it treats what lies along others alike."""

_DIVISIONS = {"divide", "floor_divide", "floor_mod", "mod"}


def pad_columns(graph: Graph, target: Target) -> None:
    """Rewrite a physical graph so that products have columns of whole vectors, for each extent for which that pays."""
    lanes = target.unit_lanes("float32")
    extents = dict.fromkeys(node.output.shape[-1] for node in graph.nodes if _is_source(node))
    for extent in extents:
        if isinstance(extent, int) and extent > lanes and extent % lanes:
            plan = _Plan(extent, -(-extent // lanes) * lanes)
            if plan.follow(graph):
                _Rewriter(graph, plan).run()
    graph.verify()


def _is_source(node: Node) -> bool:
    return node.op == "linear_cols" and find_anchor(node) is not None


@dataclass(frozen=True)
class _Form:
    """How a node meets columns.

    Parameters
    ----------
    padded, plain : the inputs that it reads with padding, and those that it has to read without; others as they are
    writes : whether its outputs have padding
    attrs : what changes of its attributes
    """

    padded: tuple[Value, ...] = ()
    plain: tuple[Value, ...] = ()
    writes: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Plan:
    """Which values of a graph get rows of `wide` columns in place of `extent`, and how their readers take them."""

    extent: int
    wide: int
    values: set[Value] = field(default_factory=set)
    forms: dict[Node, _Form] = field(default_factory=dict)

    def follow(self, graph: Graph) -> bool:
        """Decide for every node; false where copies would cost more than ragged tiles."""
        saved = 0.0
        moved: set[Value] = set()
        for node in graph.nodes:
            form = self.forms[node] = self._form(node)
            moved |= {value for value in form.padded if value not in self.values and not value.is_constant}
            moved |= set(form.plain)
            if form.writes:
                self.values |= set(node.outputs)
                saved += _opening_cycles(node)
        moved |= self.values & set(graph.outputs)
        return saved > MOVE * sum(_number(product(value.shape)) for value in moved)

    def widened(self, shape: Shape) -> Shape:
        return (*shape[:-1], self.wide)

    def _form(self, node: Node) -> _Form:
        if _is_source(node) and self._has_columns(node.inputs[0]):
            return _Form((node.inputs[0],), (), True, {"columns": self.extent})
        if self.values.isdisjoint(node.inputs):
            return _Form()
        if node.op == "batch_matmul" and find_anchor(node) is not None:
            return self._matmul(node)
        joins = node.op in ELEMENTWISE and not _may_trap(node)
        if joins or (node.op == "concat" and _keeps_last(node, "axis")):
            return _Form(tuple(filter(self._has_columns, node.inputs)), (), True)
        x, *others = node.inputs
        if x in self.values and self.values.isdisjoint(others) and self._keeps_columns(node):
            return _Form((x,), (), True, {"shape": self.widened(node.output.shape)} if node.op == "reshape" else {})
        return _Form((), tuple(value for value in node.inputs if value in self.values))

    def _matmul(self, node: Node) -> _Form:
        a, b = node.inputs
        attrs = {"rows": self.extent} if a in self.values and node.attrs["lhs_transposed"] else {}
        wide = b in self.values
        return _Form((), (), wide, attrs | ({"columns": self.extent} if wide else {}))

    def _keeps_columns(self, node: Node) -> bool:
        """Whether each column of a node's outputs comes from the same column of its first input."""
        if node.op == "reshape":
            return self._has_columns(node.output)
        if node.op == "permute_dims":
            return node.attrs["axes"] is not None and node.attrs["axes"][-1] % node.output.rank == node.output.rank - 1
        return node.op in _ALONG and _keeps_last(node, _ALONG[node.op])

    def _has_columns(self, value: Value) -> bool:
        return value.rank > 0 and value.shape[-1] == self.extent


def _may_trap(node: Node) -> bool:
    """Whether a node divides integers: nothing must do that by what fills up."""
    return node.op in _DIVISIONS and not is_float(node.inputs[1].dtype)


def _keeps_last(node: Node, name: str) -> bool:
    """Whether the axes of an attribute are not the last one."""
    axes, rank = node.attrs.get(name), node.inputs[0].rank
    return axes is not None and all(axis % rank != rank - 1 for axis in ((axes,) if isinstance(axes, int) else axes))


def _opening_cycles(node: Node) -> float:
    """What a product takes at least for columns that are no whole vectors: every row is opened once more."""
    return OPEN * _number(product(node.output.shape[:-1])) if find_anchor(node) else 0.0


def _number(dim: Dim) -> int:
    return dim if isinstance(dim, int) else 1


class _Rewriter:
    """Puts nodes over padded values in the place of those that a plan names, and copies between the two forms."""

    def __init__(self, graph: Graph, plan: _Plan) -> None:
        self.graph, self.plan = graph, plan
        self.made: dict[Value, Value] = {}  # what has padding, in the place of what had none
        self.padded: dict[Value, Value] = {}  # copies
        self.plain: dict[Value, Value] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            form = self.plan.forms[node]
            if form.writes:
                self._widen(node, form)
            else:
                self.graph.set_inputs(node, [self._read(value, form, node) for value in node.inputs])
                node.attrs |= form.attrs
        self.graph.outputs = [self._as_plain(value, None) for value in self.graph.outputs]
        self.graph.remove_dead()

    def _widen(self, node: Node, form: _Form) -> None:
        inputs = [self._read(value, form, node) for value in node.inputs]
        types = [(self.plan.widened(value.shape), value.dtype) for value in node.outputs]
        name = node.outputs[0].name
        made = self.graph.add_node(node.op, inputs, types, node.attrs | form.attrs, before=node, name=name)
        self.made |= dict(zip(node.outputs, made.outputs, strict=True))

    def _read(self, value: Value, form: _Form, node: Node) -> Value:
        if value in form.padded:
            return self._as_padded(value, node)
        return self._as_plain(value, node) if value in form.plain else self.made.get(value, value)

    def _as_padded(self, value: Value, before: Node) -> Value:
        if value in self.made:
            return self.made[value]
        if value not in self.padded:
            more = self.plan.wide - self.plan.extent
            self.padded[value] = add_zeros(self.graph, value, value.rank - 1, more, before)
        return self.padded[value]

    def _as_plain(self, value: Value, before: Node | None) -> Value:
        if value not in self.made:
            return value
        if value not in self.plain:
            x, extent = self.made[value], self.plan.extent
            self.plain[value] = take_part(self.graph, x, x.rank - 1, 0, extent, before, value.name)
        return self.plain[value]
