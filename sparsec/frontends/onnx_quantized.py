"""Operators over integers, as the floats that they stand for between a dequantize and a quantize.

So one form is left of all the ways in which models are quantised, and `sparsec.graph.integer_layers` finds the products
of integers in it again, with their zeros and scales.

Before:  `y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)`
After:   `y = QuantizeLinear(Conv(DequantizeLinear(x, xs, xz), DequantizeLinear(w, ws, wz), …), ys, yz)`
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from sparsec.frontends.onnx_facts import Facts, Nodes, Rewrite, attributes_of, input_of, unsupported


@dataclass
class _Writer:
    """Writes the nodes that take the place of one."""

    node: onnx.NodeProto
    facts: Facts
    nodes: Nodes = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return its result."""
        result = f"{self.node.output[0]}::{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def constant(self, value: np.ndarray) -> str:
        """Add a constant, and return its name."""
        name = self.facts.constant(value, self.node.output[0])
        self.facts.constants[name] = value
        return name

    def dequantize(self, x: str, scale: str, zero: str = "", axis: int = 1) -> str:
        """Read integers as numbers; axis is that of the scales, where there are several."""
        zero = zero or self.constant(np.zeros((), self.facts.dtype(x)))
        return self.op("DequantizeLinear", x, self.scalar(scale), self.scalar(zero), axis=axis)

    def scalar(self, parameter: str) -> str:
        """A parameter whose only element has a rank of 0."""
        value = self.facts.constants.get(parameter)
        is_vector = value is not None and value.size == 1 and value.ndim
        return self.constant(value.reshape(())) if is_vector and value is not None else parameter

    def numbers(self, first: int, axis: int = 1) -> str:
        """What an input, the scale behind it and the zero behind that stand for."""
        x, scale, zero = (input_of(self.node, first + n) for n in range(3))
        return self.dequantize(x, scale, zero, axis)

    def quantize(self, y: str, scale: str, zero: str) -> Nodes:
        """Store numbers as the result of the node, and return all that was written."""
        zero = self.scalar(zero) if zero else self.constant(np.zeros((), np.uint8))
        return self.end("QuantizeLinear", y, self.scalar(scale), zero)

    def end(self, kind: str, *inputs: str, **attributes: Any) -> Nodes:
        """Add the node that makes the result, and return all that was written."""
        return [*self.nodes, helper.make_node(kind, inputs, [self.node.output[0]], **attributes)]


def _bias(write: _Writer, bias: str, x_scale: str, w_scale: str) -> str:
    """An int32 bias, whose scale is that of the products."""
    scales = [write.facts.constants.get(name) for name in (x_scale, w_scale)]
    if any(scale is None for scale in scales):
        raise unsupported(write.node, "has a bias whose scale is computed, which is not supported")
    x, w = (np.asarray(scale, np.float32).reshape(-1) for scale in scales)
    scale = x * w
    return write.dequantize(bias, write.constant(scale), write.constant(np.zeros(scale.shape, np.int32)), axis=0)


