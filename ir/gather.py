"""Gathers: stored coordinates that are turned into ready offsets when an operand is packed.

A sparse product reads `X[g(W.k) + m]`, where `g` is linear for a matmul and a table of taps for a convolution. The
pattern is known at compile time, so the level that stores `k` can hold `g` itself: the inner loop loads one offset and
adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sparsec.ir.builders import total
from sparsec.ir.kernel import (
    Assign,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Op,
    Range,
    Stmt,
    Tile,
    Var,
    Walk,
    substitute,
    walk_expressions,
)
from sparsec.ir.levels import Level


@dataclass(frozen=True)
class Gather:
    """How index arrays of a packed operand become offsets.

    Parameters
    ----------
    terms : the summands of an index that depend on the coordinate, such as `W.k * 128`, or on the variable that walks
        the level, such as `p2 * 48`
    dim, level : the logical dimension, and the level that stores a digit of it; None where its order is what is stored
    arrays : names of the index arrays whose values add up to the digit
    table : uint16 or uint32 [largest value + 1], the offset for each value, relative to the value 0; all fit int32
    """

    terms: tuple[Expr, ...]
    buffer: str
    dim: str
    level: int | None
    arrays: tuple[str, ...]
    table: np.ndarray

    def split(self, index: Expr) -> tuple[Expr, list[Expr]] | None:
        """Return an index as a base, over `k` for a coordinate whose digit in this level is 0, and the other terms.

        None where the index does not gather.
        """
        terms = list(summands(index))
        rest = [term for term in terms if term not in self.terms]
        if len(rest) == len(terms):
            return None
        whole = total(self.terms)
        digit: dict[str, Expr] = {part.name: Const(0) for part in walk_expressions(whole) if isinstance(part, Var)}
        return substitute(whole, {f"{self.buffer}.{self.dim}": Var("k"), **digit}), rest


def summands(value: Expr) -> Iterator[Expr]:
    """Yield the terms of a sum."""
    if isinstance(value, Op) and value.name == "+":
        yield from summands(value.args[0])
        yield from summands(value.args[1])
    else:
        yield value


def find_gather(kernel: Kernel, buffer: str) -> Gather | None:
    """Return how `buffer` can store offsets in place of the coordinates of one dimension, or None where it cannot.

    Its coordinate must be used in the same terms of indices only. Where the dimension is permuted, its order holds the
    offsets. Else the last level that stores coordinates does, and the terms must be additive over the digits and the
    arrays: for the digit b of the level, g(a + b) = g(a) + g(b) − g(0). Where the digit alone is used, the level holds
    what becomes of it, if that needs no more bits.
    """
    layout, shape = kernel.buffers[buffer].layout, kernel.buffers[buffer].extents
    assert layout is not None
    level = max((n for n, (_, kind) in enumerate(layout.levels) if kind.coordinates), default=None)
    if level is None:
        return None
    digit, kind = layout.levels[level]
    coordinate, walkers = Coordinate(buffer, digit.dim), frozenset(_walkers(kernel.body, buffer, level))
    uses = {use for value in expressions(kernel.body) for use in _uses(value, coordinate, walkers)}
    if len(uses) != 1:
        return None
    (terms,) = uses
    variables = {part for term in terms for part in walk_expressions(term) if isinstance(part, Var | Load)}
    if terms and variables and variables <= walkers and len(variables) == len(walkers):
        return _of_digits(terms, buffer, digit.dim, level, kind, layout.sizes(shape)[level])
    if not terms or variables:
        return None
    coordinates = np.arange(layout.padded(shape)[layout.dims.index(digit.dim)])
    found = (evaluate(term, {f"{buffer}.{digit.dim}": coordinates}) for term in terms)
    values = sum(found, np.zeros_like(coordinates))
    ordered = any(dim == digit.dim for dim, _ in layout.orders)
    arrays: tuple[str, ...]
    if ordered:
        level, arrays, table = None, (f"{digit.dim}.order",), values
    else:
        own = coordinates // digit.divisor % layout.sizes(shape)[level]
        table = values[np.unique(own) * digit.divisor] - values[0]
        additive = np.array_equal(values, values[coordinates - own * digit.divisor] + table[own])
        if not additive or not kind.adds_up(table):
            return None
        arrays = tuple(f"level{level}.{name}" for name in kind.coordinates)
    if table.min() < 0 or table.max() > np.iinfo(np.int32).max:
        return None
    dtype = np.uint16 if table.max() <= np.iinfo(np.uint16).max else np.uint32
    return Gather(terms, buffer, digit.dim, level, arrays, table.astype(dtype))


def _of_digits(terms: tuple[Expr, ...], buffer: str, dim: str, level: int, kind: Level, size: int) -> Gather | None:
    """Return what a level of `size` holds where its variable alone leads to something, with terms that use no more."""
    digits = np.arange(size)
    (name,) = {part.name for term in terms for part in walk_expressions(term) if isinstance(part, Var)}
    if any(isinstance(part, Coordinate) for term in terms for part in walk_expressions(term)):
        return None
    values = sum((evaluate(term, {name: digits}) for term in terms), np.zeros_like(digits))
    table = values - values[0]
    few = np.iinfo(np.uint16).max
    if table.min() < 0 or table.max() > few >= size - 1 or not kind.adds_up(table) or np.array_equal(table, digits):
        return None
    arrays = tuple(f"level{level}.{name}" for name in kind.coordinates)
    return Gather(terms, buffer, dim, level, arrays, table.astype(np.uint16 if table.max() <= few else np.uint32))


def evaluate(value: Expr, bindings: dict[str, np.ndarray]) -> np.ndarray:
    """Evaluate an integer expression over arrays of its coordinates and variables, by printed name, as `W.k`."""
    if isinstance(value, Const):
        return np.asarray(value.value)
    if isinstance(value, Var):
        return bindings[value.name]
    if isinstance(value, Coordinate):
        return bindings[f"{value.buffer}.{value.dim}"]
    assert isinstance(value, Op)
    a, b = (evaluate(arg, bindings) for arg in value.args)
    return ON_INTEGERS[value.name](a, b)


ON_INTEGERS: dict[str, Callable[..., np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "//": np.floor_divide,
    "%": np.mod,
    "max": np.maximum,
    "min": np.minimum,
}
"""What the operators of indices are on arrays of integers."""


def expressions(body: tuple[Stmt, ...]) -> Iterator[Expr]:
    """Yield all expressions in statements."""
    for stmt in body:
        if isinstance(stmt, Assign):
            yield from (stmt.target, stmt.value)
            continue
        if isinstance(stmt, If):
            yield stmt.condition
        if isinstance(stmt, Tile):
            yield from (part for fetch in stmt.fetch for part in (fetch.first, fetch.condition) if part is not None)
        if isinstance(stmt, For):
            yield from (limit for axis in stmt.axes if isinstance(axis, Range) for limit in (axis.start, axis.stop))
            yield from (axis.at for axis in stmt.axes if isinstance(axis, Walk) and axis.at is not None)
        yield from expressions(stmt.body)


def _walkers(body: tuple[Stmt, ...], buffer: str, level: int) -> Iterator[Expr]:
    """Yield the variables that walk a level of an operand."""
    for stmt in body:
        if isinstance(stmt, For):
            walks = (a for a in stmt.axes if isinstance(a, Walk) and (a.buffer, a.level) == (buffer, level))
            yield from (Var(walk.var) for walk in walks if not walk.part)
        if not isinstance(stmt, Assign):
            yield from _walkers(stmt.body, buffer, level)


def _uses(value: Expr, coordinate: Expr, walkers: frozenset[Expr]) -> Iterator[tuple[Expr, ...]]:
    """Yield the terms of each index that depend on the coordinate; none for a use that needs the coordinate itself."""
    if value == coordinate or value in walkers:
        yield ()
    elif isinstance(value, Op):
        for arg in value.args:
            yield from _uses(arg, coordinate, walkers)
    elif isinstance(value, Load):
        for index in value.indices:
            wanted = {coordinate, *walkers}
            if terms := tuple(term for term in summands(index) if wanted.intersection(walk_expressions(term))):
                yield terms
