"""TVM's ONNX importer, node by node: shape arithmetic folded, results named after their nodes, failures explained."""

import math
import re
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
import tvm
from onnx import numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from sparsec.errors import ModelError, SparsecError, UnsupportedError, last_line
from sparsec.frontends.bounds import Bounds
from sparsec.frontends.shape_values import SHAPE_OPERATORS, evaluate_shape, from_expr, to_expr

_TAKES_SHAPES = {"Reshape", "Resize", "ConstantOfShape", "Slice", "Expand"}
"""Operators whose converters want a shape as a `ShapeExpr`; to all others it is an int64 tensor."""


class OnnxImporter(onnx_frontend.ONNXGraphImporter):
    """Turns a graph into Relax.

    Parameters
    ----------
    shapes : dict
        Input to its sizes and symbolic variables.
    bounds : Bounds
        Ranges of the symbolic variables.
    names : dict
        Unique node name to the name that the user knows.
    """

    def __init__(self, shapes: dict[str, list[Any]], bounds: Bounds, names: dict[str, str]) -> None:
        super().__init__(shapes, "float32")
        self.bounds = bounds
        self.names = names
        self.named: dict[str, str] = {}
        """Variables that hold the result of a node, and the user's name of that node."""

    def from_onnx(self, graph: onnx.GraphProto, opset: int) -> tvm.IRModule:
        try:
            return super().from_onnx(graph, opset)
        except SparsecError:
            self.bb._end_block()  # the builder complains of open blocks when it is freed
            raise

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            try:
                self._construct_node(node)
            except Exception as err:  # converters raise assertions, ValueErrors, KeyErrors and TVM's own errors
                raise self._failure(node, last_line(err)) from err

    def _construct_node(self, node: onnx.NodeProto) -> None:
        inputs = [self._nodes[name] if name else None for name in node.input]
        if node.op_type in SHAPE_OPERATORS:
            values = [from_expr(value, node.op_type == "Shape") for value in inputs]
            if (shape := evaluate_shape(node, values, self.bounds)) is not None:
                self._nodes[node.output[0]] = to_expr(shape)
                return
        if node.op_type == "Range" and all(tvm.ir.is_prim_expr(value) or _is_int64(value) for value in inputs):
            limits = [value.item() for value in map(from_expr, inputs) if value is not None]
            self._nodes[node.output[0]] = self._bind(self.bb.normalize(relax.op.arange(*limits)), node.name)
            return
        if node.op_type not in _TAKES_SHAPES:
            self._nodes.update({n: self._as_tensor(v) for n, v in zip(node.input, inputs, strict=True) if n})
        super()._construct_nodes(onnx.GraphProto(node=[node]))
        for output in filter(None, node.output):
            self._nodes[output] = self._bind(self._nodes[output], node.name)

    def _as_tensor(self, value: Any) -> Any:
        if tvm.ir.is_prim_expr(value):
            scalar = self.bb.emit(relax.op.shape_to_tensor(relax.ShapeExpr([value])))
            return self.bb.emit(relax.op.reshape(scalar, []))
        if isinstance(value, relax.ShapeExpr):
            return self.bb.emit(relax.op.shape_to_tensor(value))
        return value

    def _bind(self, expr: Any, node: str) -> Any:
        """Bind a result to a variable named after its node."""
        if not isinstance(expr, tvm.ir.Call | relax.Var) or not isinstance(expr.ty, relax.TensorType):
            return expr
        var = expr if isinstance(expr, relax.Var) else self.bb.emit(expr, name_hint=node)
        self.named.setdefault(var.name, self.names[node])
        return var

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        taken = None
        if op_name == "Gather" and not isinstance(inputs[0], relax.ShapeExpr):
            taken = _gather(inputs[0], inputs[1], attrs.get("axis", 0))
        if op_name == "GatherND" and not attrs.get("batch_dims", 0):
            taken = _gather_nd(inputs[0], inputs[1])
        if taken is not None:
            return self.bb.normalize(taken)
        converted = super()._convert_operator(op_name, inputs, attrs, opset)
        if op_name == "BitShift" and isinstance(converted, tvm.ir.Call):
            return self.bb.normalize(_within_bits(converted, *inputs[:2]))
        return converted

    def _failure(self, node: onnx.NodeProto, reason: str) -> SparsecError:
        shapes = ", ".join(_describe(self._nodes[name]) if name else "-" for name in node.input)
        domain = f"{node.domain}." if node.domain else ""
        operator = f"operator {domain}{node.op_type} of operator set {self.opset} on ({shapes})"
        if misfit := self._misfit(node, operator):
            return ModelError(f"node {self.names[node.name]!r}: {misfit}")
        return UnsupportedError(f"node {self.names[node.name]!r}: {operator} is not supported: {reason}")

    def _misfit(self, node: onnx.NodeProto, operator: str) -> str | None:
        """What ONNX's own shape inference has against a node; None where it has nothing, or cannot tell."""
        values = {name: self._nodes[name] for name in node.input if name}
        types = {name: proto for name, value in values.items() if (proto := _type_proto(value))}
        known = {name: value.value.numpy() for name, value in values.items() if isinstance(value, tvm.ir.GenericConst)}
        constants = {name: numpy_helper.from_array(array) for name, array in known.items()}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
            onnx.shape_inference.infer_node_outputs(schema, node, types, constants)
        except onnx.shape_inference.InferenceError as err:
            return f"the shapes do not fit: {operator}: {last_line(err).removeprefix('[ShapeInferenceError] ')}"
        except onnx.checker.ValidationError as err:
            return (
                f"the types do not fit: {operator}: {last_line(err)}; convert its inputs to one type, such as float32"
            )
        except (onnx.defs.SchemaError, ValueError):  # an operator that is not ONNX's, or too few types
            return None
        return None


