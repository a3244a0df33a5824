"""Integers that weights were made of, found by value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsec.graph.find_integers import as_integers, find_integers
from sparsec.graph.graph import Graph

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("group", [0, 4, 5])
@settings(deadline=None)
@given(
    integers=arrays(np.int8, (3, 10), elements=st.integers(-128, 127)),
    scales=arrays(np.float32, (3, 3), elements=st.floats(2.0**-60, 2.0**60, width=32)),
)
def test_every_weight_comes_back(group, integers, scales):
    width = group or 10
    weight = integers.astype(np.float32) * np.repeat(scales, width, axis=1)[:, :10]
    found = as_integers(weight, group)
    assert found is not None
    np.testing.assert_array_equal(found.dense(), weight)


@pytest.mark.parametrize(("low", "high", "dtype"), [(-8, 8, "int4"), (-9, 8, "int8"), (-128, 128, "int8")])
def test_the_narrowest_type_is_taken(low, high, dtype):
    integers = RANDOM.integers(low, high, (64, 64)).astype(np.float32)
    integers[0, :2] = low, 1
    found = as_integers(integers * np.float32(0.37))
    assert str(found.integers.dtype) == dtype


def test_scaled_rows_are_still_on_grids():
    """As behind a batch norm, whose factors round once more."""
    weight = RANDOM.integers(-128, 128, (16, 72)).astype(np.float32) * np.float32(0.013)
    weight *= RANDOM.uniform(0.1, 10, (16, 1)).astype(np.float32)
    found = as_integers(weight)
    np.testing.assert_allclose(found.dense(), weight, rtol=2.0**-21)


@pytest.mark.parametrize("group", [0, 8])
def test_floats_are_none(group):
    assert as_integers(RANDOM.standard_normal((16, 64)).astype(np.float32), group) is None


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_is_none(odd):
    weight = np.ones((4, 8), np.float32)
    weight[3, 1] = odd
    assert as_integers(weight) is None


def test_more_bits_are_none():
    weight = np.arange(300, dtype=np.float32).reshape(1, -1)
    assert as_integers(weight) is None


def test_zeros_are_integers():
    found = as_integers(np.zeros((2, 8), np.float32), 4)
    assert not found.dense().any()


def test_rows_are_tried_before_groups():
    graph = Graph()
    x = graph.input("x", (64, 8), "float32")
    weight = RANDOM.integers(-8, 8, (4, 64)).astype(np.float32) * np.float32(0.25)
    graph.outputs = [graph.add("linear_cols", [x, graph.constant(weight)], (4, 8))]
    find_integers(graph, {32, 0})
    graph.verify()
    assert [node.op for node in graph.nodes] == ["linear_cols", "multiply"]
