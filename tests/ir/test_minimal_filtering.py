"""Minimal filtering gives what direct sums give, with fewer products."""

import numpy as np
import pytest

from sparsec.ir.winograd import Winograd

TAPS = [2, 3, 4, 5]


@pytest.mark.parametrize("taps", TAPS)
def test_outputs_are_those_of_a_direct_filter(taps):
    algorithm, rng = Winograd.of(taps), np.random.default_rng(taps)
    x, w = rng.standard_normal(algorithm.reads), rng.standard_normal(taps)
    found = algorithm.output @ ((algorithm.filter @ w) * (algorithm.input @ x))
    np.testing.assert_allclose(found, np.correlate(x, w), rtol=0, atol=1e-13)


@pytest.mark.parametrize("taps", TAPS)
def test_all_take_six_products(taps):
    algorithm = Winograd.of(taps)
    assert algorithm.reads == 6 == algorithm.outputs + taps - 1
    assert algorithm.output.shape == (algorithm.outputs, 6)
    assert algorithm.filter.shape == (6, taps)
    assert algorithm.input.shape == (6, 6)


def test_inputs_are_transformed_by_small_integers():
    """So that float32 holds the matrix exactly."""
    assert Winograd.of(3).input.tolist() == [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
