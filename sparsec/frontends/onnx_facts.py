"""What is known about the values of an ONNX graph, and how rewrites of its nodes read these."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from sparsec.errors import UnsupportedError

Nodes = list[onnx.NodeProto]


@dataclass
class Facts:
    """What is known about the values of a graph."""

    constants: dict[str, np.ndarray]
    types: dict[str, onnx.TypeProto.Tensor]
    added: list[onnx.TensorProto] = field(default_factory=list)

    def shape(self, name: str) -> list[int | None] | None:
        """Sizes, None where symbolic; None for an unknown rank."""
        if name in self.constants:
            return list(self.constants[name].shape)
        tensor = self.types.get(name)
        if tensor is None or not tensor.HasField("shape"):
            return None
        return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]

    def static_shape(self, name: str) -> list[int] | None:
        shape = self.shape(name)
        return None if shape is None or None in shape else [size for size in shape if size is not None]

    def dtype(self, name: str) -> np.dtype:
        """The element type, float32 where inference did not find it."""
        if name in self.constants:
            return self.constants[name].dtype
        tensor = self.types.get(name)
        return np.dtype(np.float32) if tensor is None else helper.tensor_dtype_to_np_dtype(tensor.elem_type)

    def constant(self, value: np.ndarray, near: str) -> str:
        """Add a constant; its name starts with that of the value that it is for."""
        name = f"{near}::constant_{len(self.added)}"
        self.added.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name


def find_facts(model: onnx.ModelProto) -> Facts:
    """Infer the types of a graph, and read its constants."""
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except (RuntimeError, ValueError):  # inference gives up on malformed nodes, which are reported at import
        inferred = model.graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return Facts(
        constants={tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer},
        types={value.name: value.type.tensor_type for value in values if value.type.HasField("tensor_type")},
    )


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that a node states, by name."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def unsupported(node: onnx.NodeProto, reason: str) -> UnsupportedError:
    """The error of a node that is not taken."""
    return UnsupportedError(f"node {node.name!r}: operator {node.op_type} {reason}")


def input_of(node: onnx.NodeProto, index: int) -> str:
    """The name of an input, empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""


Rewrite = Callable[[onnx.NodeProto, Facts], Nodes | None]
"""What to put in place of a node; None leaves it as it is."""
