"""Quantised models keep their integers, and their layers add them up."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sparsec.frontends import load_model
from sparsec.graph.canonicalize import canonicalize
from sparsec.graph.evaluate import evaluate
from sparsec.graph.from_relax import from_relax
from sparsec.graph.fuse import Group, fuse
from sparsec.graph.graph import Graph, Node
from sparsec.graph.integer_layers import integer_layers
from sparsec.graph.plan_images import plan_images
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.ir.printer import print_expression
from sparsec.targets import Target
from tests.graph.quantized_models import CONVOLUTIONS, Convolutions, Writer, reference, sample, steps_off, transformer

X86, ARM = Target.parse("znver4"), Target.parse("aarch64")
LAYERS = ("conv2d", "conv_padded", "linear", "linear_cols", "nn.conv1d", "nn.conv2d")


def imported(model: onnx.ModelProto, target: Target = X86) -> Graph:
    graph = from_relax(load_model(model))
    integer_layers(graph, target)
    return graph


def fused(model: onnx.ModelProto, target: Target = X86) -> tuple[Graph, list[Group]]:
    graph = imported(model, target)
    for pass_ in (canonicalize, plan_images, plan_layouts):
        pass_(graph)
    return graph, fuse(graph, target)


def layers(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op in LAYERS or (node.op == "matmul" and node.inputs[1].is_constant)]


def integer_types(graph: Graph) -> set[tuple[str, str, str]]:
    return {(*(v.dtype for v in node.inputs), node.output.dtype) for node in layers(graph)}


def agrees(graph: Graph, model: onnx.ModelProto) -> None:
    x = sample(model)
    wanted = reference(model, x)
    assert len(np.unique(wanted)) > 20
    np.testing.assert_array_equal(evaluate(graph, [x])[0], wanted)


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86", "arm"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_add_up_integers(name, target):
    model = CONVOLUTIONS[name].model()
    graph = imported(model, target)
    assert integer_types(graph) == {(target.activations, "int8", "int32")}
    agrees(graph, model)


@pytest.mark.parametrize("name", ["uint8", "groups, other pads", "4x4, stride 3"])
def test_every_pass_keeps_the_integers(name):
    model = CONVOLUTIONS[name].model()
    graph, groups = fused(model)
    agrees(graph, model)
    anchored = [group for group in groups if group.anchor]
    assert [group.outputs[0].dtype for group in anchored] == ["uint8", "uint8", "float32"]  # the residual joins in
    assert {group.product.sums for group in anchored} == {"int32"}


def test_what_surrounds_pixels_is_the_integer_that_means_zero():
    _, groups = fused(Convolutions(zero=77).model())
    first, depthwise, _ = (group for group in groups if group.anchor)
    assert first.product.blank == 77 and first.product.cleared
    assert not depthwise.product.cleared
    (repack,) = (group.nodes[0] for group in groups if group.nodes[0].op == "repack" and group.nodes[0].attrs["image"])
    assert repack.attrs["blank"] == 77


def test_a_transformer_adds_up_integers_outside_of_attention():
    model = transformer()
    graph, groups = fused(model)
    x = sample(model)
    off = steps_off(evaluate(graph, [x])[0], reference(model, x), 0.03)
    assert off.max() <= 2 and off.astype(bool).mean() < 0.05  # NumPy rounds softmaxes and norms otherwise
    kinds = [(group.product.name, group.product.sums) for group in groups if group.anchor]
    assert kinds.count(("linear", "int32")) == 6 and kinds.count(("matmul", "float32")) == 2
    alone = [group for group in groups if not group.anchor and group.nodes[0].op == "astype"]
    assert [group.outputs for group in alone] == [(graph.outputs[0],)]  # behind the transpose, which moves bytes


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 100), (np.int8, 5)])
def test_weights_that_int8_cannot_hold_without_a_zero_stay_floats(dtype, zero):
    model = Convolutions(dtype=dtype, weight_zero=zero).model()
    graph = imported(model)
    assert integer_types(graph) == {("float32", "float32", "float32"), ("uint8", "int8", "int32")}
    agrees(graph, model)


def test_an_int32_bias_is_added_to_the_sums():
    model = Convolutions(zero=0).model()
    first = next(node for node in layers(imported(model)))
    (add,) = first.output.users
    assert add.op == "add" and add.output.dtype == "int32"
    assert [user.op for user in add.output.users] == ["astype"]


def test_a_bias_of_another_scale_is_added_in_floats():
    write = Writer(zero=0)
    weight, scale = write.weight((16, 8, 1, 1))
    y = write.op("Conv", write.quantized("x", 0.03), weight, write.bias(np.float32(0.031) * scale, 16))
    model = write.model(Convolutions.shape, write.quantized(y, 0.1))
    graph = imported(model)
    assert [user.op for user in layers(graph)[0].output.users] == ["astype"]
    agrees(graph, model)


def test_pooling_and_moves_work_on_integers():
    write = Writer()
    weight, _ = write.weight((16, 8, 3, 3))
    y = write.quantized(write.op("Conv", write.quantized("x", 0.03), weight, pads=[1, 1, 1, 1]), 0.05)
    y = write.quantized(write.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.05)
    y = write.quantized(write.op("Transpose", y, perm=[0, 2, 3, 1]), 0.05)
    model = write.model(Convolutions.shape, y)
    graph = imported(model)
    moved = [node.output.dtype for node in graph.nodes if node.op in ("nn.max_pool2d", "permute_dims")]
    assert moved == ["uint8", "uint8"]
    assert sum(node.op == "round" for node in graph.nodes) == 2
    agrees(graph, model)


def test_what_is_joined_is_stored_with_one_scale_first():
    write = Writer()
    x = write.quantized("x", 0.03)
    parts = [write.op("Conv", x, write.weight((8, 8, 1, 1))[0]) for _ in range(2)]
    parts = [write.quantized(part, scale, 9) for part, scale in zip(parts, (0.05, 0.07), strict=True)]
    model = write.model(Convolutions.shape, write.quantized(write.op("Concat", *parts, axis=1), 0.06))
    graph = imported(model)
    (concat,) = (node for node in graph.nodes if node.op == "concat")
    assert {value.dtype for value in concat.inputs} == {"uint8"}
    agrees(graph, model)


def test_a_scale_that_is_found_in_the_run():
    write = Writer()
    write.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
    x = write.op("DequantizeLinear", "q", "s", "z")
    weight, _ = write.weight((40, 24), axis=1)
    model = write.model((6, 40), write.op("MatMul", x, weight))
    graph = imported(model)
    assert integer_types(graph) == {("uint8", "int8", "int32")}
    x = sample(model)
    np.testing.assert_allclose(evaluate(graph, [x])[0], reference(model, x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86", "arm"])
def test_integers_that_are_results_keep_their_type(target):
    write = Writer(np.int8, -5)
    weight, _ = write.weight((24, 40), axis=None)
    y = write.stored(write.op("Gemm", write.quantized("x", 0.03), weight, transB=1), 0.1)
    model = write.model((6, 40), y, TensorProto.INT8)
    agrees(imported(model, target), model)


def test_an_epilogue_has_one_factor_for_all_scales():
    _, groups = fused(Convolutions(zero=7).model())
    first = next(group for group in groups if group.anchor)
    assert print_expression(first.product.epilogue) == "round(max(float(acc + e0[i]) * e1[i], 0.0)) + 7.0"


def test_depths_whose_sums_int32_might_not_hold_stay_floats():
    write = Writer()
    weight = write.op(
        "DequantizeLinear",
        write.constant(np.full((70_000, 2), 127, np.int8)),
        write.constant(np.float32(0.01)),
        write.constant(np.int8(0)),
    )
    model = write.model((1, 70_000), write.op("MatMul", write.quantized("x", 0.03), weight))
    assert integer_types(imported(model)) == {("float32", "float32", "float32")}


def test_models_in_floats_are_left_alone():
    write = Writer()
    model = write.model((6, 40), write.op("Relu", "x"))
    assert [node.op for node in imported(model).nodes] == ["nn.relu"]


def test_filters_without_weights_are_gone_and_what_they_held_is_in_biases():
    write = Writer(zero=7)
    x = write.quantized("x", 0.03)
    weight, scale = write.weight((16, 8, 3, 3))
    pruned = onnx.numpy_helper.to_array(write.constants[-3]).copy()
    pruned[[2, 5, 11]] = 0
    write.constants[-3].CopyFrom(onnx.numpy_helper.from_array(pruned, write.constants[-3].name))
    bias = write.bias(np.float32(0.03) * scale, 16)
    x = write.quantized(write.op("Relu", write.op("Conv", x, weight, bias, pads=[1, 1, 1, 1])), 0.04)
    for kernel, padding in ((1, 0), (3, 1)):
        weight, scale = write.weight((16, 16, kernel, kernel))
        x = write.quantized(write.op("Conv", x, weight, pads=[padding] * 4), 0.2)
    model = write.model(Convolutions.shape, x)
    graph = imported(model)
    canonicalize(graph)
    assert [node.inputs[1].shape[:2] for node in layers(graph)] == [(13, 8), (16, 13), (16, 16)]
    agrees(graph, model)


def test_what_is_stored_behind_a_pool_or_transpose_is_stored_before_it():
    write = Writer()
    weight, _ = write.weight((16, 8, 3, 3))
    y = write.op("Relu", write.op("Conv", write.quantized("x", 0.03), weight, pads=[1, 1, 1, 1]))
    y = write.op(
        "Transpose", write.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), perm=[0, 2, 3, 1]
    )
    model = write.model(Convolutions.shape, write.quantized(y, 0.05))
    graph = imported(model)
    moved = [node.output.dtype for node in graph.nodes if node.op in ("nn.max_pool2d", "permute_dims")]
    assert moved == ["uint8", "uint8"]
    agrees(graph, model)


def without_zeros(write: Writer) -> str:
    scale = write.constant(np.float32(0.03))
    x = write.op("DequantizeLinear", write.op("QuantizeLinear", "x", scale), scale)
    return write.op("MatMul", x, write.weight((20, 12), axis=1)[0])


def on_the_left(write: Writer) -> str:
    x = write.op("Transpose", write.quantized("x", 0.03), perm=[1, 0])
    return write.op("MatMul", write.weight((12, 20), axis=0)[0], x)


def quantised_here(write: Writer) -> str:
    """A weight that the model stores as floats."""
    parameters = write.constant(np.float32(0.01)), write.constant(np.int8(0))
    weight = write.constant(write.random.normal(0, 0.3, (20, 12)).astype(np.float32))
    weight = write.op("DequantizeLinear", write.op("QuantizeLinear", weight, *parameters), *parameters)
    return write.op("MatMul", write.quantized("x", 0.03), weight)


def in_one_dimension(write: Writer) -> str:
    x = write.op("Reshape", write.quantized("x", 0.03), write.constant(np.array([1, 6, 20])))
    return write.op("Conv", x, write.weight((16, 6, 3))[0], pads=[1, 1], strides=[2])


def limited(write: Writer) -> str:
    y = write.op("MatMul", write.quantized("x", 0.03), write.weight((20, 12), axis=1)[0])
    return write.op("Clip", y, write.constant(np.float32(0)), write.constant(np.float32(6)))


@pytest.mark.parametrize("layer", [without_zeros, on_the_left, quantised_here, in_one_dimension, limited])
@pytest.mark.parametrize("opset", [13, 17])
def test_other_ways_to_write_a_layer(layer, opset):
    write = Writer(zero=9)
    model = write.model((6, 20), write.quantized(layer(write), 0.05))
    model.opset_import[0].version = opset
    graph, groups = fused(model)
    assert [group.product.sums for group in groups if group.anchor] == ["int32"]
    agrees(graph, model)


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_that_differ_inside_of_a_sum_keep_it_in_floats(axis):
    write = Writer()
    scale = write.constant(np.linspace(0.02, 0.05, 20).astype(np.float32))
    zero = write.constant(np.arange(20).astype(np.uint8))
    x = write.op("DequantizeLinear", write.op("QuantizeLinear", "x", scale, zero, axis=1), scale, zero, axis=1)
    if axis == 0:
        x = write.quantized("x", 0.03)
    weight, _ = write.weight((20, 12), axis=axis)
    model = write.model((6, 20), write.quantized(write.op("MatMul", x, weight), 0.05))
    graph = imported(model)
    assert integer_types(graph) == {("float32", "float32", "float32")}
    agrees(graph, model)
