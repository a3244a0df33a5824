"""PyTorch's operators on quantised tensors, as Relax's ``quantize`` and ``dequantize``.

``torch.ops.quantized_decomposed`` is what quantising an exported program leaves around its operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

Parameter = Callable[[Any], relax.Expr]
"""Gives the Relax expression of a node that is a scale or a zero."""


def quantize(builder: relax.BlockBuilder, value: Parameter, node: Any) -> relax.Var:
    """``clamp(round(x / scale) + zero, low, high)``, with one scale or one for each index of an axis."""
    x, scale, zero, axis, low, high, dtype = _arguments(node)
    data, steps = value(x), _scale(value, scale)
    origin = _zero(value, zero, dtype)
    limits = np.iinfo(dtype)
    if low > limits.min or high < limits.max:
        if not isinstance(scale, float) or not isinstance(zero, int):
            raise NotImplementedError(f"a range of {low} to {high} with scales that are tensors is not")
        bounds = (relax.prim_value(float((limit - zero) * scale)) for limit in (low, high))
        data = builder.emit(relax.op.clip(data, *bounds))  # the same integers, without an operator on them
    return builder.emit(relax.op.quantize(data, steps, origin, axis, dtype))


def dequantize(builder: relax.BlockBuilder, value: Parameter, node: Any) -> relax.Var:
    """``(q - zero) * scale``, with one scale or one for each index of an axis."""
    q, scale, zero, axis, *_, dtype = _arguments(node)
    made = str(node.meta["val"].dtype).removeprefix("torch.")
    return builder.emit(relax.op.dequantize(value(q), _scale(value, scale), _zero(value, zero, dtype), axis, made))


def _arguments(node: Any) -> tuple[Any, ...]:
    """Tensor, scale, zero, axis, least and greatest integer, and their type."""
    tensor, scale, zero, *rest = node.args
    axis, low, high, dtype = rest if "per_channel" in node.target.__name__ else (0, *rest)
    return tensor, scale, zero, axis, low, high, str(dtype).removeprefix("torch.")


def _scale(value: Parameter, scale: Any) -> relax.Expr:
    return relax.const(scale, "float32") if isinstance(scale, float) else relax.op.astype(value(scale), "float32")


def _zero(value: Parameter, zero: Any, dtype: str) -> relax.Expr:
    if isinstance(zero, int):
        return relax.const(zero, dtype)
    if zero is None:
        return relax.const(0, dtype)
    return relax.op.astype(value(zero), dtype)


Write = Callable[[relax.BlockBuilder, Parameter, Any], relax.Var]

QUANTIZED: dict[str, Write] = {
    "dequantize_per_channel.default": dequantize,
    "dequantize_per_tensor.default": dequantize,
    "dequantize_per_tensor.tensor": dequantize,
    "quantize_per_channel.default": quantize,
    "quantize_per_tensor.default": quantize,
    "quantize_per_tensor.tensor": quantize,
}
"""By the operator's name and overload."""
