"""Linear layers over images: all pixels are columns, and nothing is moved where channels lay in front anyway."""

import pytest
from tvm.relax import op

from sparsec.graph.canonicalize import canonicalize
from sparsec.graph.graph import Graph
from sparsec.graph.plan_layouts import plan_layouts
from tests.graph.small_models import ops, run, same, small_graph
from tests.graph.test_plan_layouts import const, permutes


def merged(build, *shapes, **symbols) -> Graph:
    graph = small_graph(build, *shapes, **symbols)
    sizes = {name: lower for name, (lower, _) in symbols.items()}
    before = run(graph, **sizes)
    canonicalize(graph)
    same(before, run(graph, **sizes))
    return graph


def columns(graph: Graph) -> list[tuple[int, ...]]:
    return [node.output.shape[:-1] for node in graph.nodes if node.op == "linear"]


def dense(bb, x, wide: int):
    return bb.emit(op.add(bb.emit(op.matmul(x, const(int(x.ty.shape[-1]), wide))), const(wide)))


def block(bb, x):
    """What ConvNeXt does to an image after its depthwise convolution."""
    channels = int(x.ty.shape[1])
    y = bb.emit(op.permute_dims(x, (0, 2, 3, 1)))
    y = bb.emit(op.nn.layer_norm(y, const(channels), const(channels), axes=[-1]))
    y = dense(bb, bb.emit(op.nn.gelu(dense(bb, y, 4 * channels))), channels)
    return bb.emit(op.add(bb.emit(op.permute_dims(y, (0, 3, 1, 2))), x))


@pytest.mark.parametrize("height, width", [(7, 7), (5, 9), (3, 70)])
def test_images_with_channels_in_front_are_not_moved(height, width):
    graph = merged(block, (2, 8, height, width))
    assert columns(graph) == [(2, height * width)] * 2
    plan_layouts(graph)
    assert permutes(graph) == 0


def test_pixels_of_images_with_channels_behind_are_merged():
    def build(bb, x):
        y = bb.emit(op.nn.relu(dense(bb, x, 12)))
        return bb.emit(op.add(dense(bb, y, 6), x))

    graph = merged(build, (1, 7, 9, 6))
    assert columns(graph) == [(1, 63)] * 2
    assert ops(graph).count("reshape") == 2  # of the input, and to the output


def test_what_broadcasts_along_pixels_stays_and_the_rest_is_merged():
    def build(bb, x, mask):
        y = bb.emit(op.multiply(dense(bb, x, 8), mask))
        return dense(bb, bb.emit(op.nn.relu(y)), 6)

    graph = merged(build, (1, 5, 7, 6), (1, 5, 1, 1))
    assert columns(graph) == [(1, 35)] * 2
    (scaled,) = (node for node in graph.nodes if node.op == "multiply")
    assert scaled.output.shape == (1, 5, 7, 8)


def test_long_rows_that_come_with_channels_behind_stay():
    graph = merged(lambda bb, x: dense(bb, x, 8), (1, 3, 64, 6))
    assert columns(graph) == [(1, 3, 64)]


def test_a_symbolic_batch_keeps_its_axis():
    graph = merged(block, ("n", 8, 5, 6), n=(2, 4))
    assert [shape[1:] for shape in columns(graph)] == [(30,)] * 2


def test_one_long_axis_and_symbolic_sides_stay():
    assert columns(merged(lambda bb, x: dense(bb, x, 8), (2, 1, 9, 6))) == [(2, 1, 9)]
    graph = merged(lambda bb, x: dense(bb, x, 8), (1, "h", 7, 6), h=(2, 9))
    assert len(columns(graph)[0]) == 3
