"""From an ONNX model to Relax: close shapes, fold, rewrite, then TVM's importer with names kept."""

import re
from typing import Any

import onnx
import onnx.inliner
import onnx.version_converter
import onnxsim
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from sparsec.errors import UnsupportedError
from sparsec.frontends.layers import first_line, silence, trace_layers
from sparsec.frontends.model import Imported
from sparsec.frontends.onnx_read import densify
from sparsec.frontends.onnx_rewrites import rewrite
from sparsec.frontends.shapes import Range, Shapes, StatedDim, bind_shapes

OLDEST_OPSET = 13
"""Models of an older operator set are converted to this one, after which operators have one form each."""


def import_onnx(source: onnx.ModelProto, shapes: Shapes | None) -> Imported:
    """Turn an ONNX model, checked by `check_onnx`, into Relax; see `load_model`."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    densify(model)
    _drop_initializer_inputs(model.graph)
    dims, symbols = bind_shapes({value.name: _stated_dims(value) for value in model.graph.input}, shapes)
    _set_shapes(model.graph, dims)
    model = rewrite(_simplify(_upgrade(model)))
    names = _name_nodes(model.graph)
    _check_operators(model, names)
    return _import(model, dims, symbols, names)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _drop_initializer_inputs(graph: onnx.GraphProto) -> None:
    """Up to IR version 3 every weight is an input as well; here a weight is a constant."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)


def _stated_dims(value: onnx.ValueInfoProto) -> list[StatedDim] | None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(f"input {value.name!r} is a {kind or 'value without a type'}; only tensors are compiled")
    tensor = value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        raise UnsupportedError(f"input {value.name!r} holds strings; only numbers are compiled")
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]


def _set_shapes(graph: onnx.GraphProto, dims: dict[str, list[int | str]]) -> None:
    """Write the closed shapes into the inputs, and forget those that followed from the open ones."""
    for value in graph.input:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for dim in dims[value.name]:
            shape.dim.add(**{"dim_value" if isinstance(dim, int) else "dim_param": dim})
        value.type.tensor_type.shape.SetInParent()
    del graph.value_info[:]
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")


def _upgrade(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline functions, and bring models of older operator sets to `OLDEST_OPSET`."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model.ir_version = max(model.ir_version, 8)
    opset = opset_of(model)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as err:  # the converter raises RuntimeError and its own kinds
        if opset >= 11:
            return model
        raise UnsupportedError(
            f"the model uses operator set {opset}, and onnx cannot convert it to {OLDEST_OPSET} ({first_line(err)}); "
            "export it with operator set 11 or newer"
        ) from err


def _simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and shape arithmetic; a model that onnxsim cannot take goes on as it is."""
    try:
        with silence():
            simplified, _ = onnxsim.simplify(model)
    except Exception:  # onnxsim raises whatever its C++ passes raise
        return model
    return simplified


def _name_nodes(graph: onnx.GraphProto) -> dict[str, str]:
    """Give every node a name of its own, and map it to the name that the user knows."""
    known: dict[str, str] = {}
    for node in graph.node:
        given = node.name or f"{node.op_type}({node.output[0]})"
        stem = unique = re.sub(r"\W+", "_", given).strip("_") or node.op_type
        count = 0
        while unique in known:
            count += 1
            unique = f"{stem}_{count}"
        known[unique] = given
        node.name = unique
    return known


def _check_operators(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Name the first node that cannot be imported, before the work begins."""
    known = onnx_frontend._get_convert_map()
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx", "com.microsoft") and node.op_type in known:
            continue
        hint = " (its condition does not fold to a constant)" if node.op_type in ("If", "Loop", "Scan") else ""
        domain = f"{node.domain}." if node.domain else ""
        raise UnsupportedError(
            f"node {names[node.name]!r}: operator {domain}{node.op_type} of operator set {opset_of(model)} "
            f"is not supported{hint}"
        )


class _Importer(onnx_frontend.ONNXGraphImporter):
    """TVM's importer, with the result of every node bound to a variable named after the node."""

    def __init__(self, shapes: dict[str, list[Any]], names: dict[str, str]) -> None:
        super().__init__(shapes, "float32")
        self.names = names
        self.named: dict[str, str] = {}

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        node = attrs["tvm_custom"]["name"]
        try:
            return self._bind(super()._convert_operator(op_name, inputs, attrs, opset), node)
        except Exception as err:  # converters raise assertions, ValueErrors, KeyErrors and TVM's own errors
            shapes = ", ".join(_describe(value) for value in inputs)
            raise UnsupportedError(
                f"node {self.names[node]!r}: operator {op_name} of operator set {opset} on ({shapes}) "
                f"is not supported: {first_line(err)}"
            ) from err

    def _bind(self, expr: Any, node: str) -> Any:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._bind(field, node) for field in expr.fields])
        if not isinstance(expr, tvm.ir.Call) or not isinstance(expr.ty, relax.TensorType | relax.TupleType):
            return expr
        var = self.bb.emit(expr, name_hint=node)
        self.named[var.name] = node
        return var


def _describe(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, relax.ShapeExpr):
        return f"shape {list(value.values)}"
    return re.sub(r"^R\.\w+", "", str(getattr(value, "ty", value))).replace("\n", " ")


def _import(
    model: onnx.ModelProto, dims: dict[str, list[int | str]], symbols: dict[str, Range], names: dict[str, str]
) -> Imported:
    variables = {name: tvm.tirx.Var(name, "int64") for name in symbols}
    shapes = {name: [variables.get(dim, dim) for dim in axes] for name, axes in dims.items()}
    importer = _Importer(shapes, names)
    with silence():
        module = importer.from_onnx(model.graph, opset_of(model))
    return Imported(
        module=module,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        symbols=symbols,
        layers=trace_layers(module, {var: names[node] for var, node in importer.named.items()}),
    )
