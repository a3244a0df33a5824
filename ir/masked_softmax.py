"""The softmax of each row over the entries of a pattern that is known at compile time, without its division.

    top[b, i]   = max_j S[b, position(i, j)]
    E[b, p]     = exp(S[b, p] − top[b, i])        for each stored (i, j) at p
    total[b, i] = Σ_j E[b, position(i, j)]

What follows divides by the total: a product of E by a matrix has fewer results than E has elements. Where the layout
stores elements that are no entries, S is −∞ and E is zero. A row without entries has the lowest top, and the total 0.

Rows that are known before their columns are summed in registers, several of them in the lanes of a vector where the
layout ends in a dense level of rows. In other layouts a tile holds the tops and the totals of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sparsec.ir.builders import as_extent, is_inside
from sparsec.ir.kernel import (
    Assign,
    Axis,
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
    Tile,
    Var,
    Walk,
    call,
)
from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.types import lowest, sums


@dataclass(frozen=True)
class MaskedSoftmax:
    """A softmax over the stored elements of each row.

    Parameters
    ----------
    pattern : `[rows, columns]`, packed; its values are not read
    scores, weights : `[batch, stored]`, S and E
    top, total : `[batch, rows]`
    batch : extent
    """

    name: str
    pattern: Buffer
    scores: Buffer
    weights: Buffer
    top: Buffer
    total: Buffer
    batch: int | str


def build_masked_softmax(op: MaskedSoftmax) -> Kernel:
    """Write a softmax over stored elements as a kernel, its loops in the order of the pattern's levels."""
    return Kernel(op.name, (op.pattern, op.scores), (op.weights, op.top, op.total), (_Softmax(op).nest(),))


@dataclass(frozen=True)
class _Softmax:
    op: MaskedSoftmax

    def nest(self) -> Stmt:
        """Return the one nest: over tiles of rows, or over a tile of all rows where those are not known first."""
        order, batch = self.order, Range("b", Const(0), as_extent(self.op.batch))
        if order.blocks or not order.in_place:
            return For((batch,), (self.all_rows(),), parallel=True)
        tasks, rest = order.outside[: order.tasks], order.outside[order.tasks :]
        tile = self.in_registers()
        return For((batch, *self.walk(tasks)), (For(self.walk(rest), (tile,)) if rest else tile,), parallel=True)

    def in_registers(self) -> Stmt:
        """Take the softmax of the rows of one tile."""
        lanes = self.walk(self.order.lanes)
        sizes = self.layout.sizes(self.shape)
        top, total = self.sums(*(Var(axis.var) for axis in lanes))
        score, weight = self.stored(self.op.scores), self.stored(self.op.weights)
        results = ((self.op.top, top), (self.op.total, total))
        return Tile(
            "acc",
            sums(self.op.scores.dtype),
            (2, *(sizes[level] for level in self.order.lanes)),
            (
                *self.over(lanes, Assign(top, self.lowest), Assign(total, Const(0.0))),
                *self.inside(lanes, Assign(top, call("max", top, score))),
                *self.inside(lanes, Assign(weight, call("exp", score - top)), Assign(total, weight, accumulate=True)),
                *self.over(lanes, *(self.where_row_exists(Assign(self.of_row(to), value)) for to, value in results)),
            ),
        )

    def all_rows(self) -> Stmt:
        """Walk everything twice, a row's top and total being where the walks find the row."""
        lanes = self.walk(self.order.lanes)
        rows = Range("i", Const(0), Const(self.shape[0]))
        top, total = self.sums(Coordinate(self.op.pattern.name, self.layout.dims[0]))
        score, weight = self.stored(self.op.scores), self.stored(self.op.weights)
        known: Expr = call("exp", score - top)
        if self.row_exists is not None:
            known = call("select", self.row_exists, known, 0.0)
        raised = self.where_row_exists(Assign(top, call("max", top, score)))
        added = self.where_row_exists(Assign(total, weight, accumulate=True))
        first, second = self.sums(Var("i"))
        top_of_row, total_of_row = (Load(buffer.name, (Var("b"), Var("i"))) for buffer in (self.op.top, self.op.total))
        return Tile(
            "acc",
            sums(self.op.scores.dtype),
            (2, self.shape[0]),
            (
                *self.over((rows,), Assign(first, self.lowest), Assign(second, Const(0.0))),
                *self.inside(lanes, raised, whole=True),
                *self.inside(lanes, Assign(weight, known), added, whole=True),
                *self.over((rows,), Assign(top_of_row, first), Assign(total_of_row, second)),
            ),
        )

    def sums(self, *row: Expr) -> tuple[Load, Load]:
        """Return where the top and the total of a row of the tile are."""
        return Load("acc", (Const(0), *row)), Load("acc", (Const(1), *row))

    def inside(self, lanes: Sequence[Walk], *each: Stmt, whole: bool = False) -> tuple[Stmt, ...]:
        """Do something for all elements of a tile, or of the whole pattern."""
        levels = (*self.order.outside, *self.order.inside) if whole else self.order.inside
        body = self.over(lanes, *each)
        return (For(self.walk(levels), body),) if levels else body

    def over(self, lanes: Sequence[Axis], *each: Stmt) -> tuple[Stmt, ...]:
        return tuple(For(tuple(lanes), (stmt,)) for stmt in each) if lanes else each

    # -- what the pattern's layout says ----------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        assert self.op.pattern.layout is not None
        return self.op.pattern.layout

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.op.pattern.shape
        assert isinstance(rows, int) and isinstance(columns, int)
        return rows, columns

    @cached_property
    def order(self) -> LoopOrder:
        return loop_order(self.layout, self.shape)

    def walk(self, levels: Sequence[int]) -> tuple[Walk, ...]:
        return tuple(Walk(f"p{level}", self.op.pattern.name, level) for level in levels)

    def stored(self, buffer: Buffer) -> Load:
        """Return the element of a buffer that belongs to where the walks stand."""
        return Load(buffer.name, (Var("b"), Position(self.op.pattern.name)))

    def of_row(self, buffer: Buffer) -> Load:
        return Load(buffer.name, (Var("b"), Coordinate(self.op.pattern.name, self.layout.dims[0])))

    def where_row_exists(self, stmt: Stmt) -> Stmt:
        """Guard a statement against the rows that fill up the last block of the layout."""
        return stmt if self.row_exists is None else If(self.row_exists, (stmt,))

    @cached_property
    def row_exists(self) -> Expr | None:
        return is_inside(self.layout, self.shape, self.op.pattern.name, self.layout.dims[:1])

    @property
    def lowest(self) -> Const:
        return Const(lowest(self.op.scores.dtype))
