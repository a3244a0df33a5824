"""Sampled products: A · B at the entries of a pattern that is known at compile time.

    Y[b, position(i, j)] = epilogue(Σ_k A[a(b, i, k)] · B[b(b, j, k)])    for each (i, j) that the layout stores

Every entry is stored once, so any layout is walked level by level and all threads write apart. Where the layout ends in
a dense block, a tile of it is in registers and its last level is vectors; where it does not, each entry is a dot
product by vectors along the depth, whose lanes are added up by halves.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir.builders import LANE, as_extent, halves, is_inside, lane_axis, zero
from sparsec.ir.kernel import (
    Assign,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Position,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    call,
    substitute,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Dense
from sparsec.ir.product import SUM
from sparsec.ir.types import sums

STORED = "stored"  # the symbol for how many elements the layout stores
VECTOR = 4  # elements of the last dense level from which on it makes vectors


@dataclass(frozen=True)
class SDDMM:
    """A sampled product.

    Expressions are over `b` (batch), `i` (row), `j` (column) and `k` (depth), and the epilogue over `acc` (the sum) and
    `mask` (the value that the pattern holds).

    Parameters
    ----------
    pattern : `[rows, columns]`, packed; entries are where it is not zero
    a, b : of any shape
    y : `[batch, stored]`, the values in the order of the pattern's own
    a_index, b_index : where `A[i, k]` and `B[k, j]` are
    batch, depth : extents
    epilogue : the result
    elsewhere : what is written where the layout stores an element that is no entry; None if it stores entries only
    """

    name: str
    pattern: Buffer
    a: Buffer
    b: Buffer
    y: Buffer
    a_index: tuple[Expr, ...]
    b_index: tuple[Expr, ...]
    batch: int | str
    depth: int
    epilogue: Expr = SUM
    elsewhere: float | None = 0.0

    @property
    def layout(self) -> Layout:
        assert self.pattern.layout is not None
        return self.pattern.layout

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pattern."""
        rows, columns = self.pattern.extents
        return rows, columns


@dataclass(frozen=True)
class SDDMMTiling:
    """How a sampled product is cut for registers.

    Parameters
    ----------
    levels : how many of the dense levels that end the layout the tile holds
    widths : if it holds none, the parts that the depth is cut into, powers of two; the largest first
    """

    levels: int
    widths: tuple[int, ...] = ()


def build_sddmm(op: SDDMM, tiling: SDDMMTiling) -> Kernel:
    """Write a sampled product as a kernel, its loops in the order of the pattern's levels."""
    layout = op.layout
    walks = [Walk(f"p{level}", op.pattern.name, level) for level in range(len(layout.levels))]
    outside = walks[: len(walks) - tiling.levels]
    entry = _block(op, tuple(walks[len(outside) :])) if tiling.levels else _dot(op, tiling.widths)
    tasks = leading_dense(layout, len(outside))
    inner = For(tuple(outside[tasks:]), (entry,)) if tasks < len(outside) else entry
    batch = Range("b", Const(0), as_extent(op.batch))
    nest = For((batch, *outside[:tasks]), (inner,), parallel=True)
    return Kernel(op.name, (op.pattern, op.a, op.b), (op.y,), (nest,))


def _block(op: SDDMM, lanes: tuple[Walk, ...]) -> Stmt:
    """Sum a dense block, or a part of one, in registers."""
    sizes, dtype = op.layout.sizes(op.shape), sums(op.y.dtype)
    acc = Load("acc", tuple(Var(axis.var) for axis in lanes))
    step: Stmt = Assign(acc, _factor(op.a, op.a_index, op) * _factor(op.b, op.b_index, op), accumulate=True)
    if inside := is_inside(op.layout, op.shape, op.pattern.name):
        step = If(inside, (step,))
    return Tile(
        "acc",
        dtype,
        tuple(sizes[axis.level] for axis in lanes),
        (
            For(lanes, (Assign(acc, zero(dtype)),)),
            For((Range("k", Const(0), Const(op.depth)),), (For(lanes, (step,)),)),
            For(lanes, (_store(op, acc),)),
        ),
    )


def _dot(op: SDDMM, widths: tuple[int, ...]) -> Stmt:
    """Sum one entry by vectors along the depth."""
    dtype, acc = sums(op.y.dtype), Load("acc", (LANE,))
    product = _factor(op.a, op.a_index, op, LANE) * _factor(op.b, op.b_index, op, LANE)
    body: list[Stmt] = [For((lane_axis(widths[0]),), (Assign(acc, zero(dtype)),))]
    start = 0
    for width in widths:
        stop = start + (op.depth - start) // width * width
        update = For((lane_axis(width),), (Assign(acc, product, accumulate=True),))
        body.append(For((Range("k", Const(start), Const(stop), width),), (update,)))
        start = stop
    assert start == op.depth, f"parts of {widths} do not cover a depth of {op.depth}"
    inside = is_inside(op.layout, op.shape, op.pattern.name)
    body[1:] = [If(inside, tuple(body[1:]))] if inside else body[1:]
    body += halves("acc", widths[0])
    return Tile("acc", dtype, (widths[0],), (*body, _store(op, Load("acc", (Const(0),)))))


def vector_axis(layout: Layout, shape: tuple[int, ...]) -> str:
    """Return which of `i`, `j` and `k` must be contiguous in the operands that have it, so that loads are vectors."""
    size = layout.sizes(shape)[-1]
    if layout.leaf == len(layout.levels) or size < VECTOR:
        return "k"
    return "i" if layout.levels[-1][0].dim == layout.dims[0] else "j"


def leading_dense(layout: Layout, stop: int) -> int:
    """Return how many dense levels of one dimension the layout starts with, `stop` at most.

    Those of a second one would be digits of the same parallel loop, and TVM takes what a diagonal level makes of such
    digits for another of them.
    """
    first = layout.levels[0][0].dim
    others = (
        level
        for level, (digit, kind) in enumerate(layout.levels[:stop])
        if digit.dim != first or not isinstance(kind, Dense)
    )
    return next(others, stop)


def _store(op: SDDMM, acc: Expr) -> Assign:
    result = substitute(op.epilogue, {"acc": acc, "mask": Stored(op.pattern.name)})
    if op.elsewhere is not None:
        empty = call("==", Stored(op.pattern.name), zero(op.pattern.dtype))
        result = call("select", empty, op.elsewhere, result)
    return Assign(Load(op.y.name, (Var("b"), Position(op.pattern.name))), result)


def _factor(buffer: Buffer, index: tuple[Expr, ...], op: SDDMM, lane: Expr | None = None) -> Load:
    rows, columns = op.layout.dims
    depth = Var("k") if lane is None else Var("k") + lane
    bindings = {"i": Coordinate(op.pattern.name, rows), "j": Coordinate(op.pattern.name, columns), "k": depth}
    return Load(buffer.name, tuple(substitute(part, bindings) for part in index))
