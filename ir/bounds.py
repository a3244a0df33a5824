"""Which values an index takes over all iterations of the loops around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsec.ir.kernel import Const, Coordinate, Expr, Op, Var, walk_expressions
from sparsec.ir.layout import Layout


@dataclass(frozen=True)
class Index:
    """A variable, or a logical coordinate.

    Parameters
    ----------
    bounds : the least and greatest value, or None where that is not known
    depends : the loop variables that decide the value
    attained : whether some operands make it take both bounds, whatever other variables do
    """

    bounds: tuple[int, int] | None
    depends: frozenset[str] = frozenset()
    attained: bool = True


Lookup = Callable[[Var | Coordinate], Index]


def bounds(value: Expr, lookup: Lookup) -> tuple[int, int] | None:
    """Return bounds of an integer expression by interval arithmetic, or None where they are not known."""
    if isinstance(value, Const):
        return (value.value, value.value) if isinstance(value.value, int) else None
    if isinstance(value, Var | Coordinate):
        return lookup(value).bounds
    if not isinstance(value, Op) or value.name not in ("+", "-", "*", "//", "%"):
        return None
    first, second = (bounds(arg, lookup) for arg in value.args)
    if first is None or second is None:
        return None
    if value.name in ("+", "-", "*"):
        corners = [a + b if value.name == "+" else a - b if value.name == "-" else a * b for a in first for b in second]
        return min(corners), max(corners)
    divisor = second[0]
    if divisor < 1 or divisor != second[1]:
        return None
    quotients = first[0] // divisor, first[1] // divisor
    if value.name == "//":
        return quotients
    return (first[0] % divisor, first[1] % divisor) if quotients[0] == quotients[1] else (0, divisor - 1)


def attained(value: Expr, lookup: Lookup) -> bool:
    """Say whether some iteration meets each bound: every variable is free to do so, and counts once."""
    parts = list(walk_expressions(value))
    leaves = [lookup(part) for part in parts if isinstance(part, Var | Coordinate)]
    free = len(depends(value, lookup)) == sum(len(leaf.depends) for leaf in leaves)
    linear = all(part.name in ("+", "-", "*") for part in parts if isinstance(part, Op))
    return free and linear and all(leaf.attained for leaf in leaves)


def depends(value: Expr, lookup: Lookup) -> frozenset[str]:
    """Return the loop variables that decide the value of an expression."""
    leaves = (lookup(part) for part in walk_expressions(value) if isinstance(part, Var | Coordinate))
    return frozenset().union(*(leaf.depends for leaf in leaves))


def logical_extent(layout: Layout, shape: tuple[int, ...], dim: str) -> int:
    """Return how many coordinates of `dim` the walks of a tensor of `shape` may visit, padding included.

    A sparse level holds coordinates of entries only, and the levels below it that pad run to the end of their block. A
    level with slots has coordinate 0 where there is no entry, so levels above it may run into padding as well. So do
    lanes that share slots, and what tells them apart.
    """
    sizes = layout.sizes(shape)
    digits = {n: digit for n, (digit, _) in enumerate(layout.levels) if digit.dim == dim}
    entries = np.arange(shape[layout.dims.index(dim)])
    slots: set[int] = set()

    def furthest(above: int) -> int:
        """Return the furthest coordinate where the digits in levels up to `above` are those of an entry."""
        visited = entries
        for n, digit in digits.items():
            if n > above:
                last = 0 if n in slots else sizes[n] - 1
                visited = visited + (last - entries // digit.divisor % sizes[n]) * digit.divisor
        return int(np.max(visited))

    found = 0
    for n in sorted(digits, reverse=True):
        level = layout.levels[n][1]
        if not level.pads:
            found = max(found, furthest(n))
            lanes_above = any(above.shares_lanes for _, above in layout.levels[:n])
            if not (level.slots or lanes_above):
                return found + 1
            slots.add(n)
    return max(found, furthest(-1)) + 1
