"""Operators over integers mean what ONNX Runtime computes for them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sparsec.errors import UnsupportedError
from sparsec.frontends import load_model
from sparsec.graph.evaluate import evaluate
from sparsec.graph.from_relax import from_relax
from sparsec.graph.integer_layers import integer_layers
from sparsec.targets import Target
from tests.graph.quantized_models import Writer, reference, sample, steps_off

SHAPE = (2, 8, 9, 9)


def check(model: onnx.ModelProto) -> None:
    x = sample(model)
    wanted = reference(model, x)
    assert len(np.unique(wanted)) > 10
    graph = from_relax(load_model(model))
    np.testing.assert_array_equal(evaluate(graph, [x])[0], wanted)
    integer_layers(graph, Target.parse("znver4"))
    np.testing.assert_array_equal(evaluate(graph, [x])[0], wanted)


def check_up_to_rounding(model: onnx.ModelProto, scale: float) -> None:
    """ONNX Runtime has tables, sums in trees, and products of scales, which round otherwise."""
    x = sample(model)
    off = steps_off(evaluate(from_relax(load_model(model)), [x])[0], reference(model, x), scale)
    assert off.max() <= 1 and off.mean() < 0.02


def stored(write: Writer, x: str = "x", scale: float = 0.03) -> tuple[str, str, str]:
    """x as integers, with their scale and zero."""
    return write.stored(x, scale), *write.parameters(scale)


def weight(write: Writer, *shape: int, scales: int = 0, zero: int = 0, dtype: type = np.int8) -> tuple[str, str, str]:
    limits = np.iinfo(dtype)
    # Of int8 half the range: ONNX Runtime saturates sums of two larger products on processors without VNNI.
    low, high = (-64, 64) if dtype is np.int8 else (limits.min, limits.max + 1)
    q = write.random.integers(low, high, shape).astype(dtype)
    size = (scales,) if scales else ()
    scale = write.random.uniform(0.005, 0.015, size).astype(np.float32)
    return write.constant(q), write.constant(scale), write.constant(np.full(size, zero, dtype))


@pytest.mark.parametrize("scales", [0, 16])
@pytest.mark.parametrize("activation", [np.uint8, np.int8])
@pytest.mark.parametrize("biased", [False, True])
def test_q_linear_conv(scales, activation, biased):
    write = Writer(activation)
    bias = [write.constant(write.random.integers(-900, 900, 16).astype(np.int32))] if biased else []
    y = write.parameters(0.1)
    how = {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": 2}
    y = write.op("QLinearConv", *stored(write), *weight(write, 16, 4, 3, 3, scales=scales), *y, *bias, **how)
    check(write.model(SHAPE, write.read(y, 0.1)))


@pytest.mark.parametrize("scales", [0, 12])
def test_q_linear_mat_mul(scales):
    write = Writer()
    right = weight(write, 20, 12, scales=scales)
    y = write.op("QLinearMatMul", *stored(write), *right, *write.parameters(0.1))
    check(write.model((6, 20), write.read(y, 0.1)))


def test_q_linear_mat_mul_of_activations():
    write = Writer()
    y = write.op(
        "QLinearMatMul", *stored(write), *stored(write, write.op("Transpose", "x", perm=[1, 0])), *write.parameters(0.2)
    )
    check(write.model((6, 20), write.read(y, 0.2)))


@pytest.mark.parametrize("zeros", [0, 12])
def test_mat_mul_integer(zeros):
    write = Writer()
    q, _, zero = stored(write)
    w, _, w_zero = weight(write, 20, 12, scales=zeros, zero=3)
    check(write.model((6, 20), write.op("MatMulInteger", q, w, zero, w_zero), TensorProto.INT32))


def test_mat_mul_integer_without_a_zero_for_its_weight():
    write = Writer()
    q, _, zero = stored(write)
    w, *_ = weight(write, 20, 12)
    check(write.model((6, 20), write.op("MatMulInteger", q, w, zero), TensorProto.INT32))


@pytest.mark.parametrize("scale", [0.0, np.nan])
def test_a_scale_that_is_no_positive_number_is_refused(scale):
    write = Writer()
    parameters = np.array(scale, np.float32), np.array(0, np.uint8)
    q = write.op("QuantizeLinear", "x", *map(write.constant, parameters))
    with pytest.raises(UnsupportedError, match=r"QuantizeLinear with the scale .* scales must be positive numbers"):
        load_model(write.model((6, 20), q, TensorProto.UINT8))


def test_conv_integer():
    write = Writer()
    q, _, zero = stored(write)
    w, _, w_zero = weight(write, 16, 8, 3, 3, dtype=np.uint8, zero=128)
    y = write.op("ConvInteger", q, w, zero, w_zero, pads=[1, 1, 1, 1])
    check(write.model(SHAPE, y, TensorProto.INT32))


def contributed(write: Writer, kind: str, *inputs: str, **attributes) -> str:
    return write.op(kind, *inputs, domain="com.microsoft", **attributes)


@pytest.mark.parametrize("kind", ["QLinearAdd", "QLinearMul"])
def test_binary_operators(kind):
    write = Writer()
    other = stored(write, write.op("Abs", "x"), 0.05)
    y = contributed(write, kind, *stored(write), *other, *write.parameters(0.1))
    check_up_to_rounding(write.model(SHAPE, write.read(y, 0.1)), 0.1)


@pytest.mark.parametrize(
    ("kind", "attributes", "scale"),
    [
        ("QLinearAveragePool", {"kernel_shape": [3, 3], "strides": [2, 2]}, 0.03),
        ("QLinearGlobalAveragePool", {}, 0.005),
        ("QLinearLeakyRelu", {"alpha": 0.125}, 0.03),
        ("QLinearSigmoid", {}, 1 / 256),
        ("QLinearSoftmax", {"axis": 1, "opset": 13}, 1 / 256),
    ],
)
def test_unary_operators(kind, attributes, scale):
    write = Writer()
    y = contributed(write, kind, *stored(write), *write.parameters(scale, 0), **attributes)
    check_up_to_rounding(write.model(SHAPE, write.read(y, scale, 0)), scale)


def test_q_linear_concat():
    write = Writer()
    parts = [*stored(write), *stored(write, write.op("Abs", "x"), 0.05)]
    y = contributed(write, "QLinearConcat", *write.parameters(0.04), *parts, axis=1)
    check(write.model(SHAPE, write.read(y, 0.04)))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_q_gemm(quantized, transposed):
    write = Writer()
    right = weight(write, *((12, 20) if transposed else (20, 12)), scales=12)
    bias = write.constant(write.random.integers(-900, 900, 12).astype(np.int32))
    y = write.parameters(0.1) if quantized else ()
    y = contributed(write, "QGemm", *stored(write), *right, bias, *y, transB=int(transposed))
    model = write.model((6, 20), write.read(y, 0.1) if quantized else y)
    if quantized:
        check(model)
    else:
        x = sample(model)
        np.testing.assert_allclose(evaluate(from_relax(load_model(model)), [x])[0], reference(model, x), rtol=1e-4)


@pytest.mark.parametrize("kind", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_products_that_are_floats(kind):
    write = Writer()
    right, scale, zero = weight(write, 20, 12, scales=12)
    bias = write.constant(write.random.standard_normal(12).astype(np.float32))
    if kind == "DynamicQuantizeMatMul":
        inputs = ["x", right, scale, zero, bias]
    else:
        q, x_scale, x_zero = stored(write)
        inputs = [q, right, x_scale, scale, x_zero, zero, bias]
    agrees_with_runtime(write.model((6, 20), contributed(write, kind, *inputs)))


def float_model(tensor: onnx.TensorProto, scale: np.ndarray, **attributes) -> onnx.ModelProto:
    """x times a weight that is stored as few bits."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], **attributes),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, n]) for name, n in (("x", 8), ("y", 6)))
    constants = [tensor, onnx.numpy_helper.from_array(scale, "s")]
    graph = helper.make_graph(nodes, "few_bits", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def few_bits(kind: int) -> onnx.TensorProto:
    values = np.random.default_rng(0).integers(-7, 8, (8, 6))
    return helper.make_tensor("q", kind, [8, 6], values.ravel())


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.INT8], ids=["int4", "int8"])
def test_weights_with_a_scale_for_each_block_or_of_four_bits(kind):
    scale = np.random.default_rng(1).uniform(0.5, 1.5, (2, 6)).astype(np.float32)
    agrees_with_runtime(float_model(few_bits(kind), scale, axis=0, block_size=4))


