"""Filters that reach far past their image: what sees padding alone is gone, and rows need no padding between them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.relax import op

from sparsec.graph.canonicalize import canonicalize
from sparsec.graph.graph import Graph, Node
from tests.graph.convolution_strategies import convolutions
from tests.graph.small_models import ops, run, same, small_graph
from tests.graph.test_plan_images import chain, conv

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def spread(layer, size, batch=1) -> Graph:
    build, shape = chain(layer, size=size, batch=batch)
    graph = small_graph(build, shape)
    before = run(graph)
    canonicalize(graph)
    same(before, run(graph))
    return graph


@st.composite
def far_filters(draw):
    """Filters that reach past an image, or stand behind it, with any stride."""
    size = draw(st.tuples(*[st.integers(1, 7)] * 2))
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, 12)] * 2))
    strides = draw(st.tuples(*[st.integers(1, 5)] * 2))
    before = draw(st.tuples(*[st.integers(0, 14)] * 2))
    needed = [(k - 1) * d + 1 - n - b for k, d, n, b in zip(kernel, dilation, size, before, strict=True)]
    after = [max(0, least) + draw(st.integers(0, 6)) for least in needed]
    how = {"padding": (*before, *after), "dilation": dilation, "strides": strides}
    return conv(kernel=kernel, groups=draw(st.sampled_from([1, 1, 2])), **how), size


@PROPERTY
@given(far_filters(), st.integers(1, 2))
def test_any_filter_that_reaches_far(filter_, batch):
    spread(*filter_, batch)


def test_columns_that_see_nothing_but_padding():
    graph = spread(conv(kernel=(1, 2), padding=(0, 6, 0, 6), dilation=(1, 10)), (4, 4))
    assert not np.any(run(graph)[0])


def only_filter(graph: Graph) -> Node:
    (node,) = (node for node in graph.nodes if node.op == "conv2d")
    return node


@PROPERTY
@given(convolutions(conv))
def test_any_convolution(convolution):
    spread(*convolution)


@pytest.mark.parametrize("dilation, kernel", [(36, (1, 1)), (14, (1, 1)), (13, (3, 1)), (6, (3, 3))])
def test_dilated_filters(dilation, kernel):
    graph = spread(conv(padding=(dilation,) * 4, dilation=(dilation, dilation)), (14, 14), 2)
    node = only_filter(graph)
    assert node.inputs[1].shape[2:] == kernel and node.inputs[0].shape[1] == (12 if kernel == (3, 1) else 4)
    assert ops(graph).count("concat") == (1 if kernel == (3, 1) else 0)


@pytest.mark.parametrize(
    "size, options",
    [
        ((1, 9), {"kernel": (1, 3), "padding": (0, 12, 0, 0), "dilation": (1, 6)}),
        ((20, 20), {"kernel": (7, 7), "padding": (3, 3, 3, 3), "strides": (4, 4)}),
    ],
)
def test_one_row_and_rows_that_are_near_stay(size, options):
    assert "concat" not in ops(spread(conv(**options), size))


def test_strides_and_even_padding_that_is_not():
    layer = conv(kernel=(3, 3), padding=(1, 9, 2, 7), strides=(2, 3), dilation=(1, 8))
    node = only_filter(spread(layer, (6, 11)))
    assert node.inputs[1].shape[3] == 1 and node.attrs["strides"] == (2, 1)


def test_groups_and_narrow_padding_stay():
    depthwise = conv(groups=4, padding=(4, 4, 4, 4), kernel=(3, 3), dilation=(4, 4))
    assert only_filter(spread(depthwise, (5, 5))).inputs[1].shape[2:] == (3, 3)
    assert ops(spread(lambda builder, x: op.nn.relu(conv()(builder, x)), (7, 7))) == ["conv2d", "nn.relu"]
