"""What fragments do beside products: where their sums start, and what becomes of them.

Most epilogues add a number for each row and perhaps another tensor to a sum, and then limit it. Registers can start
from what is added, and be limited right before they are stored, so that sums pass no memory on the way to Y. A kernel
is then written in three statements for each panel. `read_ends` reads the first and the last one, and alone decides what
fragments can do: it is asked for a product before its kernel is written, and for each nest when that is lowered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparsec.ir.gather import evaluate, summands
from sparsec.ir.kernel import Assign, Const, Expr, For, If, Load, Op, Range, Stmt, Var, walk_expressions

LIMITS = ("max", "min")


@dataclass(frozen=True)
class Ends:
    """How fragments start and finish the sums of a panel.

    Parameters
    ----------
    rows : whether the first block of the depth adds an element for each row
    vectors_apart : bytes from one row to the next of a tensor that it adds, 0 for none; later blocks add Y
    limits : what the last block limits sums by, in order: `max` or `min`, and a number
    masked : whether the last block clears the columns that are not valid
    """

    rows: bool = False
    vectors_apart: int = 0
    limits: tuple[tuple[str, float], ...] = ()
    masked: bool = False


@dataclass(frozen=True)
class NestEnds:
    """What the statements before and after a nest over entries do to its sums.

    Parameters
    ----------
    of_rows, of_all, valid : what is loaded for each row, each element and each column; None where nothing is
    limits : as in `Ends`
    y : where the results go
    first, last : the conditions that nothing of the depth came before, or comes later; None where they always hold
    started, finished : the loops around either assignment
    guards : the conditions around them
    """

    of_rows: Load | None
    of_all: Load | None
    valid: Load | None
    limits: tuple[tuple[str, float], ...]
    y: Load
    first: Expr | None
    last: Expr | None
    started: tuple[Range, ...]
    finished: tuple[Range, ...]
    guards: tuple[Expr, ...]


def read_ends(
    before: Stmt | None, after: Stmt | None, sums: Load, row: Var, lane: Var, types: Mapping[str, str]
) -> NestEnds | None:
    """Read what statements before and after a nest do to its sums; None where that is more than fragments do.

    Parameters
    ----------
    sums : the sum of a row and a lane
    row, lane : their variables
    types : of all buffers and tiles, by name
    """
    start, finish = _assigned(before), _assigned(after)
    if start is None or finish is None or start[2].target != sums or finish[2].target.buffer == sums.buffer:
        return None
    (started, first_guards, starts), (finished, last_guards, finishes) = start, finish
    y, (first, value) = finishes.target, _chosen(starts.value, finishes.target)
    added = [] if isinstance(value, Const) and value.value == 0 else list(summands(value))
    loads = [load for load in added if isinstance(load, Load) and types[load.buffer] == types[sums.buffer]]
    of_rows = [load for load in loads if lane not in _parts(load) and _is_by_ones(load, row)]
    of_all = [load for load in loads if row in _parts(load) and _is_by_vectors(load, row, lane)]
    last, value = _chosen(finishes.value, sums)
    condition, value = _chosen(value, Const(0.0))
    limits, core = split_limits(value)
    valid = _valid(condition)
    if len(of_all) > 1 or len(of_rows) > 1 or len(of_all) + len(of_rows) != len(added):
        return None
    if core != sums or (condition is not None and valid is None):
        return None
    if types[y.buffer] != types[sums.buffer] or not _is_by_vectors(y, row, lane):
        return None
    ends = next(iter(of_rows), None), next(iter(of_all), None), valid
    return NestEnds(*ends, tuple(limits), y, first, last, started, finished, (*first_guards, *last_guards))


def _assigned(stmt: Stmt | None) -> tuple[tuple[Range, ...], tuple[Expr, ...], Assign] | None:
    """Return the loops and the conditions around the one assignment in a statement, and the assignment."""
    axes: list[Range] = []
    guards: list[Expr] = []
    while isinstance(stmt, For | If) and len(stmt.body) == 1:
        if isinstance(stmt, If):
            guards.append(stmt.condition)
        elif all(isinstance(axis, Range) for axis in stmt.axes) and not stmt.instruction:
            axes += [axis for axis in stmt.axes if isinstance(axis, Range)]
        else:
            return None
        (stmt,) = stmt.body
    plain = isinstance(stmt, Assign) and not stmt.accumulate
    return (tuple(axes), tuple(guards), stmt) if plain and isinstance(stmt, Assign) else None


def _chosen(value: Expr, other: Expr) -> tuple[Expr | None, Expr]:
    """Return the condition on which a value is not the other one, if there is one, and what it is then."""
    if isinstance(value, Op) and value.name == "select" and value.args[2] == other:
        return value.args[0], value.args[1]
    return None, value


def _valid(condition: Expr | None) -> Load | None:
    """Return what is 1 where a condition holds."""
    if isinstance(condition, Op) and condition.name == "==" and condition.args[1] == Const(1):
        load = condition.args[0]
        return load if isinstance(load, Load) else None
    return None


def holds(condition: Expr, bindings: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Say for which values of variables a condition holds; None where it is of other variables or operators."""
    names = {part.name for part in walk_expressions(condition) if isinstance(part, Var)}
    if not isinstance(condition, Op) or not names <= bindings.keys():
        return None
    if condition.name == "and":
        both = [holds(arg, bindings) for arg in condition.args]
        return None if any(one is None for one in both) else np.logical_and(*both)  # type: ignore[arg-type]
    if condition.name not in ("==", "<") or any(isinstance(part, Load) for part in walk_expressions(condition)):
        return None
    a, b = (evaluate(arg, dict(bindings)) for arg in condition.args)
    return a == b if condition.name == "==" else a < b


def split_limits(value: Expr) -> tuple[list[tuple[str, float]], Expr]:
    """Return the limits that a value is brought within, in order, and the value before."""
    if isinstance(value, Op) and value.name in LIMITS:
        numbers = [arg for arg in value.args if isinstance(arg, Const)]
        others = [arg for arg in value.args if not isinstance(arg, Const)]
        if len(numbers) == len(others) == 1:
            limits, core = split_limits(others[0])
            return [*limits, (value.name, float(numbers[0].value))], core
    return [], value


def _is_by_ones(load: Load, variable: Var) -> bool:
    """Whether the elements for each value of a variable follow each other in memory."""
    terms = [term for index in load.indices for term in summands(index) if variable in walk_expressions(term)]
    return terms == [variable] and variable in summands(load.indices[-1])


def _is_by_vectors(load: Load, row: Var, lane: Var) -> bool:
    """Whether the lanes of a row follow each other in memory, and rows are at one distance."""
    return _is_by_ones(load, lane) and all(_is_linear(index, row) for index in load.indices)


def _is_linear(value: Expr, variable: Var) -> bool:
    if value == variable or variable not in walk_expressions(value):
        return True
    if not isinstance(value, Op) or value.name not in ("+", "-", "*"):
        return False
    depends = [arg for arg in value.args if variable in walk_expressions(arg)]
    return all(_is_linear(arg, variable) for arg in depends) and (value.name != "*" or len(depends) == 1)


def _parts(load: Load) -> set[Expr]:
    return {part for index in load.indices for part in walk_expressions(index)}
