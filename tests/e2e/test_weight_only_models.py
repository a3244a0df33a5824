"""Models that store weights as integers and compute in floats: artifacts keep the integers, and the numbers agree."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.errors import ModelError, UnsupportedError

RANDOM = np.random.default_rng(0)
ROWS, DEPTH, TOKENS = 24, 96, 5


def model(nodes, inits, shape=(TOKENS, DEPTH), output=(TOKENS, ROWS), opset=21) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    graph = helper.make_graph(nodes, "stored", [x], [y], inits)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def integers(dtype: str, shape) -> np.ndarray:
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[dtype]
    return RANDOM.integers(low, high, shape)


def tensor(name: str, values: np.ndarray, dtype: str) -> onnx.TensorProto:
    kind = {"int4": TensorProto.INT4, "uint4": TensorProto.UINT4, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
    return helper.make_tensor(name, kind[dtype], values.shape, values.reshape(-1).tolist())


def scales(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.001, 0.1, shape).astype(np.float32)


def linear(dtype: str, block: int = 0, per: str = "channel", zero: bool = False, transposed: bool = False):
    """``x · dequantized(q)``, q ``[depth, rows]``, or ``[rows, depth]`` behind a transpose."""
    depth_axis = 1 if transposed else 0
    shape = (ROWS, DEPTH) if transposed else (DEPTH, ROWS)
    count = {"tensor": (), "channel": (ROWS,)}[per]
    if block:
        count = tuple(-(-n // block) if axis == depth_axis else n for axis, n in enumerate(shape))
    attrs = {"axis": depth_axis if block else 1 - depth_axis} | ({"block_size": block} if block else {})
    inits = [tensor("q", integers(dtype, shape), dtype), numpy_helper.from_array(scales(*count), "s")]
    names = ["q", "s"]
    if zero:
        middle = {"uint4": 7, "uint8": 128, "int8": 0, "int4": 0}[dtype]
        inits.append(tensor("z", np.full(count, middle), dtype))
        names.append("z")
    nodes = [helper.make_node("DequantizeLinear", names, ["w"], name="weight", **attrs)]
    right = "w"
    if transposed:
        nodes.append(helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]))
        right = "wt"
    nodes.append(helper.make_node("MatMul", ["x", right], ["y"], name="layer"))
    return model(nodes, inits)


def nbits(bits: int, block: int, zero: bool = False, bias: bool = False, depth: int = DEPTH) -> onnx.ModelProto:
    blocks, size = -(-depth // block), block * bits // 8
    inits = [
        numpy_helper.from_array(RANDOM.integers(0, 256, (ROWS, blocks, size), dtype=np.uint8), "B"),
        numpy_helper.from_array(scales(ROWS * blocks), "s"),
    ]
    names = ["x", "B", "s"]
    if zero or bias:
        names.append("z" if zero else "")
    if zero:
        packed = RANDOM.integers(0, 256, ROWS * -(-blocks * bits // 8), dtype=np.uint8)
        inits.append(numpy_helper.from_array(packed, "z"))
    if bias:
        names += ["", "b"]
        inits.append(numpy_helper.from_array(scales(ROWS), "b"))
    attrs = {"K": depth, "N": ROWS, "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", names, ["y"], name="layer", domain="com.microsoft", **attrs)
    return model([node], inits, (TOKENS, depth))


def convolution(dtype: str, block: int = 0) -> onnx.ModelProto:
    shape = (16, 8, 3, 3)
    count = (16, 8 // block, 3, 3) if block else (16,)
    attrs = {"axis": 1, "block_size": block} if block else {"axis": 0}
    inits = [tensor("q", integers(dtype, shape), dtype), numpy_helper.from_array(scales(*count), "s")]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], **attrs),
        helper.make_node("Conv", ["x", "w"], ["y"], name="layer", pads=[1, 1, 1, 1]),
    ]
    return model(nodes, inits, (1, 8, 10, 10), (1, 16, 10, 10))


MODELS = {  # and how their weights are stored
    "int8 by channel": (linear("int8"), "int8"),
    "int8 by tensor": (linear("int8", per="tensor"), "int8"),
    "uint8 around 128": (linear("uint8", zero=True), "int8"),
    "int8 transposed": (linear("int8", transposed=True), "int8"),
    "int8 in blocks": (linear("int8", block=32), "int8:32"),
    "int4 by channel": (linear("int4"), "int4"),
    "int4 in blocks": (linear("int4", block=32), "int4:32"),
    "int4 in blocks, transposed": (linear("int4", block=16, transposed=True), "int4:16"),
    "uint4 in blocks": (linear("uint4", block=32, zero=True), "int8:32"),
    "4 bits": (nbits(4, 32), "int4:32"),
    "4 bits with a bias": (nbits(4, 16, bias=True), "int4:16"),
    "4 bits with zeros": (nbits(4, 32, zero=True), "int8:32"),
    "4 bits in ragged blocks": (nbits(4, 32, depth=80), "int4:32"),
    "8 bits": (nbits(8, 32), "int8:32"),
    "convolution of int8": (convolution("int8"), "int8"),
    "convolution of int4": (convolution("int4"), "int4"),
}


def expected(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_integers_are_kept_and_the_numbers_agree(name):
    proto, storage = MODELS[name]
    x = RANDOM.standard_normal([d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]).astype(
        np.float32
    )
    artifact = sparsec.compile(proto)
    (layer,) = artifact.manifest["layers"]
    assert (layer["storage"], layer["storage_error"]) == (storage, 0.0)
    found, right = artifact.load(threads=1)(x), expected(proto, x)
    np.testing.assert_allclose(
        np.asarray(found).reshape(right.shape), right, rtol=2e-5, atol=2e-5 * np.abs(right).max()
    )


def test_the_artifact_shrinks():
    (layer,) = sparsec.inspect(linear("int4", block=32)).layers
    padded = 32 * DEPTH // 2 + 4 * ROWS * DEPTH // 32  # two blocks of 16 rows, and the scales
    assert layer.nbytes == padded < ROWS * DEPTH


def test_what_needs_more_bits_without_its_zero_stays_float():
    proto = linear("uint8", zero=True)
    zero = next(t for t in proto.graph.initializer if t.name == "z")
    zero.CopyFrom(tensor("z", np.full(ROWS, 3), "uint8"))
    (layer,) = sparsec.inspect(proto).layers
    assert layer.storage == "float32"


def test_weights_that_are_no_constants_are_refused():
    proto = nbits(4, 32)
    values = helper.make_tensor_value_info("B", TensorProto.UINT8, (ROWS, 3, 16))
    kept = [t for t in proto.graph.initializer if t.name != "B"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.input.append(values)
    with pytest.raises(UnsupportedError, match=r"^node 'layer': .*MatMulNBits is supported with constant weights .*$"):
        sparsec.compile(proto)


def test_weights_that_do_not_fit_are_refused():
    proto = nbits(4, 32)
    next(a for a in proto.graph.node[0].attribute if a.name == "K").i = 500
    with pytest.raises(ModelError, match=r"^node 'layer': .* do not fit N 24, K 500, block_size 32$"):
        sparsec.compile(proto)


def test_scales_that_do_not_fit_are_refused():
    proto = linear("int4", block=32)
    next(t for t in proto.graph.initializer if t.name == "s").CopyFrom(numpy_helper.from_array(scales(2, ROWS), "s"))
    with pytest.raises(ModelError, match=r"^node 'weight': scales of shape \(2, 24\) do not fit integers .*$"):
        sparsec.compile(proto)
