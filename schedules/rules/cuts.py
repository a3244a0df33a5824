"""Cuts: how the rows, the depth and the columns of a product are divided so that caches hold what is read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import lcm

import numpy as np

from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import FEW_SUMS, TILE_ROWS
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import Product
from sparsec.ir.staged import StagedPart, has_flat_taps, stretches
from sparsec.ir.types import stored_bits
from sparsec.schedules.rules.prices import batch, extent, has_few_columns
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target

MANY = 4  # panels for a core that are enough to split work by columns
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of the depth
LEAST = 8  # channels in a part
OFFSETS = 1 << 16  # that 16 bits hold; larger ones into what taps share would be divided out in each step
FEW_SHARE = 0.5  # of L1 that few columns may take, beside the weights that stream by


@dataclass(frozen=True)
class Panel:
    """The columns that a tile spans, `width` of them, of a product on a target."""

    product: Product
    width: int
    target: Target

    @property
    def vectors(self) -> int:
        """How many vectors of X a tile reads for each depth."""
        return self.width // self.target.lanes(self.product.sums)

    def holds(self, rows: int, weights: int = 1) -> bool:
        """Whether all sums of so many rows, the vectors of X and so many broadcast weights are in registers."""
        return (rows + 1) * self.vectors + weights <= self.target.vector_registers

    def fits_l1(self, rows: int, part: int) -> bool:
        """Whether L1 takes what a tile of so many rows reads in a part of the depth: copies of X, and weights."""
        nbytes = np.dtype(self.product.sums).itemsize * self.width + stored_bits(self.product.weight.dtype) // 8 * rows
        return nbytes * part <= self.target.l1_bytes

    @property
    def has_few_columns(self) -> bool:
        """Whether there are fewer columns than in a vector, so that vectors hold rows."""
        return has_few_columns(self.product, self.target)

    @property
    def keeps_few_columns(self) -> bool:
        """Whether L1 keeps all of X, few columns as they are, beside the weights that stream by."""
        product = self.product
        nbytes = np.dtype(product.x.dtype).itemsize * extent(product.depth) * extent(product.columns)
        return self.has_few_columns and nbytes <= FEW_SHARE * self.target.l1_bytes

    @cached_property
    def stretch(self) -> int | None:
        """How many elements loads are aligned to where fewer copies of a channel than taps are enough for that."""
        product, lanes = self.product, self.target.unit_lanes(self.product.sums)
        shared = product.pixels and has_flat_taps(product) and len(stretches(product, lanes)) < product.taps
        return lanes if shared else None

    def holds_by_rows(self, rows: int) -> bool:
        """Whether so many rows of few columns are one tile."""
        return self.vectors == 1 and rows <= max(TILE_ROWS, FEW_SUMS // extent(self.product.columns))

    def chunk_sizes(self, rows: int, r: int, parts: int) -> set[int]:
        """Return how many of the rows, a multiple of r, may be a task of their own; 0 stands for all of them.

        The sums of a chunk stay in L2 from one part of the depth to the next. Where there are few panels, there is a
        choice: with a chunk for every core none is idle, but each chunk copies X.
        """
        target = self.target
        nbytes = rows * self.width * np.dtype(self.product.sums).itemsize
        large = -(-nbytes // (target.l2_bytes // 2)) if parts > 1 else 1
        panels = max(1, extent(self.product.columns) // self.width) * batch(self.product)
        shared = target.cores if panels < MANY * target.cores else 1
        found = {max(2, -(-rows // (-(-large // wanted) * wanted) // r)) * r for wanted in (1, shared)}
        return {0 if chunk >= rows else chunk for chunk in found}


@dataclass(frozen=True)
class Cut:
    """How rows and depth are cut: chunks of rows, parts of the depth, and blocks of r rows.

    `chunk` is 0 where all rows are one, `copy` says whether a part of X is copied first, and `stretch` to how many
    elements what is copied is aligned where the taps of a channel share it.
    """

    rows: int
    depth: int
    r: int
    chunk: int
    parts: int
    part: int
    copy: bool = False
    stretch: int | None = None

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk) if self.chunk else 1


def find_cuts(
    weight: Weight,
    panel: Panel,
    r: int,
    c: int = 1,
    copies: bool = False,
    shares: bool = False,
    whole: bool = False,
    more_parts: tuple[int, ...] = (),
    ragged: bool = False,
) -> Iterator[Cut]:
    """Yield ways to cut a weight in blocks of r × c so that the sums are in registers and X stays in L1.

    Parameters
    ----------
    copies : whether to try to copy X, too
    shares : whether taps may share what is copied: where offsets into it are stored, nothing divides at run time
    whole : keep to parts that divide the depth
    more_parts : numbers of parts to try beside `PARTS`, unless L1 keeps all of few columns anyway
    ragged : whether the last block may have fewer rows
    """
    rows, depth = weight.rows, weight.depth
    if r > rows or (rows % r and not ragged) or not panel.holds(r):
        return
    ways: list[tuple[bool, int | None]] = [(False, None), *([(True, None)] if copies else [])]
    if shares and panel.stretch:
        ways.append((True, panel.stretch))
    for copy, stretch in ways:
        together = lcm(c, panel.product.taps)
        if c > 1 and together > c and not copy:
            continue  # where taps are cut, what a column reads is not at the same distance from its neighbours
        for parts in (1,) if panel.keeps_few_columns else sorted({*PARTS, *more_parts}):
            part = -(-(depth // together) // parts) * together
            fits = depth % c == 0 if parts == 1 else depth // panel.product.taps // parts >= LEAST
            fits = fits and -(-depth // part) == parts and (parts == 1 or part > c)
            fits = fits and (not stretch or StagedPart(panel.product, part, panel.width, stretch).size <= OFFSETS)
            if fits and (part * parts == depth or not whole) and (parts > 1 or not copy):
                for chunk in sorted(panel.chunk_sizes(rows, r, parts)):
                    yield Cut(rows, depth, r, chunk, parts, part if parts > 1 else depth, copy, stretch)


def in_rows(
    cut: Cut, rows: str, columns: str, c: int = 1, inside: str = "", order: str = "", block: str = "dense"
) -> Layout:
    """Return the layout of a weight that is cut, its blocks of rows in one kind of level and the columns in another.

    The columns are stored c at a time, with what is `inside` in a level of their own, and the rows of a block in one of
    the kind `block`.

    >>> str(in_rows(Cut(64, 96, 1, 0, 2, 48), "dense", "dense", 4, "structured[2]"))
    '(i, k) -> (k floordiv 48 : dense, i : dense, k floordiv 4 mod 12 : dense, k mod 4 : structured[2, 4])'
    """
    levels = [f"i floordiv {cut.chunk} : dense"] if cut.chunk else []
    if cut.parts > 1:
        levels.append(f"k floordiv {cut.part} : dense")
    by = f" floordiv {cut.r}" if cut.r > 1 else ""
    if cut.chunk != cut.r:  # where a chunk is no more than a block, it has been said which one
        levels.append(f"i{by}" + (f" mod {cut.chunk // cut.r}" if cut.chunk else "") + f" : {rows}")
    wide = f" floordiv {c}" if c > 1 else ""
    levels.append(f"k{wide}" + (f" mod {cut.part // c}" if cut.parts > 1 else "") + f" : {columns}")
    if cut.r > 1:
        levels.append(f"i mod {cut.r} : {block}")
    if c > 1:
        levels.append(f"k mod {c} : {inside}")
    return parse_layout(f"(i{f' : {order}' if order else ''}, k) -> ({', '.join(levels)})")
