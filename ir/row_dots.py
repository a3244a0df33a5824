"""The loops of a product whose vectors of sums are rows of the weight, several depths at once.

A panel of pixels is interleaved once. For each block of rows, tiles of a few pixels meet vectors of weights, and leave
their sums in a buffer `turned`, whose rows are pixels. From there they are transposed, to be finished as vectors of
pixels like those of any other product. So no lane is lost on what stands between the rows of an image or behind them.

    tile part: uint8[264, 64, 4]:
        …
        for p0 in W[0]:
            tile turned: int32[64, 64]:
                for n in range(0, 49, 7):
                    tile acc: int32[7, 64]:
                        …
                        for p1 in W[1]:
                            for u in range(0, 7), p2 in W[2], l in W[3]:
                                acc[u, p2] += W * part[p1, n + u, l]
                        …
                for r0 in range(0, 64, 16), n in range(0, 48, 16):
                    tile sums: int32[16, 16]:
                        for r in range(0, 16), v in range(0, 16):
                            sums[r, v] = turned[n + v, r0 + r]
                        …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsec.ir.builders import LANE, lane_axis
from sparsec.ir.dots import DEPTH_LANE, DottedTerm
from sparsec.ir.gather import evaluate
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Const,
    Coordinate,
    Expr,
    For,
    Load,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    call,
    substitute,
)
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.product import COLUMN
from sparsec.ir.term import element_at, nest_of

MOST_ROWS = 128
PIXEL, TILE, ROW_BLOCK, ROW_LANE, LINE = Var("u"), Var("n"), Var("r0"), Var("r"), Var("y")


@dataclass(frozen=True)
class RowDottedTerm(DottedTerm):
    """One run of panels of pixels over a dense weight."""

    def tile(self) -> Stmt:
        """Compute a block of rows for all pixels of the panel."""
        rows = self.rows_of_tile
        body = (*(self.pixels(*run) for run in self.runs), *self.finished())
        return Tile("turned", self.product.sums, (self.padded_places, rows), body)

    def pixels(self, start: int, stop: int, count: int) -> Stmt:
        """Sum tiles of so many pixels over the whole depth."""
        acc = Load("acc", (PIXEL, Var(self.row_walk.var)))
        pixel = Range(PIXEL.name, Const(0), Const(count))
        lanes = (pixel, self.row_walk)
        x = Load("part", (self.staged_place, TILE + PIXEL, DEPTH_LANE))
        walks = tuple(self.walks[level] for level in self.outer)
        step = For((*lanes, self.depth_lane), (Assign(acc, Stored(self.name) * x, accumulate=True),))
        turned = Load("turned", (TILE + PIXEL, Var(self.row_walk.var)))
        body = (
            For(lanes, (Assign(acc, self.product.zero),)),
            nest_of(walks, step),
            For(lanes, (Assign(turned, acc),)),
        )
        tile = Tile("acc", self.product.sums, (count, self.rows_of_tile), body)
        return For((Range(TILE.name, Const(start), Const(stop), count),), (tile,))

    def finished(self) -> Iterator[Stmt]:
        """Yield what transposes sums and stores results, vectors of pixels at a time."""
        block = Range(ROW_BLOCK.name, Const(0), Const(self.rows_of_tile), self.dots.columns)
        row = Range(ROW_LANE.name, Const(0), Const(self.dots.columns))
        for first, stop, count in _runs(self.finished_line, self.dots.columns):
            place: Expr = TILE + LANE
            column: Expr = COLUMN + (TILE + LANE)
            axes: tuple[Axis, ...] = (block, Range(TILE.name, Const(first), Const(stop), count))
            if self.lines > 1:
                axes = (block, Range(LINE.name, Const(0), Const(self.lines)), axes[1])
                place, column = LINE * self.line + place, COLUMN + (LINE * self.pitch + (TILE + LANE))
            sums = Load("sums", (ROW_LANE, LANE))
            turned = Load("turned", (place, ROW_BLOCK + ROW_LANE))
            y = element_at(self.product.y, self.product.y_index, {"i": self.tile_row, "m": column})
            result = self.result_at(sums, self.tile_row, column)
            body = (
                For((row, lane_axis(self.dots.columns)), (Assign(sums, turned),)),
                For((row, lane_axis(count)), (self.where_row_exists(Assign(y, result)),)),
            )
            shape = self.dots.columns, self.dots.columns
            yield For(axes, (Tile("sums", self.product.sums, shape, body),))
        yield from self.cleared((block, row), self.tile_row, None, self.row_exists)

    def stage(self, body: Stmt) -> Stmt:
        """Interleave the pixels of the panel, line by line; what is read behind the end of a line is written over."""
        walks: tuple[Axis, ...] = self.staged_walks
        line: Expr = Const(0)
        column: Expr = COLUMN
        if self.lines > 1:
            walks = (*walks, Range(LINE.name, Const(0), Const(self.lines)))
            line, column = LINE * self.line, COLUMN + LINE * self.pitch
        fills = []
        for first, count in self.vectors_of_line:
            place = LANE + first if first else LANE
            part = Load("part", (self.staged_place, line + place if self.lines > 1 else place, DEPTH_LANE))
            fills.append(For((lane_axis(count), self.depth_lane), (Assign(part, self.x_at(column + place)),)))
        shape = self.staged_runs, self.padded_places, self.depths_at_once
        return Tile("part", self.lane_dtype, shape, (For(walks, tuple(fills)), body))

    # -- places of pixels ------------------------------------------------------------------------------------------

    @cached_property
    def order(self) -> LoopOrder:
        return loop_order(self.layout, self.shape, self.tiling.whole_rows, tile_rows=MOST_ROWS)

    @property
    def row_walk(self) -> Walk:
        """The axis over the rows of a tile."""
        (level,) = self.order.lanes
        return self.walks[level]

    @property
    def tile_row(self) -> Expr:
        """The row that belongs to a place of a block of rows that is finished."""
        rows = [level for level in self.order.outside if level not in self.depths]
        return self.place(rows) + (ROW_BLOCK + ROW_LANE) if rows else ROW_BLOCK + ROW_LANE

    @property
    def pitch(self) -> int:
        """Columns from one line of pixels to the next."""
        return self.image[2] if self.lines > 1 else self.width

    @property
    def image(self) -> tuple[int, int, int]:
        """Lines, width and pitch of the image that the columns are, or of one line where they are none."""
        return self.product.pixels or (1, self.width, self.width)

    @property
    def lines(self) -> int:
        """How many lines of pixels a panel holds apart, so that nothing stands between them; 1 for all in one."""
        count, width, pitch = self.image
        start, stop, _ = self.columns
        if self.product.valid is not None or width == pitch:
            return 1
        if not isinstance(start, Const) or not isinstance(stop, Const):
            return 1
        lines, last = count, (count - 1) * pitch
        if self.width != self.product.columns:
            lines, last = self.width // pitch, int(stop.value) - pitch
            if self.width % pitch or int(start.value) % pitch:
                return 1
        return lines if width >= self.dots.columns or self.has_room(last) else 1

    @property
    def line(self) -> int:
        """Pixels in a line."""
        if self.lines > 1:
            return self.image[1]
        start, stop, width = self.columns
        if not self.product.pixels or not isinstance(start, Const) or not isinstance(stop, Const):
            return width
        count, wide, pitch = self.image
        end = (count - 1) * pitch + wide  # of the last line
        single = stop.value - start.value == width
        return max(1, min(width, end - int(start.value))) if single else width

    @property
    def vectors_of_line(self) -> list[tuple[int, int]]:
        """The runs of whole vectors, (first pixel, pixels), that cover a line; the last one may overlap, or overrun."""
        columns, line = self.dots.columns, self.line
        if line >= columns:
            whole = line // columns * columns
            return [(0, whole)] + ([(line - columns, columns)] if whole < line else [])
        return [(0, columns if self.lines > 1 else line)]

    def has_room(self, last: int) -> bool:
        """Whether X goes on for a whole vector from the start of the last line."""
        indices = {"k": Coordinate(self.name, "k"), "m": Const(last + self.dots.columns - 1), "b": Const(0)}
        index = evaluate(substitute(self.product.x_index[-1], indices), {f"{self.name}.k": np.arange(self.shape[1])})
        extent = self.product.x.shape[-1]
        return isinstance(extent, int) and int(index.max()) < extent

    @property
    def finished_line(self) -> int:
        """Columns of a line that are written: where some are blank, all."""
        return self.width if self.product.valid is not None else self.line

    @property
    def padded_places(self) -> int:
        """Places of a panel: all pixels, and the rest of the last vector."""
        columns = self.dots.columns
        return (self.lines - 1) * self.line + -(-self.finished_line // columns) * columns

    @property
    def runs(self) -> Iterator[tuple[int, int, int]]:
        """The tiles of pixels."""
        return _runs(self.lines * self.line, self.dots.pixels)

    @cached_property
    def row_exists(self) -> Expr | None:
        return call("<", self.tile_row, self.shape[0]) if self.shape[0] % self.rows_of_tile else None


def _runs(extent: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield whole tiles, and one for what is left over."""
    whole = extent // size * size
    if whole:
        yield 0, whole, size
    if whole < extent:
        yield whole, extent, extent - whole
