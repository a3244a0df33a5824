"""Products with activations whose zeros are found at run time: both sides are sparse.

The weight is walked with the depth outside of the rows. For each vector of X, the stretch of one depth in a panel of
columns, it is found out once whether all of it is zero, and then all weights that meet it are passed over: one branch
for a column of the weight, none for an element. The sums of a panel, of all rows, are in a tile that stays in cache
(as in the outer products of Wang, Zhang et al., "Dual-Side Sparse Tensor Core", ISCA 2021).

    for b, m:                                   panels of columns
        y = 0                                   [rows, width]
        for k in W[0]:
            if any(X[k, m : m + width] != 0):
                for i in W[1]:
                    y[i] += W * X[k, m : m + width]
        Y[:, m : m + width] = epilogue(y)

A weight that is infinite or NaN has no effect where it meets a zero that is passed over.
"""

from __future__ import annotations

from math import prod

from sparsec.errors import LayoutError
from sparsec.ir.bounds import logical_extent
from sparsec.ir.builders import LANE, as_extent, counted, halves, is_inside, lane_axis, zero
from sparsec.ir.decoded import is_decoded, multiply_decoded
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Const,
    Coordinate,
    For,
    If,
    Load,
    Range,
    Stmt,
    Stored,
    Tile,
    Walk,
    call,
    substitute,
)
from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import TILE_ROWS
from sparsec.ir.product import COLUMN, ROW, Product, Run
from sparsec.ir.sums import Sum


def skipping_nest(product: Product, columns: Run) -> Stmt:
    """Return the loops of one run of panels.

    Raises
    ------
    LayoutError : where the layout of the weight leads to too few rows below a depth, or has several terms
    """
    layout = product.layout
    assert isinstance(product.rows, int) and isinstance(product.depth, int)
    if isinstance(layout, Sum):
        raise LayoutError(
            f"zeros in activations cannot be passed over with a weight as {layout}: it is a sum; store it in one "
            "layout, with the rows innermost, as in CSC"
        )
    if layout is None or product.valid is not None or product.cleared:
        raise LayoutError(f"zeros in activations cannot be passed over in a {product.name} with a weight as {layout}")
    shape = (product.rows, product.depth)
    known = _known(layout, shape)
    walks = [Walk(f"p{level}", product.weight.name, level) for level in range(len(layout.levels))]
    lanes = (lane_axis(columns[2]),)
    rows = logical_extent(layout, shape, layout.dims[0])
    total = Load("y", (ROW, LANE))
    y = Load(product.y.name, tuple(substitute(part, {"m": COLUMN + LANE}) for part in product.y_index))
    result = substitute(product.epilogue, {"acc": total, "m": COLUMN + LANE})
    tile = Tile(
        "y",
        product.sums,
        (rows, columns[2]),
        (
            For((counted("i", rows),), (For(lanes, (Assign(total, product.zero),)),)),
            For(tuple(walks[:known]), (_where_not_zero(product, layout, tuple(walks[known:]), columns[2]),)),
            For((counted("i", product.rows),), (For(lanes, (Assign(y, result),)),)),
        ),
    )
    return For((Range("b", Const(0), as_extent(product.batch)), Range("m", *columns)), (tile,), parallel=True)


def _where_not_zero(product: Product, layout: Layout, rows: tuple[Walk, ...], width: int) -> Stmt:
    """Add one vector of X, multiplied by all weights that meet it, unless it is zero."""
    name, (row, depth) = product.weight.name, layout.dims
    x = Load(
        product.x.name,
        tuple(substitute(part, {"k": Coordinate(name, depth), "m": COLUMN + LANE}) for part in product.x_index),
    )
    dense = tuple(walk for walk in rows if walk.level >= layout.leaf)
    target = Load("y", (Coordinate(name, row), LANE))
    lanes: tuple[Axis, ...] = (*dense, lane_axis(width))
    step: Stmt = For(lanes, (Assign(target, Stored(name) * x, accumulate=True),))
    if is_decoded(product, product.weight):
        step = multiply_decoded(product, product.weight, (), lanes, target, x)
    outer = rows[: len(rows) - len(dense)]
    power = 1 << (width - 1).bit_length()
    count = Load("nonzeros", (LANE,))
    found = Tile(
        "nonzeros",
        "int32",
        (power,),
        (
            *((For((lane_axis(power),), (Assign(count, Const(0)),)),) if power > width else ()),
            For((lane_axis(width),), (Assign(count, call("select", call("==", x, zero(product.x.dtype)), 0, 1)),)),
            *halves("nonzeros", power),
            If(call("<", 0, Load("nonzeros", (Const(0),))), (For(outer, (step,)) if outer else step,)),
        ),
    )
    assert isinstance(product.rows, int) and isinstance(product.depth, int)
    inside = is_inside(layout, (product.rows, product.depth), name, (depth,))
    return If(inside, (found,)) if inside else found


def _known(layout: Layout, shape: tuple[int, int]) -> int:
    """Return how many levels there are down to the last one of the depth.

    Raises
    ------
    LayoutError
    """
    known = max(level for level, (digit, _) in enumerate(layout.levels) if digit.dim == layout.dims[1]) + 1
    below = prod(layout.sizes(shape)[known:])
    if below < min(shape[0], TILE_ROWS + 1):
        raise LayoutError(
            f"zeros in activations cannot be passed over with a weight as {layout}: only {below} of its rows "
            "follow a depth, so that a branch would cost what it saves; store it with the rows innermost, as in CSC"
        )
    return known
