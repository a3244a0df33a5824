"""The loops of a product over the entries of one term of a packed weight, in the order of the levels of its layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE, both, is_inside, lane_axis
from sparsec.ir.decoded import is_decoded, multiply_decoded
from sparsec.ir.fetching import LONG, fetches
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Coordinate,
    Expr,
    Fetch,
    For,
    If,
    Load,
    Position,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    call,
    substitute,
)
from sparsec.ir.levels import Dense
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.product import BATCH, COLUMN
from sparsec.ir.staged import StagedPart
from sparsec.ir.term import Term, element_at, nest_of


@dataclass(frozen=True)
class PackedTerm(Term):
    """A term whose entries loops walk: a tile keeps the sums of rows that dense levels hold."""

    def tile(self) -> Stmt:
        """Sum in registers over the levels inside the tile."""
        order, lanes = self.order, self.places
        acc = Load("acc", tuple(Var(axis.var) for axis in lanes))
        y = self.at(self.product.y, self.product.y_index)
        zero: Expr = self.product.zero
        before = call("select", self.row_exists, y, zero) if self.row_exists else y
        starts, finishes = order.in_place and self.is_first, order.in_place and self.is_last
        init, result = zero if starts else before, self.result(acc, self.row) if finishes else acc
        last = self.last_block
        if last is not None:
            init = call("select", self.first_block, zero, before) if starts else before
            result = call("select", last, result, acc) if result != acc else acc
        return Tile(
            "acc",
            self.product.sums,
            tuple(self.width if isinstance(axis, Range) else self.sizes[axis.level] for axis in lanes),
            (
                For(lanes, (Assign(acc, init),)),
                self.update(acc),
                For(lanes, (self.where_row_exists(Assign(y, result)),)),
                *(self.cleared(self.lanes[:-1], self.row, last, self.row_exists) if finishes else ()),
            ),
            self.fetch(),
        )

    def fetch(self) -> tuple[Fetch, ...]:
        """Return what a tile asks for, its own rows or those of a later one."""
        order, layout = self.order, self.layout
        levels = [level for level in order.outside if level not in self.depths]
        if not (order.in_place and levels) or any(dim == layout.dims[0] for dim, _ in layout.orders):
            return ()
        walk = self.walks[levels[-1]] if layout.levels[levels[-1]][1].looks_ahead else None
        dense = all(isinstance(layout.levels[level][1], Dense) for level in (*levels, *order.inside))
        if walk is None and not (dense and prod(self.sizes[level] for level in order.inside) >= LONG):
            return ()
        first = self.place(levels)
        rows: list[Expr] = [first + n if n else first for n in range(prod(self.sizes[n] for n in order.lanes))]
        if self.row_exists:
            rows = [call("min", row, self.shape[0] - 1) for row in rows]
        return tuple(fetches(self.product, rows, self.width, self.last_block, walk))

    def update(self, acc: Load) -> Stmt:
        """Add the products of one stored block, or none where it is padding of the depth."""
        product = self.product
        x: Expr = self.at(product.x, product.x_index)
        if self.tiling.stage:
            x = Load("part", (self.staged.place(self.digits(self.order.inside)) + LANE,))
        walks = tuple(self.walks[level] for level in self.order.inside)
        if is_decoded(product, self.weight):
            return multiply_decoded(product, self.weight, walks, self.places, acc, x)
        weight: Expr = Stored(self.name)
        if product.values is not None:
            weight = Load(product.values.name, (BATCH, Position(self.name)))
        beside = tuple(self.walks[level] for level in self.order.beside)
        step: Stmt = For((*self.places, *beside), (Assign(acc, weight * x, accumulate=True),))
        inside = is_inside(self.layout, self.shape, self.name, self.layout.dims[1:])
        if exists := both(inside, self.known(product.reads)):
            step = If(exists, (step,))
        return nest_of(walks, step)

    def stage(self, body: Stmt) -> Stmt:
        """Copy what one depth block reads of X, for the body."""
        product, padded, blocks = self.product, self.layout.padded(self.shape)[1], self.staged_blocks

        def read(row: Expr, column: Expr) -> Expr:
            depth = self.place(blocks) + row if blocks else row
            value: Expr = element_at(product.x, product.x_index, {"k": depth, "m": COLUMN + column})
            if padded > self.shape[1]:
                value = call("select", call("<", depth, self.shape[1]), value, product.zero)
            return value

        part = self.staged
        return Tile("part", product.sums, (part.size,), (*part.copies(self.width, read), body))

    def where_row_exists(self, stmt: Stmt) -> Stmt:
        """Guard a statement against the rows that fill up the last block of the layout."""
        return If(self.row_exists, (stmt,)) if self.row_exists else stmt

    def at(self, buffer: Buffer, index: tuple[Expr, ...]) -> Load:
        """Return the element of X or Y where the walks stand."""
        depth = Coordinate(self.name, self.layout.dims[1])
        return element_at(buffer, index, {"i": self.row, "k": depth, "m": COLUMN + LANE})

    # -- what the weight's layout says -----------------------------------------------------------------------------

    @cached_property
    def staged(self) -> StagedPart:
        """What is copied of X: alike in all runs of tiles, so that a weight can hold offsets.

        Raises
        ------
        LayoutError : where taps are to share stretches, but a block of the depth parts those of a channel
        """
        taps = self.product.taps
        if self.tiling.stretch and self.part % taps:
            raise LayoutError(
                f"{self.layout} parts the {taps} taps of a channel; they cannot share what is copied of X"
            )
        widest = max(width for _, _, width in self.tiling.columns)
        return StagedPart(self.product, self.part, widest, self.tiling.stretch)

    @cached_property
    def order(self) -> LoopOrder:
        apart = not is_decoded(self.product, self.weight)
        return loop_order(self.layout, self.shape, self.tiling.whole_rows, self.width, apart=apart)

    @cached_property
    def lanes(self) -> tuple[Axis, ...]:
        """The rows and the columns of a tile."""
        return (*(self.walks[level] for level in self.order.lanes), lane_axis(self.width))

    @cached_property
    def places(self) -> tuple[Axis, ...]:
        """The rows and the columns of a tile as its sums lie; what there is more of is innermost, for vectors of it."""
        *rows, columns = self.lanes
        return (columns, *rows) if self.width < prod(self.sizes[level] for level in self.order.lanes) else self.lanes

    @property
    def row(self) -> Expr:
        return Coordinate(self.name, self.layout.dims[0])

    @cached_property
    def row_exists(self) -> Expr | None:
        """The condition that the row is in Y, and none of those that fill up the last block, if there are others."""
        inside = is_inside(self.layout, self.shape, self.name, self.layout.dims[:1])
        return both(inside, self.known(self.product.writes))

    def known(self, condition: Expr | None) -> Expr | None:
        """Return a condition on rows and depths for those where the walks stand."""
        bindings = {"i": self.row, "k": Coordinate(self.name, self.layout.dims[1])}
        return None if condition is None else substitute(condition, bindings)
