"""Products: the one operator that every layer with weights comes down to.

    Y[y(b, i, m)] = epilogue(Σ_k W[i, k] · X[x(b, k, m)])

A linear layer reads `X[b, k * columns + m]`. A convolution over padded images reads the pixel of its tap, `k` being
`(c, r, s)` and `m` running over all pixels of an image, and a grouped or depthwise one is the same with a
block-diagonal `W`. An attention product has an activation as `W`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsec.ir.builders import zero
from sparsec.ir.kernel import Buffer, Const, Expr, Var, rename
from sparsec.ir.layout import Layout
from sparsec.ir.sums import Sum
from sparsec.ir.types import arithmetic, is_float, sums

BATCH, ROW, DEPTH, COLUMN, SUM = Var("b"), Var("i"), Var("k"), Var("m"), Var("acc")


@dataclass(frozen=True)
class Product:
    """A product of a matrix with the columns of an activation, and what is done to each result.

    Expressions are over `b` (batch), `i` (row), `k` (depth), `m` (column) and, in the epilogue, `acc` (the sum).

    Parameters
    ----------
    weight : `[rows, depth]`, packed in a layout, or an activation of any shape
    residue : further terms of a weight that is stored as a sum of layouts
    x_index, y_index : where `X[k, m]` and `Y[i, m]` are; a sum with `m` alone in the last dimension, so that tiles of
        columns are vectors
    batch, rows, depth, columns : extents; `b` runs over `tiles` products for each of the batch
    weight_index : for an activation, where `W[i, k]` is
    operands : what the epilogue reads
    epilogue : the result, over `acc` and loads from `operands`
    valid : int32 `[columns]`, 0 where the result is replaced by `blank`
    cleared : (first, end) of flat runs in every row of Y, relative to its column 0, that are set to `blank`
    blank : what Y holds where it is cleared, and where `valid` is 0: the zero point of quantised numbers
    rounded : whether products of half precision may be added up as an instruction does, which rounds in between
    values : `[batch, stored]`, what a weight of constant pattern holds, where that is made at run time
    scales : `[groups, rows]`, what stored integers are multiplied by
    group : how many consecutive depths share a scale
    pixels : rows, width and pitch of the image that the columns are, where they are one
    taps : how many consecutive depths read the same stretch of X, shifted by at most `span` elements
    groups : of rows and of depths, outside of which a constant weight is zero: its blocks lie along a diagonal
    reads : over `b` and `k`, whether there is a row of X; what is not there adds nothing
    writes : over `b` and `i`, whether there is a row of Y
    """

    name: str
    weight: Buffer
    x: Buffer
    y: Buffer
    x_index: tuple[Expr, ...]
    y_index: tuple[Expr, ...]
    batch: int | str
    rows: int | str
    depth: int | str
    columns: int | str
    weight_index: tuple[Expr, ...] = ()
    operands: tuple[Buffer, ...] = ()
    epilogue: Expr = SUM
    valid: Buffer | None = None
    cleared: tuple[tuple[int, int], ...] = ()
    blank: int = 0
    pixels: tuple[int, int, int] | None = None
    taps: int = 1
    span: int = 0
    residue: tuple[Buffer, ...] = ()
    values: Buffer | None = None
    scales: Buffer | None = None
    group: int = 0
    rounded: bool = False
    tiles: int = 1
    groups: int = 1
    reads: Expr | None = None
    writes: Expr | None = None

    @property
    def sums(self) -> str:
        """The type in which products are added up: int32 for integers; half precision is for storage only."""
        return sums(self.x.dtype)

    @property
    def zero(self) -> Const:
        """What sums start with."""
        return zero(self.sums)

    @property
    def cleared_value(self) -> Const:
        """What is written to Y where no result is."""
        return Const(float(self.blank) if is_float(arithmetic(self.y.dtype)) else self.blank)

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        """What the kernel reads, in the order of its parameters."""
        values, scales, valid = (
            () if buffer is None else (buffer,) for buffer in (self.values, self.scales, self.valid)
        )
        return (*self.terms, *values, *scales, self.x, *self.operands, *valid)

    @property
    def terms(self) -> tuple[Buffer, ...]:
        """The weight, as one buffer for each term of its layout."""
        return (self.weight, *self.residue)

    @property
    def layout(self) -> Layout | Sum | None:
        """How the weight is stored; None for an activation."""
        layouts = tuple(term.layout for term in self.terms if term.layout is not None)
        return Sum(layouts) if len(layouts) > 1 else self.weight.layout

    def stored_as(self, layout: Layout | Sum | None, dtype: str = "") -> Product:
        """Return the product with its weight in a layout, and in another type if one is given."""
        if dtype:
            return replace(self, weight=replace(self.weight, dtype=dtype)).stored_as(layout)
        if not isinstance(layout, Sum):
            return replace(self, weight=replace(self.weight, layout=layout), residue=())
        names = [self.weight.name, *(f"{self.weight.name}{n}" for n in range(1, len(layout.terms)))]
        terms = [replace(self.weight, name=name, layout=term) for name, term in zip(names, layout.terms, strict=True)]
        return replace(self, weight=terms[0], residue=tuple(terms[1:]))

    def renamed(self, names: Mapping[str, str]) -> Product:
        """Return the product of activations with other names for its buffers, where they are given."""

        def renamed(buffer: Buffer) -> Buffer:
            return replace(buffer, name=names.get(buffer.name, buffer.name))

        return replace(
            self,
            weight=renamed(self.weight),
            x=renamed(self.x),
            y=renamed(self.y),
            operands=tuple(map(renamed, self.operands)),
            epilogue=rename(self.epilogue, names),
        )

    def parts(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """Return what each term holds of the constant weight [rows, depth], by name."""
        if not isinstance(self.layout, Sum):
            return {self.weight.name: matrix}
        kept = self.layout.split(matrix != 0)
        return {
            term.name: np.where(part, matrix, matrix.dtype.type(0)) for term, part in zip(self.terms, kept, strict=True)
        }


Run = tuple[Expr, Expr, int]  # from, to, step: the equal tiles of one size along an axis


@dataclass(frozen=True)
class Dots:
    """How the sums of a tile are arranged for instructions that add up products of several depths at once.

    The depths are the last level of the weight that a tile walks: a run of stored columns, or a dense digit.

    Parameters
    ----------
    rows, columns : of the blocks in which sums lie together; of one row where each row of a tile lies by itself
    vector : bytes of the vectors that rows of X are interleaved in; see `ir/interleaved.py`
    pixels : in a tile whose vectors of sums are rows of the weight; 0 where they are columns
    run : depths in the weight's last level where an instruction takes those of the level before it as well, and
        registers of tiles hold sums; else 0
    """

    rows: int
    columns: int
    vector: int
    pixels: int = 0
    run: int = 0


@dataclass(frozen=True)
class Tiling:
    """How a product is cut for registers and threads; ragged edges are runs of smaller tiles.

    Parameters
    ----------
    columns : runs of tiles along the columns
    rows : for an activation weight, runs of tiles along the rows; a packed one has what its last dense levels hold
    stage : copy the part of X that a depth block reads into a buffer of its own first, so that it fills L1 evenly
    rows_first : run all columns of a chunk or block of a packed weight's rows before the next one
    whole_rows : finish the sums of a row before the next row where its layout would cut the depth between them
    skip_zeros : pass over the weights that meet a vector of X that is zero
    dots : take several depths at once
    stretch : where X is staged, elements that loads are aligned to, for stretches that taps of a channel share; None
        for a row for each tap
    spelled : lanes of the panels for which code spells out the entries; see `ir/spelled_term.py`. None where loops walk
        them
    """

    columns: tuple[Run, ...]
    rows: tuple[Run, ...] = ()
    stage: bool = False
    rows_first: bool = False
    whole_rows: bool = False
    skip_zeros: bool = False
    dots: Dots | None = None
    stretch: int | None = None
    spelled: int | None = None
