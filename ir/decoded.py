"""The innermost loops of a product with a weight that is stored as integers, where X and the sums are floats.

A stored block is decoded first, all of its rows and depths at once, into a tile of its own. So conversions are of
vectors, and the loops that multiply read floats, as those of any weight do:

    for p1 in W[1]:
        tile w: float32[64, 8]:
            for p2 in W[2]:
                for p3 in W[3]:
                    w[p2, p3] = float(W) * S[W.k // 64, W.i]
            for p2 in W[2]:
                for p3 in W[3], v in range(0, 64):
                    acc[p3, v] += w[p2, p3] * X[W.k * 64 + m + v]
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.ir.builders import is_inside, lane_axis
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Load,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    call,
)
from sparsec.ir.layout import Layout
from sparsec.ir.product import Product
from sparsec.ir.types import is_float

DECODED = 1024
"""Elements of the largest block that is decoded at once."""


def is_decoded(product: Product, weight: Buffer) -> bool:
    """Whether a term of a product's weight is integers that meet floats."""
    return not is_float(weight.dtype) and is_float(product.sums) and product.values is None


def multiply_decoded(
    product: Product, weight: Buffer, walks: Sequence[Walk], lanes: tuple[Axis, ...], acc: Load, x: Expr
) -> Stmt:
    """Add the products of the stored blocks that some walks lead to.

    Parameters
    ----------
    weight : the term of the product's weight
    walks : over the levels inside the tile of sums, but for its rows
    lanes : the walks over the rows of the tile, and the axis of the columns, as sums lie
    acc, x : the element of the sums, and of X
    """
    layout, shape = _layout(weight), _shape(weight)
    sizes = layout.sizes(shape)
    rows = [axis for axis in lanes if isinstance(axis, Walk)]
    once = _decoded_at_once(layout, walks, prod(sizes[axis.level] for axis in rows), sizes)
    outer, block = tuple(walks[: len(walks) - once]), tuple(walks[len(walks) - once :])
    within = (*block, *rows)
    w = Load("w", tuple(Var(axis.var) for axis in within) or (Const(0),))
    fill: Stmt = For(tuple(rows) or (lane_axis(1),), (Assign(w, _number(product, weight)),))
    step: Stmt = For(lanes, (Assign(acc, w * x, accumulate=True),))
    if inside := is_inside(layout, shape, weight.name, layout.dims[1:]):
        fill, step = (If(inside, (stmt,)) for stmt in (fill, step))
    loops = (For(block, (stmt,)) if block else stmt for stmt in (fill, step))
    tile = Tile("w", product.sums, tuple(sizes[axis.level] for axis in within) or (1,), tuple(loops))
    return For(outer, (tile,)) if outer else tile


def _decoded_at_once(layout: Layout, walks: Sequence[Walk], rows: int, sizes: Sequence[int]) -> int:
    """Return how many of the last walks are over a block of constant size that is decoded before it is used."""
    count, elements = 0, rows
    for axis in reversed(walks[1:]):
        elements *= sizes[axis.level]
        if axis.level < layout.leaf or elements > DECODED:
            break
        count += 1
    return count


def _number(product: Product, weight: Buffer) -> Expr:
    """Return a stored integer as a number; what fills up a block of rows has no scale, and is zero."""
    value, scales, layout = call("float", Stored(weight.name)), product.scales, _layout(weight)
    if scales is None:
        return value
    row, depth = (Coordinate(weight.name, dim) for dim in layout.dims)
    scale: Expr = Load(scales.name, (depth // product.group, row))
    if exists := is_inside(layout, _shape(weight), weight.name, layout.dims[:1]):
        scale = call("select", exists, scale, 0.0)
    return value * scale


def _layout(weight: Buffer) -> Layout:
    assert weight.layout is not None
    return weight.layout


def _shape(weight: Buffer) -> tuple[int, int]:
    rows, depth = weight.shape
    assert isinstance(rows, int) and isinstance(depth, int)
    return rows, depth
