"""Reductions to infinity, and functions of the C library, against NumPy."""

import numpy as np
import pytest
from tvm import relax

from tests.schedules.relax_groups import compiled, group


@pytest.mark.parametrize("shape", [(3, 1), (5, 7), (4, 300), (130, 2)])
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_extrema_of_rows_that_are_infinite(shape: tuple[int, int], axis: int | tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    x[:, 0] = x[0] = -np.inf
    for operator, expected in ((relax.op.max, x.max(axis)), (relax.op.min, (-x).min(axis))):
        kernel = compiled(group(lambda emit, v, operator=operator: operator(v, axis=axis), shape))
        (result,) = kernel([x if operator is relax.op.max else -x], np.asarray(expected))
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("size", [1, 31])
def test_extrema_of_bools(size: int) -> None:
    x = np.random.default_rng(0).random((size, 5)) < 0.3
    for operator, expected in ((relax.op.max, x.any(1)), (relax.op.min, x.all(1))):
        kernel = compiled(group(lambda emit, v, operator=operator: operator(v, axis=1), x.shape, dtypes=["bool"]))
        np.testing.assert_array_equal(kernel([x], expected)[0], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sinh", "cosh"])
def test_functions_of_the_library_keep_small_and_large_values(name: str, dtype: str) -> None:
    x = np.array([-88, -3, -1e-6, 0, 1e-30, 1e-4, 0.5, 20, 88], dtype)
    kernel = compiled(group(lambda emit, v: getattr(relax.op, name)(v), x.shape, dtypes=[dtype]))
    np.testing.assert_allclose(kernel([x], x)[0], getattr(np, name)(x), rtol=1e-6)
