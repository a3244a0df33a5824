"""Rewrites of operators that TVM's importer gets wrong, into operators that it gets right."""

import onnx
import onnx.inliner
from tvm.relax.frontend.onnx import onnx_frontend

_DEFINED_BY_FUNCTION = {"Attention"}
"""Operators of which TVM converts another operator of the same name, or a part, while ONNX defines them by others."""


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the model's own functions, and operators that TVM cannot import, by their definitions."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    known = onnx_frontend._get_convert_map()
    missing = {
        node.op_type
        for node in model.graph.node
        if node.domain in ("", "ai.onnx")
        and (node.op_type not in known or node.op_type in _DEFINED_BY_FUNCTION or _uses_statistics(node))
    }
    if not missing:
        return model
    return onnx.inliner.inline_selected_functions(model, [("", op) for op in missing], inline_schema_functions=True)


def _uses_statistics(node: onnx.NodeProto) -> bool:
    """TVM's layer normalization does not return the mean and the inverse deviation."""
    return node.op_type == "LayerNormalization" and any(node.output[1:])


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    return model
