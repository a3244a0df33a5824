"""What the loops of a product over one term of a packed weight have in common, however its entries are taken.

They follow the levels of its layout in their order: around a tile of sums stand those that lead to its rows, and
perhaps a copy of the part of X that it reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE, all_of, as_extent, lane_axis, total
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Load,
    Range,
    Stmt,
    Tile,
    Var,
    Walk,
    call,
    substitute,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Dense, Diagonal
from sparsec.ir.loop_order import LoopOrder
from sparsec.ir.product import COLUMN, ROW, Product, Run, Tiling


@dataclass(frozen=True)
class Term(ABC):
    """One run of tiles of columns over a packed weight, or over one term of it."""

    product: Product
    weight: Buffer
    columns: Run
    tiling: Tiling

    @property
    @abstractmethod
    def order(self) -> LoopOrder:
        """Which levels stand around a tile, and which inside it."""

    @abstractmethod
    def tile(self) -> Stmt:
        """Sum up over the levels inside the tile, and finish what is summed up."""

    @abstractmethod
    def stage(self, body: Stmt) -> Stmt:
        """Copy what one block of the depth reads of X, for the body."""

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

    def every_row(self, finish: bool, tasks: int = 0, sums: Load | None = None) -> Stmt:
        """Start the sums of the rows of a task with zero, or finish what they have come to, in Y or in `sums`."""
        lanes = (lane_axis(self.width),)
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

    def cleared(
        self, rows: tuple[Axis, ...], row: Expr, last: Expr | None, exists: Expr | None = None
    ) -> Iterator[Stmt]:
        """Yield what sets the cleared runs of rows to the blank, beside the first or the last tile of the columns.

        Where not all rows exist, `exists` is the condition that one does.
        """
        start, stop, width = self.columns
        for first, end in self.product.cleared:
            beside = start if end <= 0 else Const(_number(stop) - width)
            if beside != (Const(0) if end <= 0 else Const(_number(as_extent(self.product.columns)) - width)):
                continue  # another run of tiles has that edge
            column = COLUMN + LANE + (first - _number(beside))
            y = element_at(self.product.y, self.product.y_index, {"i": row, "m": column})
            clear: Stmt = Assign(y, self.product.cleared_value)
            if exists:
                clear = If(exists, (clear,))
            lanes = For((*rows, lane_axis(end - first)), (clear,))
            edge = call("==", COLUMN, beside)
            yield If(edge if last is None else call("and", edge, last), (lanes,))

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
    def part(self) -> int:
        """Depths in such a block."""
        divisors = (self.layout.levels[level][0].divisor for level in self.staged_blocks)
        return min(divisors, default=self.layout.padded(self.shape)[1])

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

    @property
    def first_block(self) -> Expr:
        """The condition that nothing of the depth came before, where it is cut into blocks."""
        return all_of(call("==", Var(f"p{level}"), 0) for level in self.order.blocks)

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


def nest_of(axes: tuple[Axis, ...], body: Stmt) -> Stmt:
    return For(axes, (body,)) if axes else body


def outer_axes(product: Product, columns: Run) -> tuple[Range, Range]:
    batch = as_extent(product.batch)
    return Range("b", Const(0), batch * product.tiles if product.tiles > 1 else batch), Range("m", *columns)


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
