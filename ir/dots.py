"""The loops of a product that takes several depths at once, for instructions that add up dot products.

The depths are the lanes of a run of stored columns, or a dense digit of the depth. The rows of X that they lead to are
interleaved, so that the depths of one column stand side by side, and sums are taken in the order of columns that this
gives. Where X is staged, it is interleaved once for all rows of the weight, else for each run. Where the weight is
stored in a wider type than X, X is widened to that on the way, for instructions that take no narrower one.

    tile acc: int32[4, 64]:
        …
        for p1 in W[1] runs:
            tile quad: uint8[64, 4]:
                for v in range(0, 64), l in W[1] run:
                    quad[v, l] = X[W.k * 128 + m + v % 16 // 4 * 16 + v // 16 * 4 + v % 4]
                for p2 in W[2], v in range(0, 64), l in W[1] run:
                    acc[p2, v] += W * quad[v, l]
        tile sums: int32[4, 64]:
            for p2 in W[2], v in range(0, 64):
                sums[p2, v] = acc[p2, v % 16 // 4 * 16 + v // 16 * 4 + v % 4]
            …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE
from sparsec.ir.interleaved import interleaved, straight
from sparsec.ir.kernel import Assign, Axis, Const, Coordinate, Expr, For, Load, Stmt, Stored, Tile, Var, Walk, call
from sparsec.ir.levels import Dense
from sparsec.ir.packed_term import PackedTerm
from sparsec.ir.product import COLUMN, Dots
from sparsec.ir.term import element_at, nest_of

DEPTH_LANE = Var("l")
"""The place among depths that are taken at once."""


@dataclass(frozen=True)
class DottedTerm(PackedTerm):
    """One run of tiles of columns over one term of a packed weight, several depths at once."""

    def tile(self) -> Stmt:
        """Sum in registers over the levels inside the tile."""
        if not self.order.in_place or self.order.blocks:
            raise LayoutError(
                f"products with {self.layout} cannot take several depths at once: the levels around its rows must be "
                "dense or bucketed rows; store the weight by rows, with the whole depth inside"
            )
        rows, dots = self.lanes[:-1], self.dots
        acc = self.sum_at(LANE)
        shape = (*(size for size in (self.rows_of_tile // dots.rows,) if rows), self.width)
        if dots.rows > 1:
            shape = self.rows_of_tile // dots.rows, self.width // dots.columns, dots.rows, dots.columns
        start = For(self.lanes, (Assign(acc, self.product.zero),))
        return Tile("acc", self.product.sums, shape, (start, self.update(acc), *self.finish(acc)))

    def finish(self, acc: Load) -> Iterator[Stmt]:
        """Yield what puts the sums in the order of their columns, if they are in another, and stores the results."""
        rows = self.lanes[:-1]
        sizes = *(self.sizes[level] for level in self.order.lanes), self.width
        in_order = self.sum_at(self.straight(LANE))
        if in_order == acc and self.dots.rows == 1:
            yield self.stored(acc, self.lanes)
            yield from self.cleared(rows, self.row, None, self.row_exists)
            return
        sums = Load("sums", (*(Var(axis.var) for axis in rows), LANE))
        order = For(self.lanes, (Assign(sums, in_order),))
        edges = self.cleared(rows, self.row, None, self.row_exists)
        yield Tile("sums", self.product.sums, sizes, (order, self.stored(sums, self.lanes), *edges))

    def stored(self, sums: Load, lanes: Sequence[Axis]) -> For:
        """Return what stores the results of sums."""
        y = self.at(self.product.y, self.product.y_index)
        return For(tuple(lanes), (self.where_row_exists(Assign(y, self.result(sums, self.row))),))

    def update(self, acc: Load) -> Stmt:
        """Add the products of one run of depths to all sums of the tile."""
        outer = tuple(self.walks[level] for level in self.outer)
        if self.in_runs:
            outer = (*outer, replace(self.walks[self.depth_level], part="runs"))
        lanes = (*self.lanes, self.depth_lane)
        if self.tiling.stage:
            x = Load("part", (self.staged_place, LANE, DEPTH_LANE))
            return nest_of(outer, For(lanes, (Assign(acc, Stored(self.name) * x, accumulate=True),)))
        quad = Load("quad", (LANE, DEPTH_LANE))
        body = (
            For((self.lanes[-1], self.depth_lane), (Assign(quad, self.x_at_place),)),
            For(lanes, (Assign(acc, Stored(self.name) * quad, accumulate=True),)),
        )
        return nest_of(outer, Tile("quad", self.lane_dtype, (self.width, self.depths_at_once), body))

    def stage(self, body: Stmt) -> Stmt:
        """Interleave all rows of X, `[runs of depths, width, depths]`, for the body."""
        part = Load("part", (self.staged_place, LANE, DEPTH_LANE))
        fill = nest_of(self.staged_walks, For((self.lanes[-1], self.depth_lane), (Assign(part, self.x_at_place),)))
        shape = self.staged_runs, self.width, self.depths_at_once
        return Tile("part", self.lane_dtype, shape, (fill, body))

    @property
    def staged_walks(self) -> tuple[Walk, ...]:
        """The axes over the runs of depths that are staged.

        Raises
        ------
        LayoutError : where these are not known before the rows
        """
        if self.in_runs or self.stage_place:
            raise LayoutError(f"X cannot be staged for {self.layout}, whose depths are not dense digits of whole rows")
        return tuple(self.walks[level] for level in self.outer)

    @property
    def staged_runs(self) -> int:
        """How many runs of depths are staged."""
        return prod(self.sizes[level] for level in self.outer)

    # -- what the weight's layout says -----------------------------------------------------------------------------

    @property
    def dots(self) -> Dots:
        assert self.tiling.dots is not None
        return self.tiling.dots

    @cached_property
    def depth_level(self) -> int:
        """The level whose coordinates are taken at once.

        Raises
        ------
        LayoutError : where the layout has none
        """
        place = self.order.inside[-1] if self.order.inside else -1
        level = self.layout.levels[place][1]
        if place < 0 or not (level.together > 1 or isinstance(level, Dense)):
            raise LayoutError(
                f"products with {self.layout} take one depth at a time; store the depth in runs, as in "
                "k : compressed[4], or in a dense digit, as in k mod 4 : dense"
            )
        return place

    @property
    def outer(self) -> tuple[int, ...]:
        """The levels inside the tile that lead to what is taken at once."""
        return self.order.inside[:-1]

    @property
    def in_runs(self) -> bool:
        """Whether the depths are a run of stored columns."""
        return self.layout.levels[self.depth_level][1].together > 1

    @property
    def depths_at_once(self) -> int:
        if self.in_runs:
            return self.layout.together
        return self.sizes[self.depth_level]

    @property
    def depth_lane(self) -> Walk:
        """The axis over the depths that are taken at once."""
        return Walk(DEPTH_LANE.name, self.name, self.depth_level, part="run" if self.in_runs else "")

    @property
    def staged_place(self) -> Expr:
        """Which run of depths the levels inside the tile lead to, where all are dense."""
        return self.mixed(self.outer)

    @property
    def x_at_place(self) -> Load:
        """The element of X that belongs to a place of interleaved columns, at the depth where the walks stand."""
        return self.x_at(COLUMN + interleaved(LANE, self.spread, *self.vectors))

    def x_at(self, column: Expr) -> Load:
        """The element of X in a column, at the depth where the walks stand."""
        padded = self.layout.padded(self.shape)[1]
        depth = self.depth
        if padded > self.shape[1]:  # where the weight is zero
            depth = call("min", depth, self.shape[1] - 1)
        return element_at(self.product.x, self.product.x_index, {"k": depth, "m": column})

    @property
    def depth(self) -> Expr:
        """The depth where the walks stand."""
        return Coordinate(self.name, self.layout.dims[1])

    @property
    def lane_dtype(self) -> str:
        """The type of X where its depths stand side by side."""
        x, weight = self.product.x.dtype, self.weight.dtype
        return max(x, weight, key=lambda dtype: np.dtype(dtype).itemsize)

    @property
    def spread(self) -> int:
        """How many vectors of interleaved X a vector of a row of X comes to."""
        return self.depths_at_once * np.dtype(self.lane_dtype).itemsize // np.dtype(self.product.x.dtype).itemsize

    @property
    def vectors(self) -> tuple[int, int, int]:
        """How many columns are in the vectors that are interleaved, the bytes of one, and how many vectors there are.

        Those of a narrow tile are narrower.
        """
        itemsize = np.dtype(self.product.x.dtype).itemsize
        columns = min(self.dots.vector // itemsize, self.width)
        return columns, itemsize, self.width // columns

    def straight(self, column: Expr) -> Expr:
        """Return the place of a column among the sums."""
        return straight(column, self.spread, *self.vectors)

    @property
    def rows_of_tile(self) -> int:
        return prod(self.sizes[level] for level in self.order.lanes)

    def sum_at(self, place: Expr) -> Load:
        """Return the sum of a row of the tile at a place."""
        rows, columns = self.dots.rows, self.dots.columns
        if not self.order.lanes:
            return Load("acc", (place,))
        row = self.mixed(self.order.lanes)
        return Load("acc", (row // rows, place // columns, row % rows, place % columns) if rows > 1 else (row, place))

    def mixed(self, levels: Sequence[int]) -> Expr:
        """Return the number that the coordinates of these levels make, the last one counting fastest."""
        total: Expr = Const(0)
        for level in levels:
            size = self.sizes[level]
            total = Var(f"p{level}") if total == Const(0) else total * size + Var(f"p{level}")
        return total
