"""The loops of a product with a weight of N:M zeros, for instructions that take the coordinates of what is stored.

A tile of rows meets a run of depths of X, all of which are staged, and the level that chooses among them is walked
inside of the update:

    tile part: int8[2, 16, 64]:
        for p1 in W[1]:
            for v in range(0, 16), l in range(0, 64):
                part[p1, v, l] = X[(p1 * 64 + l) * 16 + v]
        …
            for p1 in W[1]:
                for p2 in W[2], v in range(0, 16), p3 in W[3], p4 in W[4]:
                    acc[p2 // 16, v // 8, p2 % 16, v % 8] += W * part[p1, v, p3 * 4 + p4]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE
from sparsec.ir.dots import DEPTH_LANE, DottedTerm
from sparsec.ir.kernel import Assign, Const, Expr, For, Load, Range, Stmt, Stored, Tile
from sparsec.ir.levels import Dense
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.term import nest_of


@dataclass(frozen=True)
class StructuredDottedTerm(DottedTerm):
    """One run of tiles of columns over a weight whose last level is structured, under a dense digit of the depth."""

    def update(self, acc: Load) -> Stmt:
        """Add the products of what is stored of one run of depths to all sums of the tile."""
        walks = tuple(self.walks[level] for level in self.outer)
        x = Load("part", (self.staged_place, LANE, self.mixed(self.group)))
        lanes = (*self.lanes, *(self.walks[level] for level in self.group))
        return nest_of(walks, For(lanes, (Assign(acc, Stored(self.name) * x, accumulate=True),)))

    def stage(self, body: Stmt) -> Stmt:
        """Bring the depths of each run side by side, `[runs of depths, width, depths]`, for the body."""
        lanes = (self.lanes[-1], Range(DEPTH_LANE.name, Const(0), Const(self.depths_at_once)))
        part = Load("part", (self.staged_place, LANE, DEPTH_LANE))
        walks = tuple(self.walks[level] for level in self.outer)
        fill = nest_of(walks, For(lanes, (Assign(part, self.x_at_place),)))
        return Tile("part", self.product.x.dtype, (self.staged_runs, self.width, self.depths_at_once), (fill, body))

    # -- what the weight's layout says -----------------------------------------------------------------------------

    @cached_property
    def order(self) -> LoopOrder:
        """The loops of a structured level are as constant as those of a dense one."""
        dense = replace(self.layout, levels=tuple((digit, Dense()) for digit, _ in self.layout.levels))
        return loop_order(dense, self.shape, self.tiling.whole_rows, self.width)

    @cached_property
    def group(self) -> tuple[int, ...]:
        """The levels of the depth that are taken at once: a digit, and what is stored of it.

        Raises
        ------
        LayoutError : where these are no digits that follow each other, or X cannot be staged for them
        """
        digits, group = [digit for digit, _ in self.layout.levels], self.order.inside[-2:]
        *dense, _ = (level for _, level in self.layout.levels)
        adjacent = len(group) == 2 and digits[group[0]].divisor == digits[group[1]].divisor * self.sizes[group[1]]
        ordered = any(dim == self.layout.dims[1] for dim, _ in self.layout.orders)
        if not adjacent or ordered or not self.tiling.stage or not all(isinstance(level, Dense) for level in dense):
            raise LayoutError(
                f"products with {self.layout} cannot take several groups of depths at once; stage X, and store the "
                "depth in dense digits and a last one that is structured, as in k floordiv 4 mod 16 : dense, "
                "k mod 4 : structured[2, 4]"
            )
        return group

    @property
    def outer(self) -> tuple[int, ...]:
        return self.order.inside[: -len(self.group)]

    @property
    def depths_at_once(self) -> int:
        return prod(self.sizes[level] for level in self.group)

    @property
    def depth(self) -> Expr:
        divisor = self.layout.levels[self.group[-1]][0].divisor
        lane = DEPTH_LANE * divisor if divisor != 1 else DEPTH_LANE
        return self.place(self.outer) + lane if self.outer else lane
