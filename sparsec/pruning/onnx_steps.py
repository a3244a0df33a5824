"""The operators of an ONNX model as steps of `kill_channels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
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


def steps_of(graph: onnx.GraphProto, uses: Uses, is_constant: Callable[[str], bool]) -> Iterator[Step]:
    """The steps that are known, in order."""
    for node in graph.node:
        computed = tuple(name for name in node.input if name and not is_constant(name))
        if node.output[0] in uses:
            weight, index = uses[node.output[0]]
            if index == 1 and not attribute_of(node, "transA", 0):
                yield Step("layer", computed, node.output[0], weight, tuple(filter(None, node.input[2:3])))
        elif step := _step(node, computed):
            yield step


def _step(node: onnx.NodeProto, computed: tuple[str, ...]) -> Step | None:
    """An operator without a weight of its own, if it is known."""
    kind: Kind | None = None
    offsets: tuple[str, ...] = ()
    if node.op_type in UNARY:
        kind = "same"
    elif node.op_type in POOLS:
        kind = "pool"
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
    elif node.op_type == "Flatten" and attribute_of(node, "axis", 1) == 1:
        kind = "flatten"
    return Step(kind, computed, node.output[0], offsets=offsets) if kind and computed else None


def last_layers(graph: onnx.GraphProto, uses: Uses, is_constant: Callable[[str], bool]) -> frozenset[str]:
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
        computed = [operand for operand in node.input if operand and not is_constant(operand)]
        if node.output[0] in uses:
            last.add(uses[node.output[0]][0])
        elif not (node.op_type in ("Add", "Sum") and len(computed) > 1):
            open_values.extend(computed)
    return frozenset(last)


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, or the default where the node has none."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
