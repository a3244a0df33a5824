import math

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from sparsec.graph.evaluate import evaluate
from sparsec.graph.from_relax import from_relax
from tests.graph.small_models import canonical, import_small, ops, run, same

rng = np.random.default_rng(5)


def const(*shape: int) -> relax.Expr:
    return relax.const(rng.standard_normal(shape).astype("float32"))


def scalar(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


def check(build, *shapes, sizes=None, **symbols):
    imported = import_small(build, *shapes, **symbols)
    sizes = sizes or {}
    before, graph = run(from_relax(imported), **sizes), canonical(imported)
    same(before, run(graph, **sizes))
    return graph


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 5, 4)])
def test_a_constant_matrix_on_the_right_is_a_linear_layer(shape) -> None:
    graph = check(lambda bb, x: bb.emit(op.matmul(x, const(4, 6))), shape)
    assert [o for o in ops(graph) if o != "reshape"] == ["linear"]
    assert graph.constants()[0].shape == (6, 4) and graph.constants()[0].data.flags.c_contiguous


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 4, 3)])
def test_a_constant_matrix_on_the_left_is_a_linear_layer(shape) -> None:
    graph = check(lambda bb, x: bb.emit(op.matmul(const(6, 4), x)), shape)
    assert [o for o in ops(graph) if o not in ("permute_dims", "reshape")] == ["linear"]


def test_a_tied_weight_is_one_constant() -> None:
    table = const(10, 4)

    def build(bb, x):
        y = bb.emit(op.take(table, bb.emit(op.astype(x, "int32")), axis=0))
        return bb.emit(op.matmul(y, bb.emit(op.permute_dims(table))))

    graph = canonical(import_small(build, (3,)))
    assert ops(graph) == ["astype", "take", "linear"] and len(graph.constants()) == 1


def test_addmm_with_reshapes_computes_on_batch_and_tokens() -> None:
    def build(bb, x):
        y = bb.emit(op.reshape(x, (x.ty.shape[0] * x.ty.shape[1], 8)))
        y = bb.emit(op.add(const(6), bb.emit(op.matmul(y, const(8, 6)))))
        y = bb.emit(op.nn.gelu(bb.emit(op.reshape(y, (x.ty.shape[0], x.ty.shape[1], 6)))))
        y = bb.emit(op.matmul(bb.emit(op.reshape(y, (x.ty.shape[0] * x.ty.shape[1], 6))), const(6, 8)))
        return bb.emit(op.add(bb.emit(op.reshape(y, x.ty.shape)), x))

    graph = check(build, ("b", "t", 8), sizes={"b": 2, "t": 3}, b=(1, 8), t=(1, 64))
    assert ops(graph) == ["linear", "add", "nn.gelu", "linear", "add"]
    assert all(node.output.rank == 3 for node in graph.nodes)


def test_windows_keep_their_merged_tokens() -> None:
    def build(bb, x):
        y = bb.emit(op.matmul(bb.emit(op.reshape(x, (4 * 49, 8))), const(8, 6)))
        return bb.emit(op.reshape(y, (4, 7, 7, 6)))

    assert ops(check(build, (4, 7, 7, 8))) == ["reshape", "linear", "reshape"]


@pytest.mark.parametrize("spelling", ["power", "square", "multiply", "variance", "rsqrt"])
def test_layer_norm_spelled_out(spelling: str) -> None:
    def build(bb, x):
        centred = bb.emit(op.subtract(x, bb.emit(op.mean(x, -1, True))))
        squares = {
            "power": lambda: op.power(centred, scalar(2)),
            "multiply": lambda: op.multiply(centred, centred),
        }.get(spelling, lambda: op.square(centred))
        variance = op.variance(x, -1, True) if spelling == "variance" else op.mean(bb.emit(squares()), -1, True)
        stable = bb.emit(op.add(bb.emit(variance), scalar(1e-5)))
        if spelling == "rsqrt":
            y = bb.emit(op.multiply(centred, bb.emit(op.rsqrt(stable))))
        else:
            y = bb.emit(op.divide(centred, bb.emit(op.sqrt(stable))))
        return bb.emit(op.add(bb.emit(op.multiply(y, const(8))), const(8)))

    graph = check(build, (2, 3, 8))
    assert ops(graph) == ["nn.layer_norm"]
    assert graph.nodes[0].attrs["axes"] == (-1,)


def test_softmax_spelled_out() -> None:
    def build(bb, x):
        e = bb.emit(op.exp(bb.emit(op.subtract(x, bb.emit(op.max(x, 1, True))))))
        return bb.emit(op.divide(e, bb.emit(op.sum(e, 1, True))))

    assert ops(check(build, (2, 5, 3))) == ["nn.softmax"]


