"""The loops of a product whose entries are spelled out: machine code has an instruction for each of them.

A block of rows is a level of columns that have an entry, and in it one of the rows that have it. A tile keeps the sums
of the block in registers, whatever rows its entries are in, because code can name a register where a loop can not. So
rows of X are loaded once for all rows of the block, and sums are opened once, not once for each part of the depth that
fits L1. The loops say what is computed; `ir/spelling.py` makes instructions of the walks in them.

    tile part: float32[6144]:
        …
        for p0 in W[0]:
            tile acc: float32[24, 128]:
                for r in range(0, 24), v in range(0, 128):
                    acc[r, v] = 0.0
                for n in range(0, 8), p1 in W[1], p2 in W[2], v in range(0, 16):
                    acc[p2, n * 16 + v] += W * part[n * 768 + p1 * 16 + v]
                for r in range(0, 24):
                    for v in range(0, 128):
                        Y[p0 * 24 + r, m + v] = acc[r, v]

Panels of a vector of columns lie one behind the other in what is copied of X. The last one overlaps the one before
where the columns are no whole vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE, counted, lane_axis, total
from sparsec.ir.fragment_ends import read_ends, split_limits
from sparsec.ir.gather import summands
from sparsec.ir.kernel import (
    Assign,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Load,
    Op,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    call,
    substitute,
    walk_expressions,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Compressed, Dense
from sparsec.ir.loop_order import LoopOrder
from sparsec.ir.product import COLUMN, ROW, SUM, Product
from sparsec.ir.term import Term, element_at, finished

PANEL, SUM_ROW, PART_ROW = Var("n"), Var("r"), Var("k")


@dataclass(frozen=True)
class Panels:
    """Panels of a vector of columns each.

    Parameters
    ----------
    lanes : columns of each
    column : where the first one starts, from the first column of the tile
    place : where its sums start, in a row of them
    count : how many there are
    first_lane : the first lane of each that no other panel has
    """

    lanes: int
    column: int
    place: int
    count: int
    first_lane: int = 0

    def at(self, start: int) -> Expr:
        """Return the place of a lane of one of the panels, of which the first starts there."""
        panel = PANEL * self.lanes + LANE if self.count > 1 else LANE
        return panel + start if start else panel

    @property
    def axes(self) -> tuple[Range, ...]:
        """The axes over all lanes of all panels."""
        panels = (counted(PANEL.name, self.count),) if self.count > 1 else ()
        return (*panels, lane_axis(self.lanes))


@dataclass(frozen=True)
class SpelledTerm(Term):
    """A term whose entries are spelled out: a tile keeps the sums of a block of rows, whichever entries are in."""

    def tile(self) -> Stmt:
        """Sum the columns of a block of rows, panel by panel, and finish them."""
        shape = self.block, self.stored_width
        if ends := split_epilogue(self.product):
            nests = [stmt for panels in self.panels for stmt in self.whole(panels, *ends)]
        else:
            sums = counted("r", self.block), lane_axis(self.stored_width)
            start = For(sums, (Assign(self.sum_at(LANE), self.product.zero),))
            nests = [start, *map(self.update_of, self.panels), *self.finish()]
        edges = (self.for_rows(edge) for edge in self.cleared((), self.block_row, self.last_block))
        return Tile("acc", self.product.sums, shape, (*nests, *edges))

    def whole(self, panels: Panels, start: Expr, result: Expr) -> Iterator[Stmt]:
        """Yield what starts the sums of some panels, adds products, and stores the results.

        Sums of a later block of the depth start from Y, and rest there until the last one.
        """
        row, column, acc = self.block_row, COLUMN + panels.at(panels.column), self.sum_at(panels.at(panels.place))
        y = element_at(self.product.y, self.product.y_index, {"i": row, "m": column})
        start, result = (substitute(value, {"acc": acc, "i": row, "m": column}) for value in (start, result))
        if self.last_block is not None:
            start, result = call("select", self.first_block, start, y), call("select", self.last_block, result, acc)
        yield self.for_rows(For(panels.axes, (Assign(acc, start),)))
        yield self.update_of(panels)
        *outer, lanes = panels.axes
        yield self.for_rows(For((*outer, replace(lanes, start=Const(panels.first_lane))), (Assign(y, result),)))

    def sum_at(self, place: Expr, row: Expr = SUM_ROW) -> Load:
        return Load("acc", (row, place))

    def update_of(self, panels: Panels) -> Stmt:
        """Add the products of all entries of the block to the sums of some panels."""
        *_, rows = walks = [self.walks[level] for level in (*self.order.inside, *self.order.lanes)]
        depth = Coordinate(self.name, self.layout.dims[1])
        x: Expr = element_at(self.product.x, self.product.x_index, {"k": depth, "m": COLUMN + panels.at(panels.column)})
        if self.tiling.stage:
            row = total(digit * (divisor * self.vector) for digit, divisor in self.digits(self.order.inside))
            x = self.staged_at(row, panels)
        acc = self.sum_at(panels.at(panels.place), Var(rows.var))
        *outer, lanes = panels.axes
        return For((*outer, *walks, lanes), (Assign(acc, Stored(self.name) * x, accumulate=True),))

    def finish(self) -> Iterator[Stmt]:
        """Yield what makes results of the sums: of whole vectors, and of what only the last panel has."""
        row = self.block_row
        whole = self.width // self.vector * self.vector
        runs = [(0, 0, whole), (whole, whole + whole + self.vector - self.width, self.width - whole)]
        for start, place, columns in runs:
            if columns:
                column = COLUMN + (LANE + start if start else LANE)
                acc: Expr = self.sum_at(LANE + place if place else LANE)
                y = element_at(self.product.y, self.product.y_index, {"i": row, "m": column})
                yield self.for_rows(self.finish_row(acc, y, row, column, columns))

    def finish_row(self, acc: Expr, y: Load, row: Expr, column: Expr, columns: int) -> Stmt:
        """Return what writes to Y: the results, or sums that rest there until the last block of the depth."""
        last, lanes = self.last_block, lane_axis(columns)
        if last is None:
            return For((lanes,), (Assign(y, self.result_at(acc, row, column)),))
        before, sums = call("select", self.first_block, self.product.zero, y), Load("sums", (LANE,))
        result = call("select", last, self.result_at(sums, row, column), sums)
        body = For((lanes,), (Assign(sums, acc + before),)), For((lanes,), (Assign(y, result),))
        return Tile("sums", self.product.sums, (columns,), body)

    def for_rows(self, stmt: Stmt) -> Stmt:
        """Carry out a statement for each row of the block, except those that the last block lacks."""
        if self.layout.padded(self.shape)[0] > self.shape[0]:
            stmt = If(call("<", self.block_row, self.shape[0]), (stmt,))
        return For((counted("r", self.block),), (stmt,))

    def stage(self, body: Stmt) -> Stmt:
        """Copy what one block of the depth reads of X, panel by panel, for the body."""
        product, copies, depth = self.product, [], total([*self.depth_digits, PART_ROW])
        if self.layout.padded(self.shape)[1] > self.shape[1]:
            depth = call("min", depth, self.shape[1] - 1)  # what stands there, no entry reads
        for panels in self.panels:
            column = COLUMN + panels.at(panels.column)
            x = element_at(product.x, product.x_index, {"k": depth, "m": column})
            copy = Assign(self.staged_at(PART_ROW * self.vector, panels), x)
            copies.append(For((counted("k", self.part),), (For(panels.axes, (copy,)),)))
        return Tile("part", product.sums, (self.panel_size * (self.stored_width // self.vector),), (*copies, body))

    def staged_at(self, row: Expr, panels: Panels) -> Load:
        """Return a lane of what is copied of X in one of the panels, its rows a vector apart."""
        first = panels.place // self.vector * self.panel_size
        place = row + LANE + first if first else row + LANE
        return Load("part", (PANEL * self.panel_size + place if panels.count > 1 else place,))

    # -- what the weight's layout says -----------------------------------------------------------------------------

    @cached_property
    def panels(self) -> list[Panels]:
        """Those of whole vectors, and one that ends with the columns and overlaps them."""
        lanes = self.vector
        whole, left = divmod(self.width, lanes)
        found = [Panels(lanes, 0, 0, whole)]
        return [*found, Panels(lanes, self.width - lanes, whole * lanes, 1, lanes - left)] if left else found

    @property
    def vector(self) -> int:
        """Lanes of a panel."""
        assert self.tiling.spelled is not None
        return self.tiling.spelled

    @property
    def stored_width(self) -> int:
        """Sums in a row of a tile: alike in all runs of tiles, so that code can hold where they are."""
        return max(-(-width // self.vector) for _, _, width in self.tiling.columns) * self.vector

    @property
    def block(self) -> int:
        """Rows in a block."""
        return self.sizes[-1]

    @property
    def panel_size(self) -> int:
        """Elements of a panel of what is copied of X: an odd number of vectors, so as to start in all sets."""
        return (self.part | 1) * self.vector

    @property
    def block_row(self) -> Expr:
        """The row of the weight that is a row of the block."""
        levels = [level for level in self.order.outside if level not in self.depths]
        return self.place(levels) + SUM_ROW if levels else SUM_ROW

    @property
    def depth_digits(self) -> list[Expr]:
        return [self.place(self.staged_blocks)] if self.staged_blocks else []

    @cached_property
    def stage_place(self) -> int:
        """How many of the levels outside the tile come before X is copied: chunks of rows, and parts of the depth."""
        levels = [level for level in self.order.outside if level not in self.depths]
        return max(super().stage_place, 1 if len(levels) > 1 and levels[0] == 0 else 0)

    @cached_property
    def order(self) -> LoopOrder:
        """The levels, of which the last two are spelled out.

        Raises
        ------
        LayoutError : where these are no compressed columns of blocks of rows
        """
        around, dims = self.layout.levels[:-2], self.layout.dims
        outside = tuple(range(len(around)))
        of_rows = [level for level in outside if around[level][0].dim == dims[0]]
        blocks = tuple(level for level in outside if level not in of_rows and self.sizes[level] > 1)
        if not can_be_spelled(self.layout):
            raise LayoutError(
                f"the entries of {self.layout} cannot be spelled out; store them as compressed columns of blocks of "
                "rows, as in (i, k) -> (i floordiv 24 : dense, k : compressed, i mod 24 : compressed)"
            )
        self.check_product(blocks)
        tasks = next((n for n, level in enumerate(outside) if level not in of_rows), len(outside))
        return LoopOrder(outside, (len(around),), (len(around) + 1,), (), blocks, True, tasks)

    def check_product(self, blocks: tuple[int, ...]) -> None:
        """Refuse what code is not written for.

        Raises
        ------
        LayoutError : for weights of several terms, of values that are made at run time or have scales, for sums that
            would rest in a Y of another type, and for tiles that say how loops over entries run or are too narrow
        """
        product, tiling = self.product, self.tiling
        loops = tiling.skip_zeros or tiling.dots or tiling.stretch or tiling.rows
        problems = [
            (bool(product.residue), "its weight is a sum of layouts"),
            (product.values is not None, "its values are made at run time"),
            (product.scales is not None, "its values have scales"),
            (bool(blocks) and product.y.dtype != product.sums, f"its sums cannot rest in {product.y.dtype}"),
            (bool(loops), "its tiles are also to skip zeros, take dots, rows or stretches"),
            (self.width < self.vector, f"tiles of {self.width} columns are narrower than panels of {self.vector}"),
        ]
        for is_there, problem in problems:
            if is_there:
                raise LayoutError(f"the entries of {product.name} cannot be spelled out: {problem}")


def split_epilogue(product: Product) -> tuple[Expr, Expr] | None:
    """Return what fragments start sums from, and the results that they store; None where loops have to.

    Both are over `i`, `m` and `acc`, as the epilogue is.
    """
    limits, core = split_limits(product.epilogue)
    terms = list(summands(core))
    added = sorted((term for term in terms if term != SUM), key=lambda term: COLUMN in walk_expressions(term))
    if len(added) + 1 != len(terms):
        return None
    rest: Expr = SUM
    for name, limit in limits:
        rest = Op(name, (rest, Const(limit)))
    start = total(added) if added else product.zero
    result = finished(replace(product, epilogue=rest), SUM, ROW, COLUMN)
    sums, y = Load("acc", (ROW, COLUMN)), Load(product.y.name, product.y_index)
    types = {buffer.name: buffer.dtype for buffer in (product.y, *product.inputs)} | {sums.buffer: product.sums}
    before, after = Assign(sums, start), Assign(y, substitute(result, {SUM.name: sums}))
    return (start, result) if read_ends(before, after, sums, ROW, COLUMN, types) else None


def can_be_spelled(layout: Layout) -> bool:
    """Whether the last two levels of a layout are compressed columns of blocks of rows, and all others are dense."""
    *around, columns, rows = layout.levels if len(layout.levels) > 1 else (*layout.levels, *layout.levels)
    return (
        all(isinstance(kind, Dense) for _, kind in around)
        and all(isinstance(kind, Compressed) and kind.run == 1 and not kind.nonunique for _, kind in (columns, rows))
        and (columns[0].dim, rows[0].dim) == layout.dims[::-1]
        and rows[0].divisor == 1
        and not layout.orders
    )
