"""ONNX models with pairs of quantize and dequantize around their operators, as quantisers write them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WORST = 2.5
"""Inputs are normal with this deviation, so that some saturate."""


class Writer:
    """A graph, built node by node; weights are random, and activations have one type and mostly one zero."""

    def __init__(self, activation: type = np.uint8, zero: int = 3, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)
        self.activation, self.zero = activation, zero

    def constant(self, value: np.ndarray) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def quantized(self, x: str, scale: float, zero: int | None = None) -> str:
        """x through a quantize and a dequantize."""
        return self.read(self.stored(x, scale, zero), scale, zero)

    def stored(self, x: str, scale: float, zero: int | None = None) -> str:
        return self.op("QuantizeLinear", x, *self.parameters(scale, zero))

    def read(self, q: str, scale: float, zero: int | None = None) -> str:
        return self.op("DequantizeLinear", q, *self.parameters(scale, zero))

    def parameters(self, scale: float, zero: int | None = None) -> tuple[str, str]:
        zero = self.zero if zero is None else zero
        return self.constant(np.float32(scale)), self.constant(self.activation(zero))

    def weight(
        self, shape: tuple[int, ...], axis: int | None = 0, dtype: type = np.int8, zero: int = 0
    ) -> tuple[str, np.ndarray]:
        """A sparse weight with a scale for each index of an axis, and these scales."""
        limits = np.iinfo(dtype)
        q = self.random.integers(limits.min, limits.max + 1, shape).astype(dtype)
        q[self.random.random(shape) < 0.7] = zero
        count = () if axis is None else (shape[axis],)
        scale = self.random.uniform(0.005, 0.015, count).astype(np.float32)
        parameters = self.constant(scale), self.constant(np.full(count, zero, dtype))
        attributes = {} if axis is None else {"axis": axis}
        return self.op("DequantizeLinear", self.constant(q), *parameters, **attributes), scale

    def bias(self, scale: np.ndarray, count: int) -> str:
        """An int32 bias whose scale is that of the products."""
        q = self.random.integers(-2000, 2000, count).astype(np.int32)
        attributes = {"axis": 0} if np.ndim(scale) else {}
        return self.op("DequantizeLinear", self.constant(q), self.constant(np.asarray(scale)), **attributes)

    def model(self, shape: tuple[int, ...], result: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info(result, kind, None)
        graph = helper.make_graph(self.nodes, "quantized", [x], [y], self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))


@dataclass(frozen=True)
class Convolutions:
    """A network of convolutions: one of any kind, a depthwise one, a residual and a pointwise one."""

    activation: type = np.uint8
    zero: int = 3
    groups: int = 1
    stride: int = 1
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    axis: int | None = 0
    dtype: type = np.int8
    weight_zero: int = 0
    kernel: int = 3
    dilation: int = 1

    shape = (2, 8, 13, 13)

    def model(self) -> onnx.ModelProto:
        write = Writer(self.activation, self.zero, seed=1)
        outputs = 16
        x = write.quantized("x", 0.03)
        size = (outputs, self.shape[1] // self.groups, self.kernel, self.kernel)
        weight, scale = write.weight(size, self.axis, self.dtype, self.weight_zero)
        how = {"group": self.groups, "strides": [self.stride] * 2, "dilations": [self.dilation] * 2}
        y = write.op("Conv", x, weight, write.bias(np.float32(0.03) * scale, outputs), pads=self.pads, **how)
        y = write.quantized(write.op("Relu", y), 0.04)
        weight, _ = write.weight((outputs, 1, 3, 3), self.axis)
        z = write.quantized(write.op("Conv", y, weight, pads=[1, 1, 1, 1], group=outputs), 0.02, self.zero + 7)
        total = write.quantized(write.op("Add", z, y), 0.05)
        weight, _ = write.weight((outputs, outputs, 1, 1), None)
        return write.model(self.shape, write.quantized(write.op("Conv", total, weight), 0.1))


CONVOLUTIONS = {
    "uint8": Convolutions(),
    "no zeros": Convolutions(zero=0),
    "int8, stride 2": Convolutions(np.int8, -7, stride=2, axis=None),
    "groups, other pads": Convolutions(zero=128, groups=2, pads=(0, 1, 2, 1)),
    "depthwise, stride 2": Convolutions(groups=8, stride=2),
    "no padding": Convolutions(zero=200, pads=(0, 0, 0, 0), dtype=np.uint8, weight_zero=128, axis=None),
    "dilated": Convolutions(zero=9, pads=(2, 2, 2, 2), dilation=2),
    "4x4, stride 3": Convolutions(zero=240, stride=3, pads=(1, 2, 3, 0), kernel=4),
}


def transformer(activation: type = np.uint8, zero: int = 128) -> onnx.ModelProto:
    """A layer of attention and one of feed-forward, over [1, 32, 64]."""
    write = Writer(activation, zero, seed=2)
    tokens, width, heads, hidden = 32, 64, 4, 128
    size = width // heads

    def linear(x: str, inputs: int, outputs: int) -> str:
        weight, _ = write.weight((inputs, outputs), axis=1)
        bias = write.constant(write.random.standard_normal(outputs).astype(np.float32))
        return write.op("Add", write.op("MatMul", x, weight), bias)

    def split(y: str) -> str:
        parts = write.op("Reshape", y, write.constant(np.array([0, tokens, heads, size])))
        return write.op("Transpose", parts, perm=[0, 2, 1, 3])

    def norm(y: str) -> str:
        parameters = (write.constant(np.full(width, value, np.float32)) for value in (1.1, 0.1))
        return write.quantized(write.op("LayerNormalization", y, *parameters, axis=-1), 0.03)

    x = write.quantized("x", 0.03)
    query, key, value = (split(write.quantized(linear(x, width, width), 0.05)) for _ in range(3))
    scores = write.op("MatMul", query, write.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = write.quantized(write.op("Mul", scores, write.constant(np.float32(size**-0.5))), 0.05)
    mixed = write.op("MatMul", write.quantized(write.op("Softmax", scores, axis=-1), 1 / 127, 0), value)
    mixed = write.op("Transpose", write.quantized(mixed, 0.04), perm=[0, 2, 1, 3])
    mixed = write.op("Reshape", mixed, write.constant(np.array([0, tokens, width])))
    x = norm(write.op("Add", write.quantized(linear(mixed, width, width), 0.06), x))
    inner = linear(x, width, hidden)
    curve = write.op("Erf", write.op("Div", inner, write.constant(np.float32(2**0.5))))
    inner = write.op("Mul", inner, write.op("Add", curve, write.constant(np.float32(1))))
    inner = write.quantized(write.op("Mul", inner, write.constant(np.float32(0.5))), 0.05)
    return write.model(
        (1, tokens, width),
        norm(write.op("Add", write.quantized(linear(inner, hidden, width), 0.06), x)),
    )


def sample(model: onnx.ModelProto, seed: int = 0) -> np.ndarray:
    """An input, much of which saturates."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return (WORST * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def steps_off(found: np.ndarray, wanted: np.ndarray, scale: float) -> np.ndarray:
    """How many integers apart results are that were quantised with this scale."""
    return np.rint(np.abs(found - wanted) / scale)


def reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes, node by node as the model says."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    return y
