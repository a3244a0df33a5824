"""The loops of a product over one term of a packed weight, in the order of the levels of its layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE, all_of, as_extent, both, is_inside, lane_axis, total
from sparsec.ir.decoded import is_decoded, multiply_decoded
from sparsec.ir.fetching import LONG, fetches
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
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
    Walk,
    call,
    substitute,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Dense, Diagonal
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.product import BATCH, COLUMN, ROW, Product, Run, Tiling
from sparsec.ir.staged import StagedPart


@dataclass(frozen=True)
class PackedTerm:
    """One run of tiles of columns over a packed weight, or over one term of it."""

    product: Product
    weight: Buffer
    columns: Run
    tiling: Tiling

    def nest(self) -> Stmt:
        """Return the nest that computes the columns.

        Where every block of the depth meets all rows, the first block starts their sums and the last one finishes them.
        Where rows are found by sparse levels, all sums are cleared first, and finished afterwards. Of several terms the
        first one starts, and the last one finishes.
        """
        batch, panels = outer_axes(self.product, self.columns)
        shared = min(self.order.tasks, self.stage_place) if self.tiling.stage else self.order.tasks
        if not self.order.in_place and not self.has_row_ranges(shared):
            shared = 0
        tasks = [self.walks[level] for level in self.order.outside[:shared]]
        nest: tuple[Axis, ...] = (batch, *tasks, panels) if self.tiling.rows_first else (batch, panels, *tasks)
        finish = (self.every_row(True, shared),) if self.is_last and not self.order.in_place else ()
        return For(nest, (*self.steps(shared), *finish), parallel=True)

    def steps(self, start: int = 0) -> Iterator[Stmt]:
        """Yield what adds up one panel of columns, for the rows that the first levels lead to."""
        if not self.order.in_place and self.is_first:
            yield self.every_row(False, start)
        yield self.walk(start)

    def walk(self, start: int = 0) -> Stmt:
        """Walk the levels outside the tile, from the given one on."""
        axes = tuple(self.walks[level] for level in self.order.outside)
        if not self.tiling.stage:
            return nest_of(axes[start:], self.tile())
        place = self.stage_place
        return nest_of(axes[start:place], self.stage(nest_of(axes[place:], self.tile())))

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
            first = all_of(call("==", Var(f"p{level}"), 0) for level in order.blocks)
            init = call("select", first, zero, before) if starts else before
            result = call("select", last, result, acc) if result != acc else acc
        return Tile(
            "acc",
            self.product.sums,
            tuple(self.width if isinstance(axis, Range) else self.sizes[axis.level] for axis in lanes),
            (
                For(lanes, (Assign(acc, init),)),
                self.update(acc),
                For(lanes, (self.where_row_exists(Assign(y, result)),)),
                *(self.cleared(self.lanes[:-1], self.row, last) if finishes else ()),
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

    def every_row(self, finish: bool, tasks: int = 0, sums: Load | None = None) -> Stmt:
        """Start the sums of the rows of a task with zero, or finish what they have come to, in Y or in `sums`."""
        lanes = self.lanes[-1:]
        y = element_at(self.product.y, self.product.y_index, {"m": COLUMN + LANE})
        acc = Load("acc", (LANE,))
        tile = Tile(
            "acc",
            self.product.sums,
            (self.width,),
            (
                For(lanes, (Assign(acc, (sums or y) if finish else self.product.zero),)),
                For(lanes, (Assign(y, self.result(acc, ROW) if finish else acc),)),
                *(self.cleared((), ROW, None) if finish else ()),
            ),
        )
        return For((self.rows_of(tasks),), (tile,))

    def rows_of(self, tasks: int) -> Range:
        """Return the rows that the first levels lead to, all of which are dense digits of the rows."""
        rows, levels = self.shape[0], self.order.outside[:tasks]
        if not levels:
            return Range("i", Const(0), Const(rows))
        count = min(self.layout.levels[level][0].divisor for level in levels)
        start = self.place(levels)
        stop = start + count if rows % count == 0 else call("min", start + count, rows)
        return Range("i", start, stop)

    def has_row_ranges(self, tasks: int) -> bool:
        """Say whether the rows that the first levels lead to follow each other: their digits are the leading ones."""
        dim = self.layout.dims[0]
        divisors = {level: digit.divisor for level, (digit, _) in enumerate(self.layout.levels) if digit.dim == dim}
        least = min((divisors.pop(level) for level in self.order.outside[:tasks]), default=0)
        return all(divisor < least for divisor in divisors.values()) and all(
            name != dim for name, _ in self.layout.orders
        )

    def place(self, levels: Sequence[int]) -> Expr:
        """Return the part of a coordinate that these levels hold."""
        return total(digit * divisor if divisor != 1 else digit for digit, divisor in self.digits(levels))

    def digits(self, levels: Sequence[int]) -> list[tuple[Expr, int]]:
        """Return where the walks of these levels stand, and the divisors of what they hold."""
        return [(Var(f"p{level}"), self.layout.levels[level][0].divisor) for level in levels]

    def result_at(self, acc: Expr, row: Expr, column: Expr) -> Expr:
        return finished(self.product, acc, row, column)

    def result(self, acc: Expr, row: Expr) -> Expr:
        return finished(self.product, acc, row, COLUMN + LANE)

    def cleared(self, rows: tuple[Axis, ...], row: Expr, last: Expr | None) -> Iterator[Stmt]:
        """Yield what sets the cleared runs of rows to the blank, beside the first or the last tile of the columns."""
        start, stop, width = self.columns
        for first, end in self.product.cleared:
            beside = start if end <= 0 else Const(_number(stop) - width)
            if beside != (Const(0) if end <= 0 else Const(_number(as_extent(self.product.columns)) - width)):
                continue  # another run of tiles has that edge
            column = COLUMN + LANE + (first - _number(beside))
            y = element_at(self.product.y, self.product.y_index, {"i": row, "m": column})
            clear: Stmt = Assign(y, self.product.cleared_value)
            if row != ROW:
                clear = self.where_row_exists(clear)
            lanes = For((*rows, lane_axis(end - first)), (clear,))
            edge = call("==", COLUMN, beside)
            yield If(edge if last is None else call("and", edge, last), (lanes,))

    def where_row_exists(self, stmt: Stmt) -> Stmt:
        """Guard a statement against the rows that fill up the last block of the layout."""
        return If(self.row_exists, (stmt,)) if self.row_exists else stmt

    def at(self, buffer: Buffer, index: tuple[Expr, ...]) -> Load:
        """Return the element of X or Y where the walks stand."""
        depth = Coordinate(self.name, self.layout.dims[1])
        return element_at(buffer, index, {"i": self.row, "k": depth, "m": COLUMN + LANE})

    # -- what the weight's layout says -----------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        assert self.weight.layout is not None
        return self.weight.layout

    @property
    def name(self) -> str:
        return self.weight.name

    @property
    def is_first(self) -> bool:
        return self.weight == self.product.terms[0]

    @property
    def is_last(self) -> bool:
        return self.weight == self.product.terms[-1]

    @cached_property
    def shape(self) -> tuple[int, int]:
        rows, depth = self.product.rows, self.product.depth
        assert isinstance(rows, int) and isinstance(depth, int)
        return rows, depth

    @property
    def width(self) -> int:
        return self.columns[2]

    @cached_property
    def staged_blocks(self) -> list[int]:
        """The levels that cut the depth into the blocks of which X is copied."""
        return [level for level in self.order.outside[: self.stage_place] if level in self.depths]

    @cached_property
    def staged(self) -> StagedPart:
        """What is copied of X: alike in all runs of tiles, so that a weight can hold offsets.

        Raises
        ------
        LayoutError : where taps are to share stretches, but a block of the depth parts those of a channel
        """
        divisors = (self.layout.levels[level][0].divisor for level in self.staged_blocks)
        depth, taps = min(divisors, default=self.layout.padded(self.shape)[1]), self.product.taps
        if self.tiling.stretch and depth % taps:
            raise LayoutError(
                f"{self.layout} parts the {taps} taps of a channel; they cannot share what is copied of X"
            )
        widest = max(width for _, _, width in self.tiling.columns)
        return StagedPart(self.product, depth, widest, self.tiling.stretch)

    @cached_property
    def order(self) -> LoopOrder:
        apart = not is_decoded(self.product, self.weight)
        return loop_order(self.layout, self.shape, self.tiling.whole_rows, self.width, apart=apart)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The extent of each level of the layout."""
        return self.layout.sizes(self.shape)

    @cached_property
    def walks(self) -> list[Walk]:
        return [Walk(f"p{level}", self.name, level) for level in range(len(self.layout.levels))]

    @cached_property
    def depths(self) -> set[int]:
        """The levels that hold digits of the depth."""
        levels = enumerate(self.layout.levels)
        return {level for level, (digit, _) in levels if digit.dim == self.layout.dims[1]}

    @cached_property
    def last_block(self) -> Expr | None:
        """The condition that no more of the depth is to come, where it is cut into blocks that meet all rows."""
        if not (self.order.in_place and self.order.blocks):
            return None
        return all_of(call("==", Var(f"p{level}"), self.sizes[level] - 1) for level in self.order.blocks)

    @cached_property
    def stage_place(self) -> int:
        """How many of the levels outside the tile cut the depth into the blocks of which X is copied.

        Raises
        ------
        LayoutError : unless these are leading digits of the depth, and all in reach of the tile are the others
        """
        order, levels = self.order, self.layout.levels
        place = max((n + 1 for n, level in enumerate(order.outside) if level in self.depths), default=0)
        outside = [level for level in order.outside if level in self.depths]
        leading = all(isinstance(levels[level][1], Dense | Diagonal) for level in outside) and all(
            levels[inner][0].divisor < levels[level][0].divisor for inner in order.inside for level in outside
        )
        ordered = any(dim == self.layout.dims[1] for dim, _ in self.layout.orders)
        if not (leading and order.inside and order.in_place) or ordered or order.beside:
            raise LayoutError(
                f"X cannot be staged for {self.layout}: the levels around its rows must be dense and hold the leading "
                "digits of the depth; store the weight depth-blocked"
            )
        return place

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


def nest_of(axes: tuple[Axis, ...], body: Stmt) -> Stmt:
    return For(axes, (body,)) if axes else body


def outer_axes(product: Product, columns: Run) -> tuple[Range, Range]:
    return Range("b", Const(0), as_extent(product.batch)), Range("m", *columns)


def finished(product: Product, acc: Expr, row: Expr, column: Expr) -> Expr:
    result = substitute(product.epilogue, {"acc": acc, "i": row, "m": column})
    if product.valid is not None:
        result = call("select", call("==", Load(product.valid.name, (column,)), 1), result, product.cleared_value)
    return result


def element_at(buffer: Buffer, index: tuple[Expr, ...], bindings: dict[str, Expr]) -> Load:
    return Load(buffer.name, tuple(substitute(part, bindings) for part in index))


def _number(value: Expr) -> int:
    assert isinstance(value, Const), "only products with a constant number of columns have cleared runs"
    return int(value.value)
