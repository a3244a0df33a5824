"""Layers of few bits in models: found by what their integers can be, exact, and only where they are faster."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.compiler import _Run
from sparsec.graph.graph import Graph
from sparsec.graph.integer_ranges import range_of
from sparsec.targets import Target

FAST, SLOW = Target.parse("znver5"), Target.parse("znver5,-avx512vpopcntdq")
RNG = np.random.default_rng(0)


def model(weights, high: int, low: int = 0, kind: str = "uint8", tokens: int = 64) -> onnx.ModelProto:
    """Linear layers in a row, in ONNX's form of few bits: each reads `Clip(QuantizeLinear(x), low, high)`."""
    constants, nodes, x = [], [], "x"

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    for n, weight in enumerate(weights):
        step = constant(f"step{n}", np.float32(0.25))
        zero = constant(f"zero{n}", np.array(0, kind))
        limits = [constant(f"{name}{n}", np.array(value, kind)) for name, value in (("low", low), ("high", high))]
        scale = constant(f"scale{n}", RNG.uniform(0.01, 0.02, weight.shape[1]).astype(np.float32))
        stored = constant(f"weight{n}", weight.astype(np.int8))
        nodes += [
            helper.make_node("QuantizeLinear", [x, step, zero], [f"q{n}"]),
            helper.make_node("Clip", [f"q{n}", *limits], [f"clipped{n}"]),
            helper.make_node("DequantizeLinear", [f"clipped{n}", step, zero], [f"dq{n}"]),
            helper.make_node("DequantizeLinear", [stored, scale], [f"w{n}"], axis=1),
            helper.make_node("MatMul", [f"dq{n}", f"w{n}"], [f"y{n}"], name=f"layer{n}"),
        ]
        x = f"y{n}"
    ends = [("x", weights[0].shape[0]), (x, weights[-1].shape[1])]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, tokens, k])] for name, k in ends)
    graph = helper.make_graph(nodes, "few_bits", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def products(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes if node.op in ("linear_cols", "low_bit_product")]


def read(proto: onnx.ModelProto, target: Target, given: str | None = None) -> Graph:
    from sparsec.graph.given_layouts import GivenLayouts

    return _Run(target, None, None, given=GivenLayouts(given)).read(proto, None, None)


BINARY = RNG.choice([-1, 1], (128, 128))
TERNARY = RNG.choice([-1, 0, 1], (128, 128))


@pytest.mark.parametrize(
    ("weight", "low", "high", "kind"),
    [
        (BINARY, 0, 3, "uint8"),
        (BINARY, -2, 1, "int8"),
        (TERNARY, 0, 3, "uint8"),
        (np.abs(TERNARY), 0, 7, "uint8"),
        (BINARY * 3, 5, 6, "uint8"),
    ],
)
def test_few_bits_are_found_and_exact(weight, low, high, kind):
    proto = model([weight, weight], high, low, kind, tokens=32)  # tiles of 64 take seconds where they are emulated
    assert products(read(proto, FAST)) == ["low_bit_product"] * 2
    x = (RNG.integers(-20, 40, (1, 32, 128)) / 8).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(sparsec.compile(proto, target="emulate:znver5").load()(x), wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "high", "target"),
    [
        (RNG.integers(-8, 8, (128, 128)), 15, FAST),  # 16 one-bit steps for a product
        (RNG.integers(-100, 100, (128, 128)), 3, FAST),
        (BINARY, 255, FAST),
        (BINARY, 3, SLOW),
    ],
)
def test_other_layers_stay_products_of_bytes(weight, high, target):
    assert products(read(model([weight], high), target)) == ["linear_cols"]


def test_layers_that_read_the_same_share_its_planes():
    proto = model([BINARY], 3)
    second = helper.make_node("MatMul", ["dq0", "w0"], ["z"], name="second")
    proto.graph.node.append(second)
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 64, 128]))
    assert [node.op for node in read(proto, FAST).nodes].count("bit_planes") == 1


def test_a_layout_that_is_given_keeps_a_product_of_bytes():
    assert products(read(model([BINARY], 3), FAST, "CSR")) == ["linear_cols"]


def test_reports_show_what_is_stored_and_gained():
    weight = np.where(np.arange(128) < 96, TERNARY, 0)
    (layer,) = sparsec.inspect(model([weight], 3), target=FAST).layers
    assert (layer.name, layer.op, layer.shape) == ("layer0", "linear", (128, 128))
    assert layer.structure == "rows 25% empty, unstructured"
    assert (layer.storage, layer.reads, layer.writes) == ("int2", "uint2", "int32")
    assert layer.sparsity == np.mean(weight == 0)
    assert layer.flops == 2 * np.count_nonzero(weight) * 64
    assert layer.seconds < layer.dense_seconds


def test_ranges():
    graph = Graph()
    x = graph.input("x", (4, 4), "float32")
    clipped = graph.add("clip", [graph.add("round", [x], x.shape)], x.shape, {"min": -3.0, "max": 9.0})
    byte = graph.add("astype", [clipped], x.shape, {"dtype": "int8"}, dtype="int8")
    one = graph.constant(np.int8([[1, 2]]), "one")
    assert range_of(x) == (-np.inf, np.inf)
    assert range_of(byte) == (-3, 9)
    assert range_of(graph.add("add", [byte, one], x.shape)) == (-2, 11)
    assert range_of(graph.add("nn.relu", [byte], x.shape)) == (0, 9)
    assert range_of(graph.add("maximum", [byte, one], x.shape)) == (1, 9)
    assert range_of(graph.add("concat", [byte, one], (5, 4), {"axis": 0})) == (-3, 9)
    assert range_of(graph.add("astype", [x], x.shape, {"dtype": "uint8"}, dtype="uint8")) == (0, 255)
    wrapped = graph.add("multiply", [byte, byte], x.shape)
    assert range_of(wrapped) == (-128, 127)
