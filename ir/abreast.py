"""Which loops an interpreter may run all iterations of at once."""

from __future__ import annotations

from sparsec.ir.kernel import Assign, Axis, Expr, If, Load, Op, Stmt, Var, walk_expressions


def runs_abreast(axis: Axis, body: tuple[Stmt, ...]) -> bool:
    """Say whether each value of `axis` assigns to another element, and reads no element that others assign to."""
    (stmt, *more) = body
    conditions: list[Expr] = []
    if isinstance(stmt, If):
        conditions.append(stmt.condition)
        (stmt, *more) = (*stmt.body, *more)
    if more or not isinstance(stmt, Assign):
        return False
    target = stmt.target
    parts = [part for value in (stmt.value, *conditions, *target.indices) for part in walk_expressions(value)]
    own = all(part == target for part in parts if isinstance(part, Load) and part.buffer == target.buffer)
    return own and any(_counts(index, axis.var) for index in target.indices)


def _counts(index: Expr, var: str) -> bool:
    """Say whether an index is a sum with `var` once as a term, so that it differs for each value of it."""
    if isinstance(index, Op) and index.name == "+":
        first, second = (any(part == Var(var) for part in walk_expressions(arg)) for arg in index.args)
        return first != second and _counts(index.args[0 if first else 1], var)
    return index == Var(var)