@pytest.mark.parametrize("masked", [False, True])
def test_softmax_that_is_zero_where_all_is_masked(masked: bool) -> None:
    def build(bb, x, y, mask):
        scores = bb.emit(op.multiply(bb.emit(op.matmul(x, y)), scalar(0.5)))
        lowest = relax.const(np.float32(-np.inf))
        if masked:
            scores = bb.emit(op.where(bb.emit(op.greater(mask, scalar(0))), scores, lowest))
        finite = bb.emit(op.astype(bb.emit(op.logical_not(bb.emit(op.equal(scores, lowest)))), "int8"))
        alive = bb.emit(op.astype(bb.emit(op.max(finite, -1, True)), "bool"))
        softmax = bb.emit(op.nn.softmax(scores))
        return bb.emit(op.where(bb.emit(op.logical_not(alive)), bb.emit(op.full_like(softmax, scalar(0))), softmax))

    graph = canonical(import_small(build, (4, 5), (5, 3), (4, 3)))
    expected = ["matmul", "multiply", "nn.softmax"]
    assert ops(graph) == (["matmul", "multiply", *MASKED] if masked else expected)
    arrays = [rng.standard_normal(v.shape).astype("float32") for v in graph.inputs]
    arrays[2][1] = -1  # nothing is left of this row
    with np.errstate(invalid="ignore"):
        (weights,) = evaluate(graph, arrays)
    assert np.isfinite(weights).all()
    assert weights[1].sum() == pytest.approx(0 if masked else 1)


MASKED = ["greater", "where", "nn.softmax", "max", "equal", "where"]


@pytest.mark.parametrize("order", range(3))
def test_gelu_spelled_out(order: int) -> None:
    def build(bb, x):
        one_plus = bb.emit(op.add(bb.emit(op.erf(bb.emit(op.divide(x, scalar(math.sqrt(2)))))), scalar(1)))
        factors = [x, one_plus, scalar(0.5)]
        factors = factors[order:] + factors[:order]
        return bb.emit(op.multiply(bb.emit(op.multiply(factors[0], factors[1])), factors[2]))

    assert ops(check(build, (2, 8))) == ["nn.gelu"]


@pytest.mark.parametrize("causal", [None, "TopLeft", "BottomRight"])
def test_attention_is_written_out(causal) -> None:
    def build(bb, q, k, v):
        return bb.emit(op.nn.attention(q, k, v, causal_mask=causal))

    graph = check(build, (2, 5, 3, 8), (2, 7, 3, 8), (2, 7, 3, 4))
    assert ops(graph).count("matmul") == 2 and ops(graph).count("nn.softmax") == 1
    assert ops(graph).count("where") == (causal is not None)


def test_convolutions_have_one_form() -> None:
    def build(bb, x):
        y = bb.emit(op.nn.conv1d(x, const(6, 2, 3), strides=2, padding=1, dilation=1, groups=2))
        return bb.emit(op.nn.relu(y))

    graph = check(build, (2, 4, 9))
    conv = next(node for node in graph.nodes if node.op == "conv2d")
    form = {"strides": (1, 2), "padding": (0, 1, 0, 1), "dilation": (1, 1), "groups": 2, "blank": 0}
    assert conv.attrs == form


def test_what_changes_nothing_vanishes() -> None:
    def build(bb, x):
        y = bb.emit(relax.TupleGetItem(bb.emit(op.nn.dropout(x)), 0))
        y = bb.emit(op.astype(bb.emit(op.reshape(y, (2, 3, 4))), "float32"))
        y = bb.emit(op.permute_dims(bb.emit(op.permute_dims(y, (0, 2, 1))), (0, 2, 1)))
        y = bb.emit(op.squeeze(bb.emit(op.expand_dims(bb.emit(op.concat([y])), 1)), 1))
        y = bb.emit(op.multiply(scalar(1), bb.emit(op.broadcast_to(y, (2, 3, 4)))))
        return bb.emit(op.nn.relu(bb.emit(op.strided_slice(y, [0], [0], [2]))))

    assert ops(check(build, (2, 3, 4))) == ["nn.relu"]


def test_selecting_a_position_is_a_slice() -> None:
    def build(bb, x):
        return bb.emit(op.tanh(bb.emit(op.take(x, relax.const(-1, "int64"), axis=1))))

    graph = check(build, (2, 3, 4))
    assert ops(graph) == ["strided_slice", "tanh", "reshape"]
    assert graph.nodes[0].attrs["begin"] == (2,)


def test_convolutions_over_sequences_stay_images_between_each_other() -> None:
    def build(bb, x):
        for inputs, outputs in ((4, 6), (6, 5)):
            y = bb.emit(op.nn.conv1d(x, const(outputs, inputs, 3), padding=1))
            y = bb.emit(op.add(y, const(1, outputs, 1)))
            parameters = [const(outputs), const(outputs), const(outputs), relax.const(np.ones(outputs, "float32"))]
            norm = bb.emit(op.nn.batch_norm(y, *parameters, axis=1, training=False))
            x = bb.emit(op.nn.relu(bb.emit(relax.TupleGetItem(norm, 0))))
        return x

    graph = check(build, (2, 4, 9))
    assert ops(graph) == ["reshape", *["conv2d", "add", "nn.relu"] * 2, "reshape"]
