"""Operators over a constant mask, a table, or activations with zeros: those of `sparsec.op` beside plain products.

Each is a graph, which `sparsec.operators` makes, of nodes that become kernels and of others that NumPy evaluates here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.errors import SparsecError
from sparsec.graph.evaluate import evaluate_node
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.patterned import find_patterned
from sparsec.graph.products import find_anchor
from sparsec.graph.store_weights import store_weights
from sparsec.ir.interpreter import interpret
from sparsec.ir.layout import Layout
from sparsec.ir.sums import Sum
from sparsec.operators import build_operator
from sparsec.schedules.rules.sparse_activations import propose_skipping
from sparsec.schedules.trace import Scheduled
from tests.ir.libraries import Library
from tests.ir.product_cases import NATIVE, Compiled, integers

Array = np.ndarray
ROWS, COLUMNS = 13, 27  # of the mask, the table or the weight: no block of a layout divides them


@dataclass(frozen=True)
class MaskOperator:
    """An operator of `sparsec.op` whose first operand is a constant matrix.

    Parameters
    ----------
    name, options : as `sparsec.op` takes them
    inputs : what it is called with
    numpy : computes it for a matrix, in float64
    stored : whether that is [.., rows, columns], of which the operator returns what the layout stores
    rtol : for functions that round
    weighted : whether the matrix is one of weights, which may be stored in half precision
    """

    name: str
    options: dict[str, Any]
    inputs: tuple[Array, ...]
    numpy: Callable[..., Array]
    stored: bool = False
    rtol: float = 0.0
    weighted: bool = False


def _attention(mask: Array, query: Array, key: Array, value: Array) -> Array:
    with np.errstate(all="ignore"):
        scores = np.where(mask != 0, query @ key.swapaxes(1, 2) * query.shape[-1] ** -0.5, -np.inf)
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        return np.nan_to_num(weights / weights.sum(axis=2, keepdims=True)) @ value


def _with_zeros(x: Array) -> Array:
    """Activations of which whole rows are zero, whole vectors of others, and single elements."""
    x[::3] = 0
    x[1::3, :16] = 0
    x[np.random.default_rng(0).random(x.shape) < 0.2] = 0
    return x


IDS = np.random.default_rng(0).integers(0, ROWS, (5, 4))

MASK_OPERATORS = {
    "sampled product (SDDMM)": MaskOperator(
        "sddmm",
        {"depth": 9},
        (integers(ROWS, 9), integers(9, COLUMNS)),
        lambda mask, a, b: mask * (a @ b),
        stored=True,
    ),
    "masked attention": MaskOperator(
        "attention",
        {"heads": 2, "size": 8},
        (integers(2, ROWS, 8) / 8, integers(2, COLUMNS, 8) / 8, integers(2, COLUMNS, 8, seed=1)),
        _attention,
        rtol=1e-5,
    ),
    "embedding bag": MaskOperator(
        "embedding_bag",
        {"bags": 5, "size": 4},
        (IDS,),
        lambda table, ids: table[ids].sum(axis=1),
        weighted=True,
    ),
    "matmul, zeros in activations": MaskOperator(
        "matmul",
        {"columns": 37, "sparse_activations": True},
        (_with_zeros(integers(COLUMNS, 37)),),
        lambda weight, x: weight @ x,
        weighted=True,
    ),
}
"""By the name that the page gives them."""


@dataclass(frozen=True)
class Step:
    """A node as a kernel: what tells kernels apart, how one is made, what it packs and what it reads and writes."""

    form: Any
    schedule: Callable[[str], Scheduled]
    packed: dict[str, Array]
    values: dict[str, tuple[Value, tuple[int, ...]]]


def _step(node: Node, layout: Layout | Sum) -> Step | None:
    if patterned := find_patterned(node):
        op, schedule = patterned.op, patterned.schedule
        return Step(op, lambda name: schedule(replace(op, name=name), NATIVE), patterned.packed, patterned.values)
    anchor = find_anchor(node)
    if anchor is None or anchor.matrix is None:
        return None
    matrix = anchor.matrix()
    proposal = propose_skipping(anchor.product, matrix, layout, NATIVE)
    product, trace = proposal.product, proposal.trace
    values = {"X": (anchor.x, anchor.shapes["X"]), "Y": (anchor.y, anchor.shapes["Y"])}
    return Step((product, trace), lambda name: trace.apply(replace(product, name=name)), product.parts(matrix), values)


@dataclass(frozen=True)
class Program:
    """The graph of an operator over a matrix in a layout."""

    operator: MaskOperator
    matrix: Array
    layout: Layout | Sum
    graph: Graph
    steps: dict[Node, Step]

    @classmethod
    def make(cls, operator: MaskOperator, matrix: Array, layout: Layout | Sum, storage: str | None) -> Program:
        operand = np.abs(matrix) if operator.name == "attention" else matrix  # whose mask has no sign
        graph = build_operator(operator.name, (operand,), operator.options, layout, NATIVE)
        if storage is not None:
            store_weights(graph, storage)
        steps = {node: step for node in graph.nodes if (step := _step(node, layout))}
        return cls(operator, matrix, layout, graph, steps)

    def differs(self, y: Array) -> bool:
        """Whether a result is not what NumPy computes."""
        wanted = self.operator.numpy(np.float64(self.matrix), *self.operator.inputs)
        if self.operator.stored:
            assert isinstance(self.layout, Layout)
            coordinates, position = self.layout.pack(self.matrix).entries()
            y, wanted = y[..., position], wanted[..., coordinates[0], coordinates[1]]
        return y.shape != wanted.shape or not np.allclose(y, wanted, self.operator.rtol, self.operator.rtol)

    def run(self, call: Callable[[Step, dict[str, Array], dict[str, tuple[int, ...]]], Mapping[str, Array]]) -> Array:
        """Run the graph, its kernels by `call(step, operands, shapes of outputs)`."""
        known = dict(zip(self.graph.inputs, self.operator.inputs, strict=True))

        def value(of: Value) -> Array:
            return known[of] if of.data is None else of.data

        for node in self.graph.nodes:
            if node not in self.steps:
                known |= zip(node.outputs, evaluate_node(node, list(map(value, node.inputs)), {}), strict=True)
                continue
            step = self.steps[node]
            dense = {name: (v, shape) for name, (v, shape) in step.values.items() if v not in node.outputs}
            made = {name: (v, shape) for name, (v, shape) in step.values.items() if v in node.outputs}
            operands = step.packed | {name: value(v).reshape(shape) for name, (v, shape) in dense.items()}
            shapes = {name: shape for name, (_, shape) in made.items()}
            empty = not all(np.prod(shape) for shape in shapes.values())  # then a plan has no call
            found = {name: np.zeros(shape) for name, shape in shapes.items()} if empty else call(step, operands, shapes)
            known |= {v: found[name].reshape(v.shape) for name, (v, _) in made.items()}
        return value(self.graph.outputs[0])


class Programs:
    """Programs whose kernels were compiled together; `refused` says why a layout cannot have one."""

    def __init__(
        self,
        operator: MaskOperator,
        matrices: Mapping[str, Array],
        layouts: Mapping[str, Layout | Sum],
        storage: str | None = None,
    ) -> None:
        self.programs: dict[str, Program] = {}
        self.refused: dict[str, str] = {}
        self.scheduled: dict[Any, Scheduled] = {}
        for name, layout in layouts.items():
            for kind, matrix in matrices.items():
                held = np.where(layout.holds(matrix != 0), matrix, np.float32(0))
                try:
                    program = Program.make(operator, held, layout, storage)
                    for step in program.steps.values():
                        if step.form not in self.scheduled:
                            self.scheduled[step.form] = step.schedule(f"kernel_{len(self.scheduled)}")
                except SparsecError as error:
                    self.refused[name] = str(error)
                    break
                self.programs[f"{name}, {kind}"] = program

    def differences(self, interpreted: tuple[str, ...]) -> Iterator[str]:
        """Yield where compiled code, or the interpreter on some kinds of matrices, does not compute what NumPy does."""
        library = Library([scheduled.func for scheduled in self.scheduled.values()], NATIVE)
        compiled = {form: Compiled(s.lowered, s.func, library=library) for form, s in self.scheduled.items()}

        def run(step: Step, operands: dict[str, Array], shapes: dict[str, tuple[int, ...]]) -> Mapping[str, Array]:
            return compiled[step.form](operands, shapes)

        def read(step: Step, operands: dict[str, Array], shapes: dict[str, tuple[int, ...]]) -> Mapping[str, Array]:
            kernel = self.scheduled[step.form].kernel
            dims = (pair for out in kernel.outputs for pair in zip(out.shape, shapes[out.name], strict=True))
            return interpret(kernel, operands, {name: n for name, n in dims if isinstance(name, str)})

        for name, program in self.programs.items():
            ways = {"compiled": run} | ({"interpreted": read} if name.endswith(interpreted) else {})
            yield from (f"{name}, {way}" for way, call in ways.items() if program.differs(program.run(call)))
