"""What the kernels of several operators are written with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sparsec.ir.bounds import logical_extent
from sparsec.ir.kernel import Assign, Const, Coordinate, Expr, For, Load, Range, Stmt, Var, call
from sparsec.ir.layout import Layout
from sparsec.ir.types import is_float

LANE = Var("v")
"""The place in a vector, or in a row of a tile."""


def counted(name: str, extent: int) -> Range:
    """Return the axis of a variable from 0 to a constant extent."""
    return Range(name, Const(0), Const(extent))


def lane_axis(width: int) -> Range:
    """Return the axis of the places in a vector."""
    return counted(LANE.name, width)


def as_extent(dim: int | str) -> Expr:
    """Return a dimension, constant or symbolic, as an expression."""
    return Var(dim) if isinstance(dim, str) else Const(dim)


def zero(dtype: str) -> Const:
    """Return the zero of a type, such as what sums start with."""
    return Const(0.0 if is_float(dtype) else 0)


def clamped(value: Expr, highest: Expr) -> Expr:
    """Return the number from 0 to `highest` that is nearest to an integer."""
    return call("min", call("max", value, 0), highest)


def all_of(conditions: Iterable[Expr]) -> Expr:
    """Return the condition that all conditions hold, of which there is at least one."""
    first, *rest = conditions
    for condition in rest:
        first = call("and", first, condition)
    return first


def both(first: Expr | None, second: Expr | None) -> Expr | None:
    """Return the condition that two conditions hold, of which None always does."""
    conditions = [condition for condition in (first, second) if condition is not None]
    return all_of(conditions) if conditions else None


def total(terms: Iterable[Expr]) -> Expr:
    """Return the sum of terms, of which there is at least one."""
    first, *rest = terms
    return sum(rest, first)


def is_inside(layout: Layout, shape: tuple[int, ...], name: str, dims: tuple[str, ...] = ()) -> Expr | None:
    """Return the condition that an element that the layout stores is none that fills up a block; None if none is.

    Parameters
    ----------
    dims : those that may fill up; all of them if not given
    """
    conditions = [
        call("<", Coordinate(name, dim), extent)
        for dim, extent in zip(layout.dims, shape, strict=True)
        if dim in (dims or layout.dims) and logical_extent(layout, shape, dim) > extent
    ]
    return all_of(conditions) if conditions else None


def halves(tile: str, width: int) -> Iterator[Stmt]:
    """Yield what adds up the lanes of a tile, a power of two of them, into its first one."""
    while width > 1:
        width //= 2
        second = Load(tile, (LANE + width,))
        yield For((lane_axis(width),), (Assign(Load(tile, (LANE,)), second, accumulate=True),))