def _gather_nd(data: Any, indices: Any) -> Any:
    """Constant indices are made positive here; those that take all of the data in order only reshape it."""
    if not isinstance(indices, tvm.ir.GenericConst) or not all(isinstance(n, tvm.tirx.IntImm) for n in data.ty.shape):
        return None
    shape = [size.value for size in data.ty.shape]
    positions = indices.value.numpy()
    depth = positions.shape[-1]
    positions = positions % np.array(shape[:depth])
    flat = np.ravel_multi_index(tuple(np.moveaxis(positions, -1, 0)), shape[:depth]).reshape(-1)
    if np.array_equal(flat, np.arange(math.prod(shape[:depth]))):
        return relax.op.reshape(data, [*positions.shape[:-1], *shape[depth:]])
    return relax.op.gather_nd(data, relax.const(positions))


def _within_bits(shifted: Any, x: Any, amount: Any) -> Any:
    """Give shifts by no number of bits that a value has the result of ONNX, which processors do not agree on."""
    dtype = str(x.ty.dtype)
    bits, signed = int(re.sub(r"\D", "", dtype)), dtype.startswith("int")
    inside = relax.op.less(amount, relax.const(bits, dtype))
    if signed:
        inside = relax.op.logical_and(inside, relax.op.greater_equal(amount, relax.const(0, dtype)))
    fills = signed and shifted.op.name == "relax.right_shift"
    beyond = relax.op.right_shift(x, relax.const(bits - 1, dtype)) if fills else relax.op.zeros_like(x)
    return relax.op.where(inside, shifted, beyond)


def _is_int64(value: Any) -> bool:
    return isinstance(value, tvm.ir.GenericConst) and value.ty == relax.TensorType((), "int64")


def _gather(data: Any, indices: Any, axis: int) -> Any:
    """A `take` with nothing around it: TVM's converter computes shapes at run time to make indices positive."""
    size = data.ty.shape[axis]
    if isinstance(indices, tvm.ir.GenericConst) and isinstance(size, tvm.tirx.IntImm):
        return relax.op.take(data, relax.const(indices.value.numpy() % size.value), axis)
    return relax.op.take(data, indices, axis, mode="wrap")


def _describe(value: Any) -> str:
    if isinstance(value, relax.ShapeExpr):
        return f"shape {list(value.values)}"
    if isinstance(getattr(value, "ty", None), relax.TensorType) and value.ty.shape is not None:
        sizes = (size.value if isinstance(size, tvm.tirx.IntImm) else size for size in value.ty.shape)
        return f"{value.ty.dtype}[{', '.join(map(str, sizes))}]"
    return re.sub(r"\s+", " ", str(getattr(value, "ty", value)))


def _type_proto(value: Any) -> onnx.TypeProto | None:
    """The type of a tensor in the words of ONNX, with names for sizes that are symbolic."""
    if not isinstance(getattr(value, "ty", None), relax.TensorType) or value.ty.shape is None:
        return None
    sizes = [size.value if isinstance(size, tvm.tirx.IntImm) else str(size) for size in value.ty.shape]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(str(value.ty.dtype)))
    return onnx.helper.make_tensor_type_proto(kind, sizes)