def q_linear_conv(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """`QLinearConv`: an int32 bias is of the scale of the products."""
    write = _Writer(node, facts)
    inputs = [write.numbers(0), write.numbers(3, axis=0)]
    if bias := input_of(node, 8):
        inputs.append(_bias(write, bias, node.input[1], node.input[4]))
    return write.quantize(write.op("Conv", *inputs, **attributes_of(node)), node.input[6], node.input[7])


def q_linear_mat_mul(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """`QLinearMatMul`: a has scales for rows, b for columns."""
    write = _Writer(node, facts)
    for name in (node.input[1], node.input[4]):
        if (scale := facts.constants.get(name)) is not None and scale.ndim > 1 and scale.size > 1:
            raise unsupported(node, f"with scales of shape {scale.shape} is not supported")
    product = write.op("MatMul", write.numbers(0, axis=-2), write.numbers(3, axis=-1))
    return write.quantize(product, node.input[6], node.input[7])


EXACT_DEPTH = 2**24 // 255**2
"""Products of 8 bits whose sum is exact in float32."""


def _depth(shape: list[int] | None) -> int:
    """The terms of each sum in a convolution, 0 where that is not known."""
    return 0 if shape is None else math.prod(shape[1:])


def _of_integers(kind: str, axes: tuple[int, int]) -> Rewrite:
    """A product of integers less their zeros, where one of them is constant."""

    def convert(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
        if not any(name in facts.constants for name in node.input[:2]):
            if kind == "MatMul":
                return None
            if not 0 < _depth(facts.static_shape(node.input[1])) <= EXACT_DEPTH:
                raise unsupported(node, f"with computed weights of more than {EXACT_DEPTH} terms is not supported")
        write = _Writer(node, facts)
        one = write.constant(np.ones((), np.float32))
        operands = []
        for place, axis in enumerate(axes):
            zero = input_of(node, 2 + place)
            known = facts.constants.get(zero)
            scale = one if known is None or known.size == 1 else write.constant(np.ones(known.shape, np.float32))
            operands.append(write.dequantize(node.input[place], scale, zero, axis=axis))
        product = write.op(kind, *operands, **attributes_of(node))
        return write.end("Cast", product, to=onnx.TensorProto.INT32)

    return convert


def q_gemm(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """`QGemm`: a bias of int32, and a result of float32 where no scale is given for it."""
    write = _Writer(node, facts)
    attrs = attributes_of(node)
    if attrs.get("alpha", 1.0) != 1:
        raise unsupported(node, "with alpha other than 1 is not supported")
    inputs = [write.numbers(0), write.numbers(3, axis=0 if attrs.get("transB") else 1)]
    if bias := input_of(node, 6):
        inputs.append(_bias(write, bias, node.input[1], node.input[4]))
    flags = {name: attrs.get(name, 0) for name in ("transA", "transB")}
    if not input_of(node, 7):
        return write.end("Gemm", *inputs, **flags)
    return write.quantize(write.op("Gemm", *inputs, **flags), node.input[7], input_of(node, 8))


def mat_mul_integer_to_float(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """`MatMulIntegerToFloat`: the scales of both operands come first, then their zeros, then a bias."""
    write = _Writer(node, facts)
    left, right, left_scale, right_scale, left_zero, right_zero, bias = (input_of(node, n) for n in range(7))
    return _to_float(write, write.dequantize(left, left_scale, left_zero), (right, right_scale, right_zero), bias)


def dynamic_quantize_mat_mul(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """`DynamicQuantizeMatMul`: the first operand is quantised by its own range."""
    write = _Writer(node, facts)
    x, right, right_scale, right_zero, bias = (input_of(node, n) for n in range(5))
    q, scale, zero = (f"{node.output[0]}::{name}" for name in ("q", "scale", "zero"))
    write.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], [q, scale, zero]))
    return _to_float(write, write.dequantize(q, scale, zero), (right, right_scale, right_zero), bias)


def _to_float(write: _Writer, left: str, right: tuple[str, str, str], bias: str) -> Nodes:
    factors = left, write.dequantize(*right, axis=-1)
    return write.end("Add", write.op("MatMul", *factors), bias) if bias else write.end("MatMul", *factors)


def _unary(kind: str, *kept: str) -> Rewrite:
    """An operator of one tensor: x, its scale and zero, the scale and zero of y."""

    def convert(node: onnx.NodeProto, facts: Facts) -> Nodes:
        write = _Writer(node, facts)
        attrs = attributes_of(node)
        if attrs.pop("channels_last", 0):
            raise unsupported(node, "with channels_last is not supported")
        attrs = {name: value for name, value in attrs.items() if name in kept}
        return write.quantize(write.op(kind, write.numbers(0), **attrs), node.input[3], input_of(node, 4))

    return convert


def _binary(kind: str) -> Rewrite:
    """An operator of two tensors, each with its scale and zero, as has the result."""

    def convert(node: onnx.NodeProto, facts: Facts) -> Nodes:
        write = _Writer(node, facts)
        result = write.op(kind, write.numbers(0), write.numbers(3))
        return write.quantize(result, node.input[6], input_of(node, 7))

    return convert


def q_linear_concat(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """`QLinearConcat`: the scale and zero of the result come first."""
    write = _Writer(node, facts)
    parts = [write.numbers(first) for first in range(2, len(node.input), 3)]
    return write.quantize(write.op("Concat", *parts, **attributes_of(node)), node.input[0], node.input[1])


def to_standard(node: onnx.NodeProto, facts: Facts) -> Nodes:
    """The operator of this name that became part of the standard."""
    return [helper.make_node(node.op_type, node.input, node.output, **attributes_of(node))]


def quantize_linear(node: onnx.NodeProto, facts: Facts) -> None:
    """`QuantizeLinear` stays as it is, but divides by its scale."""
    scale = facts.constants.get(node.input[1])
    if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
        raise unsupported(node, f"with the scale {scale.min()} is not supported; scales must be positive numbers")


QUANTIZED: dict[str, Rewrite] = {
    "ConvInteger": _of_integers("Conv", (1, 0)),
    "MatMulInteger": _of_integers("MatMul", (-2, -1)),
    "QLinearConv": q_linear_conv,
    "QLinearMatMul": q_linear_mat_mul,
    "QuantizeLinear": quantize_linear,
}
"""Of the standard's own operators."""

_POOLING = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

CONTRIBUTED: dict[str, Rewrite] = {
    "DequantizeLinear": to_standard,
    "DynamicQuantizeMatMul": dynamic_quantize_mat_mul,
    "MatMulIntegerToFloat": mat_mul_integer_to_float,
    "QGemm": q_gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary("AveragePool", *_POOLING),
    "QLinearConcat": q_linear_concat,
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax", "axis"),
    "QuantizeLinear": to_standard,
}
"""Of ONNX Runtime, which writes them for operators that the standard has over floats alone."""
