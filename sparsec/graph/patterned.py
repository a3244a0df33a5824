"""Nodes whose loops follow a constant pattern or table, each as the operator of the IR that it stands for.

After the graph is physical, these nodes are groups of their own:

``sddmm(A, B, mask; layout, a_transposed, b_transposed, scale, elsewhere)``
    ``Y[b.., position(i, j)] = scale · mask[i, j] · Σ_k A[b.., i, k] · B[b.., k, j]``, in the order in which ``layout``
    stores the entries of the mask. A transposed operand lies as ``[b.., k, i]`` or ``[b.., j, k]``.
``masked_softmax(S, mask; layout)``
    The exponentials of what an ``sddmm`` made, and for each row its largest score and its sum of exponentials.
``masked_product(E, V, total, mask; layout, empty)``
    ``Y[b.., i, m] = Σ_j E[b.., position(i, j)] · V[b.., j, m] / total[b.., i]``, and ``empty`` where the total is 0.
``embedding_bag(table, ids, offsets?, weights?; rest, layout, size, mean, wrap)``
    ``Y[n, :] = Σ_t weights[t] · table[ids[t], :]`` over the bags that ``offsets`` start, or else of ``size`` rows each.
    ``rest`` names the operands after ``ids``, and numbers of no row ``wrap`` around or are taken as the nearest row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.graph.layer import Layer
from sparsec.graph.shape import Shape, product
from sparsec.graph.work import Work
from sparsec.ir.embedding_bag import EmbeddingBag
from sparsec.ir.kernel import Buffer, Expr, Load, Var, call
from sparsec.ir.masked_softmax import MaskedSoftmax
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import BATCH, DEPTH, ROW, SUM, Product
from sparsec.ir.sddmm import SDDMM, STORED
from sparsec.schedules.rules.embedding_bag import schedule_embedding_bag
from sparsec.schedules.rules.masked_attention import schedule_mix, schedule_softmax
from sparsec.schedules.rules.sddmm import schedule_sddmm
from sparsec.schedules.trace import Scheduled
from sparsec.targets import Target

COLUMN = Var("j")


@dataclass(frozen=True)
class Patterned:
    """A node as an operator of the IR.

    Parameters
    ----------
    op : the operator, whose `name` the kernel gets
    schedule : makes its kernel for a target
    packed : what is stored in each packed buffer
    values : the value that each dense buffer stands for, and its shape there
    matrix : makes the weight [rows, depth] of what reports count among the layers
    describe : describes that layer, of which the work is known, for a target
    """

    op: Any
    schedule: Callable[[Any, Target], Scheduled]
    packed: dict[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, tuple[Value, Shape]] = field(default_factory=dict)
    matrix: Callable[[], np.ndarray] | None = None
    describe: Callable[[Work, Target], Layer] | None = None


def find_patterned(node: Node) -> Patterned | None:
    """Return a node as an operator that follows a pattern, or None if it is none."""
    make = PATTERNED.get(node.op)
    return make(node) if make else None


def _sddmm(node: Node) -> Patterned:
    (a, b, mask), y, attrs = node.inputs, node.output, node.attrs
    assert mask.data is not None
    layout = parse_layout(attrs["layout"])
    pattern = Buffer("P", mask.dtype, mask.data.shape, layout)
    batch, depth = product(y.shape[:-1]), a.shape[-2 if attrs["a_transposed"] else -1]
    assert isinstance(depth, int)
    stored = layout.pack(mask.data).arrays["data"]
    epilogue: Expr = SUM * attrs["scale"] if attrs["scale"] != 1 else SUM
    if mask.dtype != "uint8":
        epilogue = epilogue * Var("mask")
    heads = batch if isinstance(batch, int) else "batch"
    extents = {name: (heads, *value.shape[-2:]) for name, value in (("A", a), ("B", b))}
    op = SDDMM(
        "sddmm",
        pattern,
        Buffer("A", a.dtype, extents["A"]),
        Buffer("B", b.dtype, extents["B"]),
        Buffer("Y", y.dtype, (heads, STORED)),
        (BATCH, DEPTH, ROW) if attrs["a_transposed"] else (BATCH, ROW, DEPTH),
        (BATCH, COLUMN, DEPTH) if attrs["b_transposed"] else (BATCH, DEPTH, COLUMN),
        heads,
        depth,
        epilogue,
        None if stored.all() else attrs["elsewhere"],
    )
    values = {name: (value, (batch, *value.shape[-2:])) for name, value in (("A", a), ("B", b))}
    values["Y"] = (y, (batch, y.shape[-1]))
    return Patterned(op, schedule_sddmm, {"P": mask.data}, values)


def _masked_softmax(node: Node) -> Patterned:
    scores, mask = node.inputs
    weights, top, total = node.outputs
    batch, rows = product(scores.shape[:-1]), total.shape[-1]
    assert isinstance(rows, int) and mask.data is not None
    heads = batch if isinstance(batch, int) else "batch"
    pattern = Buffer("P", mask.dtype, mask.data.shape, parse_layout(node.attrs["layout"]))
    stored, per_row = (batch, scores.shape[-1]), (batch, rows)
    values = {"S": (scores, stored), "E": (weights, stored), "top": (top, per_row), "total": (total, per_row)}
    s, e = (Buffer(name, scores.dtype, (heads, STORED)) for name in ("S", "E"))
    top_of_row, total_of_row = (Buffer(name, scores.dtype, (heads, rows)) for name in ("top", "total"))
    op = MaskedSoftmax("masked_softmax", pattern, s, e, top_of_row, total_of_row, heads)
    return Patterned(op, schedule_softmax, {"P": mask.data}, values)


def _masked_product(node: Node) -> Patterned:
    (weights, x, total, mask), y = node.inputs, node.output
    assert mask.data is not None
    rows, depth = mask.data.shape
    batch, columns = product(y.shape[:-2]), y.shape[-1]
    assert isinstance(columns, int)
    heads = batch if isinstance(batch, int) else "batch"
    divisor = Load("total", (BATCH, ROW))
    epilogue: Expr = SUM / divisor
    if not np.isnan(node.attrs["empty"]):
        epilogue = call("select", call("==", divisor, 0.0), node.attrs["empty"], epilogue)
    row = {"X": depth * columns, "Y": rows * columns, "total": rows, "E": weights.shape[-1]}
    op = Product(
        "masked_product",
        Buffer("P", mask.dtype, mask.data.shape, parse_layout(node.attrs["layout"])),
        Buffer("X", x.dtype, (heads, row["X"])),
        Buffer("Y", y.dtype, (heads, row["Y"])),
        (BATCH, DEPTH * columns + Var("m")),
        (BATCH, ROW * columns + Var("m")),
        heads,
        rows,
        depth,
        columns,
        operands=(Buffer("total", total.dtype, (heads, rows)),),
        epilogue=epilogue,
        values=Buffer("E", weights.dtype, (heads, STORED)),
    )
    values = {"E": weights, "X": x, "total": total, "Y": y}
    return Patterned(
        op, schedule_mix, {"P": mask.data}, {name: (value, (batch, row[name])) for name, value in values.items()}
    )


def _embedding_bag(node: Node) -> Patterned:
    table, ids, *rest = node.inputs
    y, attrs = node.output, node.attrs
    assert table.data is not None
    bags = y.shape[0] if isinstance(y.shape[0], int) else "bags"
    count = product(ids.shape)
    flat = count if isinstance(count, int) else "count"
    named = dict(zip(attrs["rest"], rest, strict=True))
    buffers = {name: Buffer(name, value.dtype, (bags if name == "offsets" else flat,)) for name, value in named.items()}
    op = EmbeddingBag(
        "embedding_bag",
        Buffer("W", table.dtype, table.data.shape, parse_layout(attrs["layout"])),
        Buffer("ids", ids.dtype, (flat,)),
        Buffer("Y", y.dtype, (bags, table.data.shape[1])),
        buffers.get("offsets"),
        buffers.get("weights"),
        attrs["size"],
        attrs["mean"],
        attrs["wrap"],
    )
    values = {"ids": (ids, (count,)), "Y": (y, y.shape)}
    values |= {name: (value, value.shape if name == "offsets" else (count,)) for name, value in named.items()}
    return Patterned(op, schedule_embedding_bag, {"W": table.data}, values)


PATTERNED: dict[str, Callable[[Node], Patterned]] = {
    "embedding_bag": _embedding_bag,
    "masked_product": _masked_product,
    "masked_softmax": _masked_softmax,
    "sddmm": _sddmm,
}
"""How to make the operator of each node, by its name."""
