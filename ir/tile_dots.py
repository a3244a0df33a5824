"""The loops of a product whose sums a unit of tiles adds up, over a dense weight.

A tile of X has rows of interleaved depths, as vectors of dots have, and one of the weight its rows, with all the depths
that an instruction takes. All loops over the depth are part of the nest, so that tiles of sums stay in registers.

    tile part: uint8[192, 64, 4]:
        …
        for p0 in W[0]:
            tile acc: int32[32, 64]:
                …
                for p1 in W[1], p2 in W[2], v in range(0, 64), p3 in W[3], l in W[4]:
                    acc[p2, v] += W * part[p1 * 16 + p3, v, l]
                for p2 in W[2]:
                    tile sums: int32[64]:
                        …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE
from sparsec.ir.dots import DEPTH_LANE, DottedTerm
from sparsec.ir.kernel import Assign, For, Load, Stmt, Stored, Tile
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.term import nest_of

MOST_ROWS = 64


@dataclass(frozen=True)
class TileDottedTerm(DottedTerm):
    """One run of panels of columns over a dense weight, many depths at once."""

    def update(self, acc: Load) -> Stmt:
        """Add all products of the tile.

        Raises
        ------
        LayoutError : where X is not staged, or the weight's last levels are no rows, runs of depths and depths
        """
        if not self.tiling.stage or len(self.outer) < 2 or self.in_runs or self.depths_at_once != self.dots.run:
            raise LayoutError(
                f"tiles of sums take X staged, and weights in rows of runs of depths, such as i mod 32 : dense, "
                f"k floordiv 4 mod 16 : dense, k mod 4 : dense; not {self.layout}"
            )
        *outer, run = (self.walks[level] for level in self.outer)
        x = Load("part", (self.staged_place, LANE, DEPTH_LANE))
        axes = (*outer, *self.lanes, run, self.depth_lane)
        return For(axes, (Assign(acc, Stored(self.name) * x, accumulate=True),))

    def finish(self, acc: Load) -> Iterator[Stmt]:
        """Yield what finishes the sums row by row, since they are in memory, and not in registers of vectors."""
        *rows, columns = self.lanes
        sums, in_order = Load("sums", (LANE,)), self.sum_at(self.straight(LANE))
        if in_order == acc:
            yield nest_of(tuple(rows), self.stored(acc, (columns,)))
        else:
            body = For((columns,), (Assign(sums, in_order),)), self.stored(sums, (columns,))
            yield nest_of(tuple(rows), Tile(sums.buffer, self.product.sums, (self.width,), body))
        yield from self.cleared(tuple(rows), self.row, None, self.row_exists)

    @cached_property
    def order(self) -> LoopOrder:
        return loop_order(self.layout, self.shape, self.tiling.whole_rows, tile_rows=MOST_ROWS)
