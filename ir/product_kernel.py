"""The kernels of products: one for every layout of the weight, its loops in the order of the layout's levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.errors import LayoutError
from sparsec.ir.builders import LANE, as_extent, lane_axis
from sparsec.ir.dots import DottedTerm
from sparsec.ir.fetching import LONG, fetches
from sparsec.ir.kernel import Assign, Buffer, Const, Expr, For, Kernel, Load, Range, Stmt, Tile, Var
from sparsec.ir.levels import Structured
from sparsec.ir.packed_term import PackedTerm
from sparsec.ir.product import COLUMN, DEPTH, ROW, SUM, Product, Run, Tiling
from sparsec.ir.row_dots import RowDottedTerm
from sparsec.ir.sparse_activations import skipping_nest
from sparsec.ir.spelled_term import SpelledTerm
from sparsec.ir.staged import has_flat_taps
from sparsec.ir.structured_dots import StructuredDottedTerm
from sparsec.ir.term import Term, element_at, finished, outer_axes
from sparsec.ir.tile_dots import TileDottedTerm


def build_kernel(product: Product, tiling: Tiling) -> Kernel:
    """Write the product as a kernel, its loops in the order of the weight's levels.

    Raises
    ------
    LayoutError : where X is to be staged for a layout that does not cut the depth into blocks or for a symbolic depth,
        zeros of X are to be passed over in one that has the rows outside of the depth, or taps are to share what is
        copied of X where nothing is, or where they differ in more than the last index of X; and for other than plain
        loops over a weight where rows of X or Y are missing
    """
    if tiling.stretch and not (tiling.stage and product.weight.layout and not tiling.dots and has_flat_taps(product)):
        raise LayoutError(f"no taps of {product.name} can share stretches of X; stage X without")
    plain = product.weight.layout and not (tiling.stage or tiling.skip_zeros or tiling.dots or tiling.spelled)
    if (product.reads or product.writes) and not plain:
        raise LayoutError(f"{product.name} lacks rows of X or Y, which only plain loops over a weight pass over")
    if tiling.skip_zeros:
        body = tuple(skipping_nest(product, columns) for columns in tiling.columns)
    elif product.weight.layout is not None:
        body = tuple(stmt for columns in tiling.columns for stmt in _nests(product, columns, tiling))
    else:
        body = tuple(stmt for columns in tiling.columns for stmt in _dense(product, columns, tiling))
    return Kernel(product.name, product.inputs, (product.y,), body)


def _nests(product: Product, columns: Run, tiling: Tiling) -> Iterator[Stmt]:
    """Yield the nests that compute the columns, mostly one for each term of the weight.

    Sums that do not stay in registers rest in Y; where that is of half precision, in a tile of all rows.
    """
    terms = [term_of(product, term, columns, tiling) for term in product.terms]
    order = terms[0].order
    if product.y.dtype == product.sums or (len(terms) == 1 and order.in_place and not order.blocks):
        yield from (term.nest() for term in terms)
        return
    assert isinstance(product.rows, int)
    rest = Buffer("sums", product.sums, (product.rows, columns[2]))
    summed = replace(product, y=rest, y_index=(ROW, LANE), epilogue=SUM, valid=None, cleared=())
    added = [stmt for term in product.terms for stmt in term_of(summed, term, columns, tiling).steps()]
    finish = terms[-1].every_row(finish=True, sums=Load(rest.name, (ROW, LANE)))
    tile = Tile(rest.name, rest.dtype, (product.rows, columns[2]), (*added, finish))
    yield For(outer_axes(product, columns), (tile,), parallel=True)


def term_of(product: Product, weight: Buffer, columns: Run, tiling: Tiling) -> Term:
    """Return one term of the weight with a run of tiles of columns."""
    if tiling.spelled:
        return SpelledTerm(product, weight, columns, tiling)
    if tiling.dots is None:
        return PackedTerm(product, weight, columns, tiling)
    if weight.layout is not None and isinstance(weight.layout.levels[-1][1], Structured):
        return StructuredDottedTerm(product, weight, columns, tiling)
    dotted = TileDottedTerm if tiling.dots.run else RowDottedTerm if tiling.dots.pixels else DottedTerm
    return dotted(product, weight, columns, tiling)


def _dense(product: Product, columns: Run, tiling: Tiling) -> Iterator[Stmt]:
    """Yield the loops over an activation as the weight."""
    outer, panel = outer_axes(product, columns), dense_panel(product, columns, tiling)
    if tiling.stage:
        yield For(outer, panel, parallel=True)
        return
    yield from (For((*outer, *loop.axes), loop.body, parallel=True) for loop in panel if isinstance(loop, For))


def dense_panel(product: Product, columns: Run, tiling: Tiling, x: Expr | None = None) -> tuple[Stmt, ...]:
    """Return what is inside the loops over batch and columns, for an activation as the weight.

    Parameters
    ----------
    x : what is read for `X[k, m + v]`; X itself, staged for all tiles of rows if at all, where it is not given

    Raises
    ------
    LayoutError : where X is to be staged for a symbolic depth
    """
    x = x or element_at(product.x, product.x_index, {"m": COLUMN + LANE})
    if not tiling.stage:
        return tuple(_dense_rows(product, columns, rows, x) for rows in tiling.rows)
    if isinstance(product.depth, str):
        raise LayoutError(f"X cannot be staged for the symbolic depth {product.depth!r} of {product.name}; do without")
    part = Load("part", (DEPTH, LANE))
    copy = For((_depths(product),), (For((lane_axis(columns[2]),), (Assign(part, x),)),))
    tiles = (_dense_rows(product, columns, rows, part) for rows in tiling.rows)
    return (Tile(part.buffer, product.sums, (product.depth, columns[2]), (copy, *tiles)),)


def _depths(product: Product) -> Range:
    return Range(DEPTH.name, Const(0), as_extent(product.depth))


def _dense_rows(product: Product, columns: Run, rows: Run, x: Expr) -> For:
    """Return the loop over tiles of rows, and in it the sums of one."""
    lanes = (Range("r", Const(0), Const(rows[2])), lane_axis(columns[2]))
    acc = Load("acc", (Var("r"), LANE))
    row, column = ROW + Var("r"), COLUMN + LANE
    weight = element_at(product.weight, product.weight_index, {"i": row})
    y = element_at(product.y, product.y_index, {"i": row, "m": column})
    is_long = isinstance(product.depth, int) and product.depth >= LONG
    tile = Tile(
        "acc",
        product.sums,
        (rows[2], columns[2]),
        (
            For(lanes, (Assign(acc, product.zero),)),
            For((_depths(product),), (For(lanes, (Assign(acc, weight * x, accumulate=True),)),)),
            For(lanes, (Assign(y, finished(product, acc, row, column)),)),
        ),
        tuple(fetches(product, [ROW + r for r in range(rows[2])], columns[2])) if is_long else (),
    )
    return For((Range("i", *rows),), (tile,))
