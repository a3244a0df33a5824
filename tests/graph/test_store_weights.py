"""Weights of products in half precision: how they are rounded, which they are, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sparsec
from sparsec.errors import UnsupportedError
from sparsec.graph.graph import Graph, Node
from sparsec.graph.products import find_anchor
from sparsec.graph.store_weights import store_weights

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
FLOATS = st.floats(-65504, 65504, width=32)


def layer(weight: np.ndarray) -> tuple[Graph, Node]:
    graph = Graph()
    x = graph.input("x", (weight.shape[1], 8), "float32")
    y = graph.add("linear_cols", [x, graph.constant(weight, "w")], (len(weight), 8))
    y.producer.where = "encoder/fc1"
    graph.outputs = [graph.add("add", [y, graph.constant(np.ones((len(weight), 1), np.float32))], y.shape)]
    return graph, y.producer


@pytest.mark.parametrize("half", UNITS)
@settings(deadline=None)
@given(weight=arrays(np.float32, (4, 6), elements=FLOATS))
def test_each_weight_is_off_by_a_unit_at_most(half, weight):
    graph, node = layer(weight)
    store_weights(graph, half)
    graph.verify()
    stored = node.inputs[1].data
    assert str(stored.dtype) == node.inputs[1].dtype == half
    error = np.abs(stored.astype(np.float64) - weight)
    least = 2.0**-25 if half == "float16" else 2.0**-134
    assert (error <= np.maximum(UNITS[half] * np.abs(weight), least)).all()
    assert ((stored == 0) >= (weight == 0)).all()


def test_activations_and_other_constants_keep_their_types():
    graph, node = layer(np.ones((4, 6), np.float32))
    store_weights(graph, "bfloat16")
    bias = graph.nodes[1].inputs[1]
    assert node.inputs[0].dtype == node.output.dtype == bias.dtype == "float32"
    product = find_anchor(node).product
    assert (product.weight.dtype, product.x.dtype, product.sums, product.y.dtype) == ("bfloat16", *["float32"] * 3)


def test_halves_stay_what_they_are():
    graph, node = layer(np.ones((4, 6), np.float16))
    store_weights(graph, "bfloat16")
    assert node.inputs[1].dtype == "float16"


def test_a_weight_too_large_for_the_type_is_refused_by_name():
    weight = np.ones((4, 6), np.float32)
    weight[2, 3] = -70000
    graph, _ = layer(weight)
    with pytest.raises(UnsupportedError, match=r"encoder/fc1: the weight 70000 is too large for float16; .* bfloat16"):
        store_weights(graph, "float16")
    store_weights(graph, "bfloat16")


def test_infinities_of_the_model_are_kept():
    weight = np.full((4, 6), np.inf, np.float32)
    weight[0] = np.nan
    graph, node = layer(weight)
    store_weights(graph, "float16")
    np.testing.assert_array_equal(node.inputs[1].data.astype(np.float32), weight)


def test_nothing_is_stored_between_the_groups_of_a_depthwise_filter():
    """In bytes, too, whose dense layouts hold all channels."""
    layer, x = torch.nn.Conv2d(32, 32, 3, padding=1, groups=32), torch.randn(1, 32, 14, 14)
    (found,) = sparsec.inspect(layer, example_inputs=(x,), storage="int8").layers
    assert found.nbytes < 8 * 32 * 9
