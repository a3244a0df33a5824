"""From an ONNX model to Relax: close shapes, fold, rewrite, then TVM's importer with names kept."""

import re
from dataclasses import replace

import onnx
import onnx.version_converter
import onnxsim
from tvm import relax

from sparsec.errors import UnsupportedError, last_line
from sparsec.frontends.bounds import Bounds
from sparsec.frontends.layers import trace_layers
from sparsec.frontends.model import Imported
from sparsec.frontends.onnx_importer import OnnxImporter
from sparsec.frontends.onnx_read import densify, import_operator_sets
from sparsec.frontends.onnx_rewrites import inline_functions, is_imported, rewrite
from sparsec.frontends.onnx_stored_weights import expand_stored_weights
from sparsec.frontends.quiet import silence
from sparsec.frontends.shapes import Range, Shapes, StatedDim, bind_shapes

OLDEST_OPSET = 13
"""Models of an older operator set are converted to this one, after which operators have one form each."""


def import_onnx(source: onnx.ModelProto, shapes: Shapes | None) -> Imported:
    """Turn an ONNX model, checked by `check_onnx`, into Relax; see `load_model`."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    import_operator_sets(model)
    densify(model)
    _drop_initializer_inputs(model.graph)
    groups = expand_stored_weights(model)
    dims, symbols = bind_shapes({value.name: _stated_dims(value) for value in model.graph.input}, shapes)
    _set_shapes(model.graph, dims)
    model = _upgrade(model)
    _name_outputs(model.graph)
    model = rewrite(_simplify(inline_functions(model)))
    names = _name_nodes(model.graph)
    _check_operators(model, names)
    return replace(_import(model, dims, symbols, names), groups=groups)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set, 0 in a model that uses none of it."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


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
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()


def _upgrade(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring models of older operator sets to `OLDEST_OPSET`."""
    model.ir_version = max(model.ir_version, 8)
    opset = opset_of(model)
    if opset >= OLDEST_OPSET or not opset:
        return model
    try:
        return onnx.version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as err:  # the converter raises RuntimeError and its own kinds
        if opset >= 11:
            return model
        raise UnsupportedError(
            f"the model uses operator set {opset}, and onnx cannot convert it to {OLDEST_OPSET} ({last_line(err)}); "
            "export it with operator set 11 or newer"
        ) from err


def _simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and shape arithmetic; a model that onnxsim cannot take goes on as it is."""
    try:
        with silence():
            simplified, _ = onnxsim.simplify(model, perform_optimization=False)  # it would fuse into vendor operators
    except Exception:  # onnxsim raises whatever its C++ passes raise
        return model
    return simplified


def _name_outputs(graph: onnx.GraphProto) -> None:
    """A node without a name is known by its output; onnxsim keeps names."""
    for node in graph.node:
        node.name = node.name or f"{node.op_type}({', '.join(filter(None, node.output))})"


def _name_nodes(graph: onnx.GraphProto) -> dict[str, str]:
    """Give every node a name of its own, and map it to the name that the user knows."""
    known: dict[str, str] = {}
    for node in graph.node:
        given = node.name or node.op_type
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
    for node in model.graph.node:
        if is_imported(node):
            continue
        hint = " (its condition does not fold to a constant)" if node.op_type in ("If", "Loop", "Scan") else ""
        operator = f"{node.op_type} of operator set {opset_of(model)}"
        if node.domain:
            operator = f"{node.domain}.{node.op_type}"
        raise UnsupportedError(f"node {names[node.name]!r}: operator {operator} is not supported{hint}")


def _import(
    model: onnx.ModelProto, dims: dict[str, list[int | str]], symbols: dict[str, Range], names: dict[str, str]
) -> Imported:
    bounds = Bounds(symbols)
    importer = OnnxImporter({name: bounds.shape(axes) for name, axes in dims.items()}, bounds, names)
    with silence():
        module = relax.transform.DeadCodeElimination()(importer.from_onnx(model.graph, opset_of(model)))
    return Imported(
        module=module,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        symbols=symbols,
        layers=trace_layers(module, importer.named),
    )
