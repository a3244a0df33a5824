"""Embedding bags: sums of rows of a table, dense or packed, whose numbers are found at run time.

    Y[n, :] = Σ_t weights[t] · W[ids[t], :]        for t from offsets[n] to the next offset

The levels that hold digits of the row are dense, so that a row is found where its number says; what is below them is
walked. A bag is summed in a tile. So that nothing outside is read, a number outside of the table is taken as the
nearest row or wraps around, an offset outside of the numbers is taken as the nearest place, and a bag that ends before
it starts as empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.errors import LayoutError
from sparsec.ir.bounds import logical_extent
from sparsec.ir.builders import LANE, as_extent, clamped, lane_axis, zero
from sparsec.ir.kernel import (
    Assign,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    Kernel,
    Load,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    call,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Dense
from sparsec.ir.types import sums

BAG, NUMBER = Var("n"), Var("t")


@dataclass(frozen=True)
class EmbeddingBag:
    """Sums, or means, of rows of a table.

    Parameters
    ----------
    table : `[rows, columns]`, packed; its rows can be found, as `rows_can_be_found` says
    ids : int32 or int64 `[count]`, the rows of all bags
    y : `[bags, columns]`
    offsets : integers `[bags]`, where each bag starts in `ids`; None for bags of `size` rows each
    weights : `[count]`, what each row is multiplied by
    size : rows in a bag, where there are no offsets
    mean : whether to divide by the number of rows; the mean of no rows is 0
    wrap : whether a number of no row is taken modulo the number of rows, so that negative ones count from the end
    """

    name: str
    table: Buffer
    ids: Buffer
    y: Buffer
    offsets: Buffer | None = None
    weights: Buffer | None = None
    size: int = 0
    mean: bool = False
    wrap: bool = False


def build_embedding_bag(op: EmbeddingBag) -> Kernel:
    """Write embedding bags as a kernel, its loops in the order of the table's levels.

    Raises
    ------
    LayoutError : where a layout does not tell where a row is
    """
    layout, shape = _layout(op), _shape(op)
    if objection := objection_to_rows(layout):
        raise LayoutError(f"embeddings cannot be taken from {layout}: {objection}")
    columns = logical_extent(layout, shape, layout.dims[1])
    dtype = sums(op.y.dtype)
    acc = Load("acc", (Coordinate(op.table.name, layout.dims[1]),))
    value: Expr = Stored(op.table.name)
    if op.weights is not None:
        value = value * Load(op.weights.name, (NUMBER,))
    outside, lanes = _walks(op)
    step: Stmt = Assign(acc, value, accumulate=True)
    one = (For(lanes, (step,)),) if lanes else (step,)
    start, stop = _bag(op)
    count = Load("acc", (Const(columns),))  # of the rows of the bag, in the last place
    body: tuple[Stmt, ...] = (For(outside, one),)
    result: Expr = Load("acc", (LANE,))
    if op.mean:
        body = (*body, Assign(count, Const(1.0), accumulate=True))
        result = result / call("max", count, 1.0)
    tile = Tile(
        "acc",
        dtype,
        (columns + op.mean,),
        (
            For((lane_axis(columns + op.mean),), (Assign(Load("acc", (LANE,)), zero(dtype)),)),
            For((Range("t", start, stop),), body),
            For((lane_axis(shape[1]),), (Assign(Load(op.y.name, (BAG, LANE)), result),)),
        ),
    )
    inputs = tuple(buffer for buffer in (op.table, op.ids, op.offsets, op.weights) if buffer is not None)
    nest = For((Range("n", Const(0), as_extent(op.y.shape[0])),), (tile,), parallel=True)
    return Kernel(op.name, inputs, (op.y,), (nest,))


def objection_to_rows(layout: Layout) -> str | None:
    """Say why the rows of a table cannot be found in a layout, or return None if they can."""
    rows = layout.dims[0]
    if any(dim == rows for dim, _ in layout.orders):
        return "its rows are in another order; leave the order out"
    for digit, level in layout.levels:
        if digit.dim == rows and not isinstance(level, Dense):
            return f"the level {digit} : {level} must be searched for a row; make it dense"
    return None


def _walks(op: EmbeddingBag) -> tuple[tuple[Walk, ...], tuple[Walk, ...]]:
    """Return the walks to what is stored of a row, and those of the dense columns that end the layout, as lanes."""
    layout, shape = _layout(op), _shape(op)
    given = Load(op.ids.name, (NUMBER,))
    number = given % shape[0] if op.wrap else clamped(given, Const(shape[0] - 1))
    outside: list[Walk] = []
    lanes: list[Walk] = []
    for level, ((digit, _), size) in enumerate(zip(layout.levels, layout.sizes(shape), strict=True)):
        walk = Walk(f"p{level}", op.table.name, level)
        if digit.dim == layout.dims[0]:
            row: Expr = number // digit.divisor if digit.divisor != 1 else number
            row = row % size if digit.size is not None else row
            outside.append(Walk(walk.var, walk.buffer, level, row))
        elif level >= layout.leaf:
            lanes.append(walk)
        else:
            outside.append(walk)
    return tuple(outside), tuple(lanes)


def _bag(op: EmbeddingBag) -> tuple[Expr, Expr]:
    """Return the first number of a bag, and the one behind the last."""
    if op.offsets is None:
        return BAG * op.size, BAG * op.size + op.size
    count, more = as_extent(op.ids.shape[0]), call("<", BAG + 1, as_extent(op.y.shape[0]))
    start = clamped(Load(op.offsets.name, (BAG,)), count)
    behind = call("select", more, clamped(Load(op.offsets.name, (BAG + 1,)), count), count)
    return start, call("max", start, behind)


def _layout(op: EmbeddingBag) -> Layout:
    assert op.table.layout is not None
    return op.table.layout


def _shape(op: EmbeddingBag) -> tuple[int, int]:
    rows, columns = op.table.shape
    assert isinstance(rows, int) and isinstance(columns, int)
    return rows, columns
