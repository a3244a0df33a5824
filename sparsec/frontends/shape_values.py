"""Arithmetic on shapes, done at import: what a model computes from its symbols to reshape, slice and expand.

A shape value is a NumPy array of objects of rank 0 or 1, whose elements are ints or TVM expressions over the symbols.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import helper
from tvm import relax, tirx

from sparsec.frontends.bounds import Bounds

ShapeValue = np.ndarray
_LONGEST = 64
"""Longer integer constants are data, not shapes."""

_ELEMENTWISE: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
    "Min": lambda a, b: min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(a, b),
    "Max": lambda a, b: max(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.max(a, b),
}
SHAPE_OPERATORS = {
    "Cast", "Concat", "ConstantOfShape", "Equal", "Gather", "Identity", "ReduceProd", "Reshape", "Shape", "Slice",
    "Squeeze", "Unsqueeze", "Where", *_ELEMENTWISE,
}  # fmt: skip


def from_expr(expr: Any, of_tensor: bool = False) -> ShapeValue | None:
    """The shape value that an imported expression holds, or (``of_tensor``) the shape of the expression itself."""
    if of_tensor:
        shape = getattr(getattr(expr, "ty", None), "shape", None)
        return None if not isinstance(shape, relax.ShapeExpr) else _array([_plain(size) for size in shape.values])
    if isinstance(expr, relax.ShapeExpr):
        return _array([_plain(size) for size in expr.values])
    if isinstance(expr, tvm.ir.GenericConst):
        value = expr.value
        if len(value.shape) <= 1 and str(value.dtype) in ("int32", "int64", "bool") and value.numpy().size <= _LONGEST:
            return _array(value.numpy().tolist())
        return None
    return _array(_plain(expr)) if tvm.ir.is_prim_expr(expr) else None


def to_expr(value: ShapeValue) -> Any:
    """A constant where all is known, else what TVM's converters take for a shape or a dimension."""
    if all(isinstance(size, int) for size in value.flat):
        dtype = "bool" if value.size and all(isinstance(size, bool) for size in value.flat) else "int64"
        return relax.const(value.astype(dtype), dtype)
    return relax.ShapeExpr(list(value)) if value.ndim else relax.prim_value(value.item())


def evaluate_shape(node: onnx.NodeProto, values: Sequence[ShapeValue | None], bounds: Bounds) -> ShapeValue | None:
    """Evaluate one node of `SHAPE_OPERATORS`; None where it does not work on shapes."""
    if not values or any(value is None and name for value, name in zip(values, node.input, strict=True)):
        return None
    result = _evaluate(node, values)
    if result is None:
        return None
    if not isinstance(result, np.ndarray):  # NumPy unpacks arrays of rank 0
        result = _array(result)
    if result.ndim > 1:
        return None
    return _array([bounds.simplify(size) for size in result] if result.ndim else bounds.simplify(result.item()))


def _evaluate(node: onnx.NodeProto, values: Sequence[Any]) -> Any:
    attrs = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    first = values[0]
    ints = [[int(v) for v in value.flat] if value is not None and _all_ints(value) else None for value in values]
    match node.op_type:
        case "Shape":
            return first[attrs.get("start", 0) : attrs.get("end", len(first))]
        case "Identity":
            return first
        case "Cast":
            return first if attrs["to"] in (onnx.TensorProto.INT32, onnx.TensorProto.INT64) else None
        case "Gather" if ints[1] is not None:
            return np.take(first, np.reshape(ints[1], values[1].shape), axis=0) if first.ndim else None
        case "Concat":
            return np.concatenate(values)
        case "Slice" if len(values) > 2 and all(value is not None and value.size == 1 for value in values[1:]):
            ends = [value.item() for value in (values[1], values[2], *values[4:])]
            if not all(isinstance(end, int) for end in ends):
                return None
            start, end, step = (*ends, 1)[:3]
            return first[slice(start, end if end > -(2**31) else None, step)]
        case "Unsqueeze" | "Squeeze" | "Reshape":
            return _reshape(node.op_type, first, ints[1] if len(ints) > 1 else None)
        case "ReduceProd":
            return first.prod(keepdims=bool(attrs.get("keepdims", 1)))
        case "ConstantOfShape" if first.shape == (1,) and ints[0] is not None:
            fill = onnx.numpy_helper.to_array(attrs["value"]).item() if "value" in attrs else None
            return _array([fill] * ints[0][0]) if isinstance(fill, int) else None
        case "Equal":
            return _compare(first, values[1])
        case "Where" if ints[0] is not None:
            return np.where(first.astype(bool), values[1], values[2])
        case op if op in _ELEMENTWISE and len(values) == 2:
            if op in ("Div", "Mod") and (ints[1] is None or min(ints[1]) <= 0):
                return None
            return np.frompyfunc(_ELEMENTWISE[op], 2, 1)(first, values[1])
    return None


def _compare(left: ShapeValue, right: ShapeValue) -> ShapeValue | None:
    """Dimensions are not negative, so they differ from -1, which is what exporters ask."""
    equal = []
    for a, b in np.broadcast(left, right):
        if isinstance(a, int) and isinstance(b, int):
            equal.append(a == b)
        elif (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0):
            equal.append(False)
        else:
            return None
    shape = np.broadcast_shapes(left.shape, right.shape)
    return _array(equal if shape else equal[0])


def _reshape(op: str, value: ShapeValue, arguments: list[int] | None) -> ShapeValue | None:
    if op == "Unsqueeze":
        return value.reshape(1) if value.ndim == 0 and arguments is not None and len(arguments) == 1 else None
    if op == "Squeeze":
        return value.reshape(()) if value.shape == (1,) else None
    if arguments in ([-1], [value.size]):
        return value.reshape(-1)
    return value.reshape(()) if arguments == [] and value.size == 1 else None


def _all_ints(value: ShapeValue) -> bool:
    return all(isinstance(size, int) for size in value.flat)


def _array(value: Any) -> ShapeValue:
    array = np.empty(() if not isinstance(value, list) else len(value), object)
    array[...] = value
    return array


def _plain(size: Any) -> Any:
    return int(size) if isinstance(size, int | tirx.IntImm) else size
