"""Products of integers of few bits, made of one-bit steps.

    Y[b, i, m] = epilogue(Σ_k W[i, k] · X[b, k, m])

Bit p of a weight and bit q of an activation meet in `&`, 32 numbers at a time, and what `popcount` finds of a pair of
planes counts what both bits weigh, 2^(p + q) of unsigned numbers (APNN-TC, Feng et al., SC'21, section 3). Where both
are −1 and 1, a step is `^` instead, which counts the places at which they differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from sparsec.errors import LayoutError
from sparsec.ir.bit_planes import BINARY, Encoding
from sparsec.ir.builders import LANE, as_extent, is_inside, lane_axis
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Kernel,
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
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Dense
from sparsec.ir.loop_order import LoopOrder, loop_order
from sparsec.ir.product import BATCH, COLUMN, SUM, Run


@dataclass(frozen=True)
class LowBitProduct:
    """A product of bit planes.

    Parameters
    ----------
    weight : int32 `[rows, words · bits]`, what `pack_words` makes, in a layout whose rows are known before its words;
        of several bits, its last digit of the depth is dense and holds the planes of a word
    x : int32 `[batch, bits, words, columns]`, what the kernel of `BitPlanes` makes
    y : `[batch, rows, columns]`
    weight_encoding, encoding : of the weights, and of the activations
    depth : how many numbers the words hold
    offset : int32 `[rows]`, taken from the sums of each row
    total : int32 `[batch, columns]`, for weights with a zero point; they are multiplied by it and taken from the sums
    operands : what the epilogue reads
    epilogue : the result, over `acc`, `i` and loads from `operands`
    """

    name: str
    weight: Buffer
    x: Buffer
    y: Buffer
    weight_encoding: Encoding
    encoding: Encoding
    depth: int
    offset: Buffer | None = None
    total: Buffer | None = None
    operands: tuple[Buffer, ...] = ()
    epilogue: Expr = SUM

    @property
    def layout(self) -> Layout:
        assert self.weight.layout is not None
        return self.weight.layout

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and words times bits."""
        rows, words = self.weight.extents
        return rows, words

    def stored_as(self, layout: Layout) -> LowBitProduct:
        """Return the product with its weight in a layout."""
        return replace(self, weight=replace(self.weight, layout=layout))

    @property
    def counts(self) -> tuple[int, ...]:
        """What the sums of a result count for, by their magnitude: one for each that pairs of planes can have."""
        pairs = product(self.weight_encoding.weights, self.encoding.weights)
        return tuple(sorted({abs(a * b) for a, b in pairs}))

    @property
    def differs(self) -> bool:
        """Whether a step counts the places that differ."""
        return differ(self.weight_encoding, self.encoding)


def differ(weight_encoding: Encoding, encoding: Encoding) -> bool:
    """Say whether a product is the depth less twice the places at which numbers differ, whatever their zero points."""
    return weight_encoding == encoding == BINARY


def build_low_bit(op: LowBitProduct, columns: tuple[Run, ...]) -> Kernel:
    """Write the product as a kernel, for runs of tiles along the columns.

    Raises
    ------
    LayoutError : where the layout finds rows by their words, does not keep the planes of a word together, or leaves out
        words of −1
    """
    _check_layout(op)
    optional = tuple(buffer for buffer in (op.offset, op.total) if buffer is not None)
    body = tuple(_Panels(op, run).nest() for run in columns)
    return Kernel(op.name, (op.weight, op.x, *optional, *op.operands), (op.y,), body)


