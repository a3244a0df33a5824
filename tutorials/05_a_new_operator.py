"""Add an operator to the compiler: one step of Viterbi's algorithm, for many sequences at once.

    python tutorials/05_a_new_operator.py

    Y[i, m] = max_k T[i, k] · P[k, m]

`P[k, m]` is the probability of the best path of sequence m to state k, and `T[i, k]` that of a step from k to i, which
is zero for most pairs of states. It is a product with a maximum in place of the sum. A zero that is stored raises
neither, so the operator runs over every layout, also those that fill up blocks with zeros.
"""

import numpy as np

import sparsec
from sparsec.graph.graph import Graph, Node
from sparsec.graph.patterned import PATTERNED, Patterned
from sparsec.ir.builders import is_inside
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import (
    Assign,
    Buffer,
    Const,
    Coordinate,
    For,
    If,
    Kernel,
    Load,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    call,
)
from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import loop_order
from sparsec.ir.named import CSR, NAMED
from sparsec.ir.notation import parse_layout
from sparsec.ir.verifier import verify
from sparsec.operators import OPERATORS
from sparsec.schedules.steps import Accumulate
from sparsec.schedules.trace import Scheduled, schedule_kernel
from sparsec.targets import Target

# -- The loops ---------------------------------------------------------------------------------------------------------
# A kernel is loops as data. `Walk(variable, "T", n)` walks level n of the transitions, in whatever layout they have;
# inside the walks of all levels `Stored("T")` is a transition, and `Coordinate("T", …)` is its row or its column.
# `loop_order` says which levels find rows, which find columns in them, and which rows a tile holds in registers at once
# (lanes).


def viterbi(layout: Layout, states: int, sequences: int) -> Kernel:
    """Write the step for transitions in a layout: rows start at zero, and every visit to a row may raise it."""
    shape, order = (states, states), loop_order(layout, (states, states))
    width = next(width for width in (16, 8, 4, 2, 1) if sequences % width == 0)
    lanes = Range("v", Const(0), Const(width))
    row, column, m = Coordinate("T", layout.dims[0]), Coordinate("T", layout.dims[1]), Var("m") + Var("v")

    def walk(levels: tuple[int, ...], body: Stmt) -> Stmt:
        return For(tuple(Walk(f"p{n}", "T", n) for n in levels), (body,)) if levels else body

    def inside(dim: str, body: Stmt) -> Stmt:
        """Step over what fills up the last block of a layout that does not divide the states."""
        condition = is_inside(layout, shape, "T", (dim,))
        return If(condition, (body,)) if condition else body

    start = For((Range("i", Const(0), Const(states)), lanes), (Assign(Load("Y", (Var("i"), m)), Const(0.0)),))
    best, y = Load("best", (*(Var(f"p{n}") for n in order.lanes), Var("v"))), Load("Y", (row, m))
    raised = call("max", best, Stored("T") * Load("P", (column, m)))
    sizes = (*(layout.sizes(shape)[n] for n in order.lanes), width)
    steps = (
        walk(order.lanes, inside(layout.dims[0], For((lanes,), (Assign(best, y),)))),
        walk((*order.inside, *order.lanes), inside(layout.dims[1], For((lanes,), (Assign(best, raised),)))),
        walk(order.lanes, inside(layout.dims[0], For((lanes,), (Assign(y, best),)))),
    )
    body = (start, walk(order.outside, Tile("best", "float32", sizes, steps)))
    nest = For((Range("m", Const(0), Const(sequences), width),), body, parallel=True)
    p, y_buffer = (Buffer(name, "float32", (states, sequences)) for name in "PY")
    return Kernel("viterbi", (Buffer("T", "float32", shape, layout), p), (y_buffer,), (nest,))


# -- The schedule ------------------------------------------------------------------------------------------------------
# Lowering makes blocks of what is done to a tile, by these names. Their innermost loops become vectors.


def schedule(kernel: Kernel, target: Target) -> Scheduled:
    return schedule_kernel(kernel, [Accumulate("init|update|finish", target.lanes("float32"))])


# -- The operator ------------------------------------------------------------------------------------------------------
# A node of the graph stands for it, and says what its kernel's buffers are. `sparsec.op` makes a graph of one node.


def as_kernel(node: Node) -> Patterned:
    (p, t), y = node.inputs, node.output
    kernel = viterbi(parse_layout(node.attrs["layout"]), *y.shape)
    return Patterned(kernel, schedule, {"T": t.data}, {"P": (p, p.shape), "Y": (y, y.shape)})


def operator(target: Target, transitions: np.ndarray, sequences: int, *, layout: Layout | None) -> Graph:
    graph, shape = Graph(), (len(transitions), sequences)
    operands = [graph.input("p", shape, "float32"), graph.constant(transitions, "transitions")]
    graph.outputs = [graph.add("viterbi", operands, shape, {"layout": str(layout or CSR)}, name="y")]
    return graph


PATTERNED["viterbi"] = as_kernel
OPERATORS["viterbi"] = operator

# -- What it computes --------------------------------------------------------------------------------------------------
# The interpreter is the meaning of a kernel, and checks every index; the verifier refuses those that surely leave their
# buffers before anything runs.

STATES, SEQUENCES = 60, 40
rng = np.random.default_rng(0)
transitions = np.where(rng.random((STATES, STATES)) < 0.1, rng.random((STATES, STATES)), 0).astype(np.float32)
paths = rng.random((STATES, SEQUENCES), np.float32)

kernel = viterbi(CSR, STATES, SEQUENCES)
verify(kernel)
print(f"{kernel}\n")
assert np.array_equal(interpret(kernel, {"T": transitions, "P": paths})["Y"], (transitions[:, :, None] * paths).max(1))
print("the interpreter computes what NumPy computes\n")

# -- Compiled, over every layout with a name ---------------------------------------------------------------------------

for name, make in NAMED.items():
    layout = make()
    if isinstance(layout, Layout):  # and no sum of several
        held = np.where(layout.holds(transitions != 0), transitions, np.float32(0))
        step = sparsec.op("viterbi", held, SEQUENCES, layout=layout)
        assert np.array_equal(step(paths), (held[:, :, None] * paths).max(1))
        print(f"{name:22}exact   {layout}")
