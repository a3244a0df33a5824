import numpy as np
from tvm import relax
from tvm.relax import op

from sparsec.graph.from_relax import from_relax
from tests.graph.small_models import canonical, import_small, ops, run, same

rng = np.random.default_rng(3)


def const(*shape: int, positive: bool = False) -> relax.Expr:
    data = rng.standard_normal(shape).astype("float32")
    return relax.const(np.abs(data) + 0.5 if positive else data)


def batch_norm(bb, x, channels: int, axis: int = 1):
    norm = op.nn.batch_norm(
        x, const(channels), const(channels), const(channels), const(channels, positive=True), axis=axis, training=False
    )
    return bb.emit(relax.TupleGetItem(bb.emit(norm), 0))


def check(build, *shapes):
    imported = import_small(build, *shapes)
    before, graph = run(from_relax(imported)), canonical(imported)
    same(before, run(graph))
    return graph


def test_conv_bias_and_batch_norm_become_one_conv_and_one_add() -> None:
    weight = rng.standard_normal((6, 4, 3, 3)).astype("float32") * (rng.random((6, 4, 3, 3)) < 0.3)

    def build(bb, x):
        y = bb.emit(op.add(bb.emit(op.nn.conv2d(x, relax.const(weight), padding=1)), const(1, 6, 1, 1)))
        return bb.emit(op.nn.relu(batch_norm(bb, y, 6)))

    graph = check(build, (2, 4, 5, 5))
    assert ops(graph) == ["conv2d", "add", "nn.relu"]
    np.testing.assert_array_equal(graph.nodes[0].inputs[1].data == 0, weight == 0)


def test_a_chain_of_affine_steps_folds_into_linear() -> None:
    def build(bb, x):
        y = bb.emit(op.matmul(x, const(4, 6)))
        y = bb.emit(op.subtract(const(6), y))
        y = bb.emit(op.divide(y, const(1, 6, positive=True)))
        return batch_norm(bb, bb.emit(op.multiply(y, relax.const(np.float32(0.5)))), 6, axis=2)

    assert ops(check(build, (2, 3, 4))) == ["linear", "add"]


def test_a_result_that_others_read_is_left() -> None:
    def build(bb, x):
        y = bb.emit(op.nn.conv2d(x, const(4, 4, 1, 1)))
        return bb.emit(op.add(batch_norm(bb, y, 4), y))

    assert ops(check(build, (1, 4, 3, 3))) == ["conv2d", "multiply", "add", "add"]


def test_a_batch_norm_without_a_layer_is_spelled_out() -> None:
    graph = check(lambda bb, x: bb.emit(op.nn.relu(batch_norm(bb, x, 4))), (2, 4, 3, 3))
    assert ops(graph) == ["multiply", "add", "nn.relu"]


def test_spatial_bias_is_no_channel() -> None:
    def build(bb, x):
        return bb.emit(op.multiply(bb.emit(op.nn.conv2d(x, const(4, 4, 1, 1))), const(1, 1, 3, 3)))

    assert ops(check(build, (1, 4, 3, 3))) == ["conv2d", "multiply"]


def test_depthwise_weights_scale_by_output() -> None:
    def build(bb, x):
        return batch_norm(bb, bb.emit(op.nn.conv2d(x, const(8, 1, 3, 3), groups=4)), 8)

    assert ops(check(build, (1, 4, 5, 5))) == ["conv2d", "add"]
