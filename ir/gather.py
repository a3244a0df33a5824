"""Gathers: stored coordinates that are turned into ready offsets when an operand is packed.

A sparse product reads `X[g(W.k) + m]`, where `g` is linear for a matmul and a table of taps for a convolution. The
pattern is known at compile time, so the level that stores `k` can hold `g` itself: the inner loop loads one offset and
adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsec.ir.kernel import (
    Assign,
    Const,
    Coordinate,
    Expr,
    Kernel,
    Load,
    Op,
    Stmt,
    Var,
    substitute,
    walk_expressions,
)
from sparsec.ir.levels import Compressed


@dataclass(frozen=True)
class Gather:
    """How one index array of a packed operand becomes offsets.

    Parameters
    ----------
    terms : the summands of an index that depend on the coordinate, such as `W.k * 128`
    dim, level : the logical dimension, and the level that stores its last digit
    array : name of the index array
    table : uint16 or uint32 [extent of the level], the offset for each coordinate, relative to coordinate 0
    """

    terms: tuple[Expr, ...]
    buffer: str
    dim: str
    level: int
    array: str
    table: np.ndarray

    def split(self, index: Expr) -> tuple[Expr, list[Expr]] | None:
        """Return an index as a base, over `k` for a coordinate whose last digit is 0, and the terms that are left.

        None where the index does not gather.
        """
        terms = list(summands(index))
        rest = [term for term in terms if term not in self.terms]
        if len(rest) == len(terms):
            return None
        total, *others = self.terms
        for other in others:
            total = total + other
        return substitute(total, {f"{self.buffer}.{self.dim}": Var("k")}), rest


def summands(value: Expr) -> Iterator[Expr]:
    """Yield the terms of a sum."""
    if isinstance(value, Op) and value.name == "+":
        yield from summands(value.args[0])
        yield from summands(value.args[1])
    else:
        yield value


def find_gather(kernel: Kernel, buffer: str) -> Gather | None:
    """Return how the last compressed level of `buffer` can store offsets, or None where nothing is gained by it.

    Its coordinate must be used in one index term only, and the term must be additive over the digits: g(a·n + b) =
    g(a·n) + g(b) − g(0).
    """
    operand = kernel.buffers[buffer]
    assert operand.layout is not None
    levels = operand.layout.levels
    level = max((n for n, (_, kind) in enumerate(levels) if isinstance(kind, Compressed)), default=None)
    if level is None or any(dim == levels[level][0].dim for dim, _ in operand.layout.orders):
        return None
    digit = levels[level][0]
    if digit.divisor != 1:
        return None
    coordinate = Coordinate(buffer, digit.dim)
    indices = {index for load in _loads(kernel.body) for index in load.indices}
    uses = {tuple(term for term in summands(index) if coordinate in walk_expressions(term)) for index in indices} - {()}
    extent = operand.shape[operand.layout.dims.index(digit.dim)]
    if len(uses) != 1 or not isinstance(extent, int):
        return None
    (terms,) = uses
    if any(isinstance(part, Var | Load) for term in terms for part in walk_expressions(term)):
        return None
    last = digit.size or extent
    coordinates = np.arange(-(-extent // last) * last)
    values = sum(evaluate(term, {f"{buffer}.{digit.dim}": coordinates}) for term in terms)
    table = values[:last] - values[0]
    blocks = values.reshape(-1, last)
    if np.any(blocks != blocks[:, :1] + table) or table.min() < 0:
        return None
    dtype = np.uint16 if table.max() <= np.iinfo(np.uint16).max else np.uint32
    return Gather(terms, buffer, digit.dim, level, f"level{level}.indices", table.astype(dtype))


def evaluate(value: Expr, bindings: dict[str, np.ndarray]) -> np.ndarray:
    """Evaluate an integer expression over arrays of its coordinates, given by printed name as `W.k`."""
    if isinstance(value, Const):
        return np.asarray(value.value)
    if isinstance(value, Coordinate):
        return bindings[f"{value.buffer}.{value.dim}"]
    assert isinstance(value, Op)
    a, b = (evaluate(arg, bindings) for arg in value.args)
    return {"+": np.add, "-": np.subtract, "*": np.multiply, "//": np.floor_divide, "%": np.mod}[value.name](a, b)


def _loads(body: tuple[Stmt, ...]) -> Iterator[Load]:
    for stmt in body:
        if isinstance(stmt, Assign):
            for value in (stmt.target, stmt.value):
                yield from (part for part in walk_expressions(value) if isinstance(part, Load))
        else:
            yield from _loads(stmt.body)
