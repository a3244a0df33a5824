"""Minimise a sum of small tables exactly, by eliminating one variable after the other.

Non-serial dynamic programming (Bertelè and Brioschi, *Nonserial Dynamic Programming*, 1972): a variable occurs in few
tables, so the best choice for it, given its neighbours, is a table over them. The work is exponential only in the
graph's treewidth, which is two to four for networks with residual connections and attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TABLE_LIMIT = 1 << 20
"""Entries beyond which no table is built; a variable is then fixed to its own best choice first."""


@dataclass(frozen=True)
class Factor:
    """A cost for every combination of choices of the variables in ``scope``; ``table`` has one axis for each."""

    scope: tuple[int, ...]
    table: np.ndarray


def minimize(sizes: Sequence[int], factors: Sequence[Factor]) -> list[int]:
    """Choose a value below ``sizes[i]`` for every variable i, so that the sum of all factors is least.

    >>> minimize([2, 2], [Factor((0, 1), np.array([[3, 1], [2, 5]])), Factor((1,), np.array([0, 3]))])
    [1, 0]
    """
    choice = [-1] * len(sizes)
    touching: list[set[int]] = [set() for _ in sizes]
    tables = list(factors)
    for index, factor in enumerate(tables):
        for variable in factor.scope:
            touching[variable].add(index)
    eliminated: list[tuple[int, Factor]] = []
    scopes = {v: _joint_scope(v, [tables[i] for i in touching[v]]) for v in range(len(sizes))}
    entries = {v: _entries(scope, sizes) for v, scope in scopes.items()}

    def remove(variable: int, replacements: Sequence[Factor]) -> None:
        neighbours = scopes.pop(variable)[1:]
        del entries[variable]
        for index in touching[variable].copy():
            for other in tables[index].scope:
                touching[other].discard(index)
        for factor in replacements:
            for other in factor.scope:
                touching[other].add(len(tables))
            tables.append(factor)
        for other in neighbours:
            scopes[other] = _joint_scope(other, [tables[i] for i in touching[other]])
            entries[other] = _entries(scopes[other], sizes)

    while entries:
        variable = min(entries, key=entries.__getitem__)
        around = [tables[i] for i in touching[variable]]
        scope = scopes[variable]
        if entries[variable] <= TABLE_LIMIT:
            total = _total(scope, around, sizes)
            eliminated.append((variable, Factor(scope, total)))
            remove(variable, [Factor(scope[1:], total.min(axis=0))])
        else:
            variable = max(scopes, key=lambda v: len(scopes[v]))
            around = [tables[i] for i in touching[variable]]
            choice[variable] = _own_best(variable, around)
            remove(variable, [_fix(factor, variable, choice[variable]) for factor in around])
    for variable, factor in reversed(eliminated):
        at: Any = (slice(None), *[choice[v] for v in factor.scope[1:]])
        choice[variable] = int(factor.table[at].argmin())
    return choice


def _joint_scope(variable: int, factors: Sequence[Factor]) -> tuple[int, ...]:
    """The variable, then its neighbours."""
    return variable, *sorted({v for factor in factors for v in factor.scope} - {variable})


def _entries(scope: Sequence[int], sizes: Sequence[int]) -> int:
    entries = 1
    for variable in scope:
        entries *= sizes[variable]
    return entries


def _total(scope: Sequence[int], factors: Sequence[Factor], sizes: Sequence[int]) -> np.ndarray:
    """The sum of factors as one table over a scope that covers theirs."""
    total = np.zeros([sizes[v] for v in scope])
    for factor in factors:
        order = sorted(range(len(factor.scope)), key=lambda axis: scope.index(factor.scope[axis]))
        present = set(factor.scope)
        total += factor.table.transpose(order).reshape([sizes[v] if v in present else 1 for v in scope])
    return total


def _own_best(variable: int, factors: Sequence[Factor]) -> int:
    """The choice with the least sum of what every factor costs at best."""
    least = [np.moveaxis(f.table, f.scope.index(variable), 0) for f in factors]
    return int(np.argmin(np.sum([t.reshape(len(t), -1).min(axis=1) for t in least], axis=0)))


def _fix(factor: Factor, variable: int, value: int) -> Factor:
    axis = factor.scope.index(variable)
    return Factor(factor.scope[:axis] + factor.scope[axis + 1 :], factor.table.take(value, axis=axis))
