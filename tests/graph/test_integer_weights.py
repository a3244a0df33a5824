"""Weights rounded to integers: how far off they are, which are refused, and what the graph makes of their scales."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsec.errors import UnsupportedError
from sparsec.graph.graph import Graph, Node
from sparsec.graph.integer_weights import GREATEST, relative_error, round_to_integers
from sparsec.graph.products import find_anchor
from sparsec.graph.store_weights import ERROR, store_weights

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


def layer(weight: np.ndarray) -> Graph:
    graph = Graph()
    x = graph.input("x", (weight.shape[1], 8), "float32")
    y = graph.add("linear_cols", [x, graph.constant(weight, "w")], (len(weight), 8))
    y.producer.where = "encoder/fc1"
    graph.outputs = [graph.add("add", [y, graph.constant(np.ones((len(weight), 1), np.float32))], y.shape)]
    return graph


def convolution(groups: int) -> Graph:
    graph = Graph()
    x = graph.input("x", (1, 8, 16), "float32")
    weight = np.random.default_rng(0).standard_normal((8, 8 // groups, 1, 1)).astype(np.float32)
    attrs = {"groups": groups, "image": None}
    graph.outputs = [graph.add("conv_padded", [x, graph.constant(weight, "w")], (1, 8, 16), attrs)]
    return graph


def product_of(graph: Graph) -> Node:
    return next(node for node in graph.nodes if node.op in ("linear_cols", "conv_padded"))


@pytest.mark.parametrize("group", [0, 4, 32])
@pytest.mark.parametrize("dtype", GREATEST)
@settings(deadline=None)
@given(weight=arrays(np.float32, (3, 10), elements=FLOATS))
def test_no_weight_is_off_by_more_than_half_of_its_scale(dtype, group, weight):
    found = round_to_integers(weight, dtype, group)
    width = group or 10
    scales = np.repeat(found.scales.astype(np.float64), width, axis=1)[:, :10]
    assert found.integers.dtype == dtype and (np.abs(found.integers.astype(int)) <= GREATEST[dtype]).all()
    error = np.abs(scales * found.integers.astype(np.float64) - weight)
    assert (error <= scales * (0.5 + 2.0**-16) + 2.0**-140).all()
    assert (found.integers[weight == 0].astype(int) == 0).all()
    np.testing.assert_allclose(found.dense(), (scales * found.integers.astype(np.float64)), rtol=1e-6, atol=1e-44)


def test_an_outlier_takes_the_bits_of_its_own_group_only():
    weight = np.random.default_rng(0).standard_normal((4, 256)).astype(np.float32)
    weight[:, 3] = 1000
    stored = [round_to_integers(weight, "int4", group).dense() for group in (0, 32)]
    whole, grouped = (relative_error(weight[:, 32:], each[:, 32:]) for each in stored)
    assert whole == 1 and grouped < 0.2


def test_rows_of_zeros_stay_zeros():
    weight = np.zeros((2, 8), np.float32)
    weight[1, 5] = 3
    for group in (0, 4):
        np.testing.assert_array_equal(round_to_integers(weight, "int4", group).dense(), weight)


def test_a_scale_for_each_row_is_multiplied_behind_the_layer():
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    graph = layer(weight)
    store_weights(graph, "int8")
    graph.verify()
    node, multiply = graph.nodes[:2]
    assert multiply.op == "multiply" and multiply.inputs[1].shape == (4, 1)
    assert node.where == multiply.where == "encoder/fc1"
    assert (node.inputs[1].dtype, node.output.dtype) == ("int8", "float32")
    assert node.attrs[ERROR] == pytest.approx(relative_error(weight, node.inputs[1].data * multiply.inputs[1].data))
    product = find_anchor(node).product
    assert (product.weight.dtype, product.sums, product.scales) == ("int8", "float32", None)


def test_scales_of_groups_are_an_operand():
    graph = layer(np.random.default_rng(0).standard_normal((4, 100)).astype(np.float32))
    store_weights(graph, "int4:32")
    graph.verify()
    anchor = find_anchor(product_of(graph))
    assert anchor.product.scales.shape == anchor.constants["S"].shape == (4, 4) and anchor.product.group == 32
    assert [node.op for node in graph.nodes] == ["linear_cols", "add"]


def test_rows_of_grouped_convolutions_have_one_scale():
    plain, grouped = convolution(1), convolution(4)
    for graph in (plain, grouped):
        store_weights(graph, "int4:32")
    assert "group" in product_of(plain).attrs and "group" not in product_of(grouped).attrs


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", ["int8", "int4:32"])
def test_what_is_not_finite_is_refused_by_name(storage, odd):
    weight = np.ones((4, 6), np.float32)
    weight[2, 3] = odd
    with pytest.raises(UnsupportedError, match=rf"^encoder/fc1: the weight {odd} cannot be stored as int\d, .*$"):
        store_weights(layer(weight), storage)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_integers_stay_what_they_are(storage):
    graph = layer(np.ones((4, 6), np.int8))
    store_weights(graph, storage)
    assert product_of(graph).inputs[1].dtype == "int8"