@dataclass(frozen=True)
class _Panels:
    """The loops over one run of tiles of columns."""

    op: LowBitProduct
    columns: Run

    def nest(self) -> Stmt:
        order, walks = self.order, self.walks
        outer = (Range("b", Const(0), as_extent(self.op.y.shape[0])), Range("m", *self.columns))
        tasks, rest = order.outside[: order.tasks], order.outside[order.tasks :]
        tile: Stmt = self.tile()
        if rest:
            tile = For(tuple(walks[level] for level in rest), (tile,))
        return For((*outer, *(walks[level] for level in tasks)), (tile,), parallel=True)

    def tile(self) -> Stmt:
        """Sum in registers, for each magnitude that counts on its own."""
        op, counts = self.op, self.op.counts
        sizes = op.layout.sizes(self.op.shape)
        rows = tuple(sizes[level] for level in self.order.lanes)
        start = [For(self.lanes, (Assign(self.acc(n), Const(0)),)) for n in range(len(counts))]
        store: Stmt = Assign(Load(op.y.name, (BATCH, self.row, COLUMN + LANE)), self.result())
        if inside := is_inside(op.layout, self.op.shape, op.weight.name, op.layout.dims[:1]):
            store = If(inside, (store,))
        body = (*start, self.steps(), For(self.lanes, (store,)))
        return Tile("acc", "int32", (len(counts), *rows, self.columns[2]), body)

    def steps(self) -> Stmt:
        """Add up the one-bit products of all pairs of planes."""
        op = self.op
        steps: list[Stmt] = []
        for p, a in enumerate(op.weight_encoding.weights):
            pairs: list[Stmt] = []
            for q, b in enumerate(op.encoding.weights):
                word = Load(op.x.name, (BATCH, Const(q), self.word, COLUMN + LANE))
                common = Stored(op.weight.name) ^ word if op.differs else Stored(op.weight.name) & word
                found: Expr = call("popcount", common)
                acc = self.acc(op.counts.index(abs(a * b)))
                value = found if a * b > 0 else 0 - found
                pairs.append(For(self.lanes, (Assign(acc, value, accumulate=True),)))
            if self.planes is not None:
                pairs = [For((Walk("u", op.weight.name, self.planes, Const(p)),), tuple(pairs))]
            steps += pairs
        body = tuple(steps)
        if inside := is_inside(op.layout, self.op.shape, op.weight.name, op.layout.dims[1:]):
            body = (If(inside, body),)
        return For(tuple(self.walks[level] for level in self.order.inside if level != self.planes), body)

    def result(self) -> Expr:
        """Return the epilogue of the sum that all sums make together."""
        op = self.op
        parts = [self.acc(n) * count if count != 1 else self.acc(n) for n, count in enumerate(op.counts)]
        total: Expr = op.depth - self.acc(0) * 2 if op.differs else sum(parts[1:], parts[0])
        if op.total is not None:
            taken = Load(op.total.name, (BATCH, COLUMN + LANE))
            total = total - (taken * op.weight_encoding.zero if op.weight_encoding.zero != 1 else taken)
        if op.offset is not None:
            total = total - Load(op.offset.name, (self.row,))
        return substitute(op.epilogue, {"acc": total, "i": self.row})

    def acc(self, n: int) -> Load:
        return Load("acc", (Const(n), *(Var(f"p{level}") for level in self.order.lanes), LANE))

    # -- what the weight's layout says -----------------------------------------------------------------------------

    @cached_property
    def order(self) -> LoopOrder:
        return loop_order(self.op.layout, self.op.shape)

    @cached_property
    def walks(self) -> list[Walk]:
        return [Walk(f"p{level}", self.op.weight.name, level) for level in range(len(self.op.layout.levels))]

    @cached_property
    def planes(self) -> int | None:
        return plane_level(self.op.layout, self.op.weight_encoding.bits)

    @cached_property
    def lanes(self) -> tuple[Axis, ...]:
        """The rows and the columns of a tile."""
        return (*(self.walks[level] for level in self.order.lanes), lane_axis(self.columns[2]))

    @property
    def row(self) -> Expr:
        return Coordinate(self.op.weight.name, self.op.layout.dims[0])

    @property
    def word(self) -> Expr:
        place, bits = Coordinate(self.op.weight.name, self.op.layout.dims[1]), self.op.weight_encoding.bits
        return place // bits if bits > 1 else place


def plane_level(layout: Layout, bits: int) -> int | None:
    """Return the level that holds the planes of a word; None for one bit.

    Raises
    ------
    LayoutError : where there is none
    """
    if bits == 1:
        return None
    for level, (digit, kind) in enumerate(layout.levels):
        if (digit.dim, digit.divisor, digit.size) == (layout.dims[1], 1, bits) and isinstance(kind, Dense):
            return level
    k = layout.dims[1]
    raise LayoutError(
        f"{bits} planes of weights cannot be stored as {layout}, which takes them apart; "
        f"end it in `{k} mod {bits} : dense`"
    )


def _check_layout(op: LowBitProduct) -> None:
    order = loop_order(op.layout, op.shape)
    if not order.in_place or order.blocks:
        raise LayoutError(
            f"words cannot be stored as {op.layout}, which cuts their rows; walk the rows before the words"
        )
    if op.differs and not op.layout.is_dense:
        raise LayoutError(f"weights of −1 and 1 cannot be stored as {op.layout}, which leaves some out; make it dense")