def test_weights_of_four_bits():
    scale = np.random.default_rng(1).uniform(0.5, 1.5, 6).astype(np.float32)
    agrees_with_runtime(float_model(few_bits(TensorProto.INT4), scale, axis=1))


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_weights_of_four_bits_meet_quantised_activations_in_bytes(dtype):
    write = Writer()
    q, zero = (write.constant(np.array(value, dtype)) for value in (write.random.integers(0, 8, (20, 6)), 3))
    numbers = write.op("DequantizeLinear", q, write.constant(np.float32(0.02)), zero)
    model = write.model((6, 20), write.op("MatMul", write.quantized("x", 0.03), numbers))
    model.opset_import[0].version = 21
    agrees_with_runtime(model)
    graph = from_relax(load_model(model))
    integer_layers(graph, Target.parse("znver4"))
    assert [value.dtype for node in graph.nodes if node.op == "matmul" for value in node.inputs] == ["uint8", "int8"]


def agrees_with_runtime(model: onnx.ModelProto) -> None:
    x = sample(model)
    graph = from_relax(load_model(model))
    integer_layers(graph, Target.parse("znver4"))
    np.testing.assert_allclose(evaluate(graph, [x])[0], reference(model, x), rtol=1e-5, atol=1e-4)


def test_activations_in_blocks_are_refused():
    write = Writer()
    scale, zero = write.constant(np.ones((6, 5), np.float32)), write.constant(np.zeros((6, 5), np.uint8))
    y = write.op("QuantizeLinear", "x", scale, zero, axis=1, block_size=4)
    model = write.model((6, 20), y, TensorProto.UINT8)
    model.opset_import[0].version = 21
    with pytest.raises(UnsupportedError, match=r"QuantizeLinear.*blocked quantization is not supported"):
        load_model(model)


def test_a_bias_whose_scale_is_computed_is_refused():
    write = Writer()
    q, scale, zero = stored(write)
    scale = write.op("Abs", scale)
    scale = write.op(
        "Add", scale, write.op("Mul", write.op("ReduceMax", "x", keepdims=0), write.constant(np.float32(0)))
    )
    bias = write.constant(np.zeros(16, np.int32))
    y = write.op("QLinearConv", q, scale, zero, *weight(write, 16, 8, 1, 1), *write.parameters(0.1), bias)
    with pytest.raises(UnsupportedError, match="a bias whose scale is computed"):
        load_model(write.model(SHAPE, y, TensorProto.UINT8))
