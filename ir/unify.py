"""Expressions that are the same up to the names of what they load: the first check of the matcher."""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.footprint import Operand
from sparsec.ir.kernel import Const, Expr, Load, Op, Stored

COMMUTATIVE = frozenset({"+", "*", "&", "^", "max", "min"})


def unify(pattern: Expr, value: Expr) -> Iterator[dict[str, Operand]]:
    """Yield what the loads of a pattern stand for, by buffer, in every order of the operands of what commutes.

    >>> a, w, x = (Load(name, ()) for name in "AWX")
    >>> [way["A"].buffer for way in unify(a * 2, w * 2)], list(unify(a * 2, w + x))
    (['W'], [])
    """
    if isinstance(pattern, Load):
        if isinstance(value, Load | Stored):
            yield {pattern.buffer: value}
        return
    if isinstance(pattern, Const):
        if pattern == value:
            yield {}
        return
    if not isinstance(pattern, Op) or not isinstance(value, Op) or pattern.name != value.name:
        return
    orders = [value.args, value.args[::-1]] if value.name in COMMUTATIVE else [value.args]
    for args in orders:
        yield from _unify_all(pattern.args, args)


def _unify_all(patterns: tuple[Expr, ...], values: tuple[Expr, ...]) -> Iterator[dict[str, Operand]]:
    if not patterns:
        yield {}
        return
    for first in unify(patterns[0], values[0]):
        for rest in _unify_all(patterns[1:], values[1:]):
            if all(rest.get(name, value) == value for name, value in first.items()):
                yield {**first, **rest}


def parts_of(value: Expr) -> Iterator[Expr]:
    """Yield an expression and what is computed in it, but for indices."""
    yield value
    if isinstance(value, Op):
        for arg in value.args:
            yield from parts_of(arg)
