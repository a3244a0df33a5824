"""`sparsec.op("low_bit_matmul")`: what runs, for what it is given, and what it says of what it does not take."""

import numpy as np
import pytest

import sparsec
from sparsec.errors import InputError, LayoutError

RNG = np.random.default_rng(0)
BINARY = RNG.choice([-1, 1], (30, 100))


def test_binary_weights_and_activations_of_two_bits():
    x = RNG.integers(0, 4, (100, 37), dtype=np.uint8)
    y = sparsec.op("low_bit_matmul", BINARY, columns=37)(x)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, BINARY @ x.astype(int))


def test_binary_networks_over_a_batch_and_any_number_of_columns():
    multiply = sparsec.op("low_bit_matmul", BINARY, columns=(1, 64), activations="binary", batch=3)
    for columns in (1, 16, 37, 64):
        x = RNG.choice(np.int8([-1, 1]), (3, 100, columns))
        np.testing.assert_array_equal(multiply(x), BINARY @ x.astype(int))


def test_scaled_rows():
    weight, scale = RNG.integers(-8, 8, (12, 40)), RNG.random(12, np.float32)
    x = RNG.integers(-4, 4, (40, 16), dtype=np.int8)
    y = sparsec.op("low_bit_matmul", weight, 16, weights="int4", activations="int3", scale=scale)(x)
    np.testing.assert_array_equal(y, np.float32(weight @ x.astype(int)) * scale[:, None])
    one = sparsec.op("low_bit_matmul", weight, 16, weights="int4", activations="int3", scale=0.5)(x)
    np.testing.assert_array_equal(one, (weight @ x.astype(int)) / 2)


def test_a_layout_that_is_given():
    weight = RNG.integers(0, 2, (12, 96))
    x = RNG.integers(0, 16, (96, 16), dtype=np.uint8)
    for layout in ("CSR", "(i, k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : dense)"):
        multiply = sparsec.op("low_bit_matmul", weight, 16, weights="uint1", activations="uint4", layout=layout)
        np.testing.assert_array_equal(multiply(x), weight @ x.astype(int))
    with pytest.raises(LayoutError, match="walk the rows before the words"):
        sparsec.op("low_bit_matmul", weight, 16, weights="uint1", layout="CSC")


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (np.ones((3, 3)), {"weights": "int5"}, "weights='int5' was given; expected binary, uint1 to uint4, or int1"),
        (np.ones((3, 3)), {"activations": "fp4"}, "activations='fp4' was given"),
        (np.zeros((3, 3)), {}, "other numbers than those of 'binary', which are from -1 to 1"),
        (np.full((3, 3), 4), {"weights": "uint2"}, "other numbers than those of 'uint2', which are from 0 to 3"),
        (np.full((3, 3), 0.5), {"weights": "uint2"}, "other numbers than those of 'uint2'"),
        (np.ones(3), {}, "low_bit_matmul takes a matrix"),
        (np.ones((3, 3)), {"batch": 0}, "batch=0"),
    ],
)
def test_operands_that_do_not_fit(weight, options, message):
    with pytest.raises(InputError, match=message):
        sparsec.op("low_bit_matmul", weight, 8, **options)
