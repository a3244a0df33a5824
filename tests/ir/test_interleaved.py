"""Columns of interleaved rows come back in order."""

import numpy as np
import pytest

from sparsec.ir.interleaved import interleaved, straight
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Expr, Var
from sparsec.ir.parser import parse_kernel
from sparsec.ir.printer import print_expression

V = Var("v")


def columns_at(place: Expr, count: int) -> np.ndarray:
    """Return what an expression over `v` is for each of so many."""
    kernel = parse_kernel(
        f"kernel places(X: int32[{count}]) -> Y: int32[{count}]:\n"
        f"    for v in range(0, {count}):\n        Y[v] = X[{print_expression(place)}]\n"
    )
    return interpret(kernel, {"X": np.arange(count, dtype=np.int32)})["Y"]


@pytest.mark.parametrize("vectors", [1, 2, 3])
@pytest.mark.parametrize(
    ("depths", "columns", "itemsize"), [(4, 64, 1), (4, 32, 1), (2, 32, 2), (2, 16, 2), (4, 16, 1), (8, 32, 4)]
)
def test_columns_come_back_in_order(depths, columns, itemsize, vectors):
    shape = depths, columns, itemsize, vectors
    count = columns * vectors
    there, back = columns_at(interleaved(V, *shape), count), columns_at(straight(V, *shape), count)
    np.testing.assert_array_equal(there[back], np.arange(count))
    np.testing.assert_array_equal(there // columns, np.arange(count) // columns)
