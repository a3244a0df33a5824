"""The operators of an ONNX model as steps of `kill_channels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from sparsec.pruning.flow import Kind, Step

UNARY = {
    *("Abs", "Cast", "Celu", "Dropout", "Elu", "Erf", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg"),
    *("PRelu", "Relu", "Selu", "Sign", "Sin", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
}
"""Operators that make zero of zero, element by element."""

POOLS = {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"}

Uses = Mapping[str, tuple[str, int]]
"""The weight of each layer and which operand it is, by the layer's output."""


Constant = Callable[[str], NDArray[Any] | None]
"""The value of a name, if it is a constant."""


def steps_of(graph: onnx.GraphProto, uses: Uses, constant: Constant) -> Iterator[Step]:
    """The steps that are known, in order."""
    for node in graph.node:
        computed = tuple(name for name in node.input if name and constant(name) is None)
        if node.output[0] in uses:
            weight, index = uses[node.output[0]]
            if index == 1 and not attribute_of(node, "transA", 0):
                yield Step("layer", computed, node.output[0], weight, tuple(filter(None, node.input[2:3])))
        elif step := _step(node, computed, constant):
            yield step


def _step(node: onnx.NodeProto, computed: tuple[str, ...], constant: Constant) -> Step | None:
    """An operator without a weight of its own, if it is known."""
    kind: Kind | None = None
    offsets: tuple[str, ...] = ()
    if node.op_type in UNARY or (node.op_type == "Clip" and _keeps_zero(node, constant)):
        kind = "same"
    elif node.op_type in POOLS:
        kind = "pool"
    elif node.op_type in ("Flatten", "ReduceMean", "Reshape", "Squeeze"):
        kind = _flattening(node, constant)
    elif node.op_type == "BatchNormalization":
        kind, offsets = "norm", tuple(node.input[1:3])
    elif node.op_type in ("Add", "Sum", "Sub"):
        kind = "add" if len(computed) == len(node.input) else "bias"
        offsets = tuple(name for name in node.input if name not in computed)
    elif node.op_type == "Mul" or (node.op_type == "Div" and node.input[0] in computed):
        kind = "multiply" if node.op_type == "Mul" else "same"
        computed = computed if node.op_type == "Mul" else computed[:1]
    elif node.op_type == "Concat" and attribute_of(node, "axis") == 1 and len(computed) == len(node.input):
        kind = "concat"
    return Step(kind, computed, node.output[0], offsets=offsets) if kind and computed else None


def _keeps_zero(node: onnx.NodeProto, constant: Constant) -> bool:
    """Whether a Clip, such as ReLU6, makes zero of zero."""
    bounds = [constant(name) for name in node.input[1:] if name]
    bounds += [attribute_of(node, name, 0.0) for name in ("min", "max")]
    low, high = bounds[:2]
    return low is not None and high is not None and bool(low <= 0 <= high)


def _flattening(node: onnx.NodeProto, constant: Constant) -> Kind | None:
    """What becomes of [n, channels, …]: ``flatten`` where channels end on the last axis, ``pool`` where they stay."""
    operand = constant(node.input[1]) if len(node.input) > 1 else attribute_of(node, "axes")
    axes = [] if operand is None else [int(axis) for axis in operand]
    if node.op_type == "Flatten":
        return "flatten" if attribute_of(node, "axis", 1) == 1 else None
    if node.op_type == "Reshape":
        return "flatten" if len(axes) == 2 else None
    if sorted(axes) not in ([2], [2, 3], [-2, -1], [-1]):
        return None
    return "pool" if node.op_type == "ReduceMean" and attribute_of(node, "keepdims", 1) else "flatten"


def last_layers(graph: onnx.GraphProto, uses: Uses, constant: Constant) -> frozenset[str]:
    """Weights of the layers that compute outputs of the model; what is added to others on the way is none of them."""
    writers = {name: node for node in graph.node for name in node.output}
    open_values = [value.name for value in graph.output]
    seen: set[str] = set()
    last: set[str] = set()
    while open_values:
        name = open_values.pop()
        node = writers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        computed = [operand for operand in node.input if operand and constant(operand) is None]
        if node.output[0] in uses:
            last.add(uses[node.output[0]][0])
        elif not (node.op_type in ("Add", "Sum") and len(computed) > 1):
            open_values.extend(computed)
    return frozenset(last)


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, or the default where the node has none."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
