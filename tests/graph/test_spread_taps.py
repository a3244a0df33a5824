"""Filters that reach far past their image: what sees padding alone is gone, and rows need no padding between them."""

import pytest
from hypothesis import given, settings
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


def test_strides_and_even_padding_that_is_not():
    layer = conv(kernel=(3, 3), padding=(1, 9, 2, 7), strides=(2, 3), dilation=(1, 8))
    node = only_filter(spread(layer, (6, 11)))
    assert node.inputs[1].shape[3] == 1 and node.attrs["strides"] == (2, 1)


def test_groups_and_narrow_padding_stay():
    depthwise = conv(groups=4, padding=(4, 4, 4, 4), kernel=(3, 3), dilation=(4, 4))
    assert only_filter(spread(depthwise, (5, 5))).inputs[1].shape[2:] == (3, 3)
    assert ops(spread(lambda builder, x: op.nn.relu(conv()(builder, x)), (7, 7))) == ["conv2d", "nn.relu"]
