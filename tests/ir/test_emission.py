"""Operands are loaded from wherever they are, whatever the strides."""

import numpy as np
import pytest

from sparsec.ir.interpreter import interpret
from sparsec.ir.lower import lower
from sparsec.ir.parser import parse_kernel
from sparsec.schedules.tensorize import tensorize
from tests.ir.product_cases import Compiled

KERNEL = """
kernel case(A: {dtype}[700], X: {dtype}[20, 35]) -> Y: {sums}[{lanes}]:
    tile acc: {sums}[1, {lanes}]:
        for v in range(0, {lanes}):
            acc[0, v] = {zero}
        for n in range(0, 2):
            for v in range(0, {lanes}):
                acc[0, v] += A[{a}] * X[{x}]
        for v in range(0, {lanes}):
            Y[v] = acc[0, v]
"""

INDICES = {  # of A, and of X, which has rows of 35
    "in one piece": ("n + v", "1, v + 3"),
    "the same for all": ("n * 7", "n, 3"),
    "every second": ("v * 2 + 1", "n, v * 2"),
    "every third": ("v * 3 + n", "0, v"),
    "backwards": ("40 - v", "2, 33 - v"),
    "far apart": ("v * 41", "v, n"),
    "groups of four, again and again": ("v % 4 + n", "0, v % 4"),
    "groups of three": ("v % 3", "n, v % 3"),
    "each four times": ("v // 4", "0, v // 4 + n"),
    "in a strange order": ("v * 5 % 16", "n, v * 7 % 16"),
    "over the end of a row": ("v", "n + v // 8, v % 8"),
}


@pytest.mark.parametrize("indices", INDICES)
@pytest.mark.parametrize("types", ["float32", "uint8", "int16", "float16"])
def test_operands_are_loaded_from_wherever_they_are(indices, types):
    sums, zero = ("float32", "0.0") if types.startswith("float") else ("int32", "0")
    a, x = INDICES[indices]
    text = KERNEL.format(dtype=types, sums=sums, zero=zero, lanes=16, a=a, x=x)
    kernel = tensorize(parse_kernel(text), "update", "fma.16")
    assert " as fma.16:" in str(kernel)
    random = np.random.default_rng(0)
    arrays = {"A": random.integers(0, 99, 700).astype(types), "X": random.integers(0, 99, (20, 35)).astype(types)}
    lowered = lower(kernel)
    found = Compiled(lowered, lowered.func)(arrays, {"Y": (16,)})["Y"]
    np.testing.assert_array_equal(found, interpret(kernel, arrays)["Y"])
