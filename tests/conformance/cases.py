"""The cases of ``onnx.backend.test``, in the form in which an ahead-of-time compiler can take them."""

import functools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
COMPILE_TIME_INPUTS = {
    "AffineGrid": [1],
    "BlackmanWindow": [0],
    "CenterCropPad": [1],
    "Col2Im": [1, 2],
    "ConstantOfShape": [0],
    "CumSum": [1],
    "Dropout": [1, 2],
    "Expand": [1],
    "HammingWindow": [0],
    "HannWindow": [0],
    "MaxUnpool": [2],
    "OneHot": [1],
    "Pad": [1, 2, 3],
    "Range": [0, 1, 2],
    "Reshape": [1],
    "Resize": [1, 2, 3],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "TopK": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
    "Upsample": [1],
} | {f"Reduce{kind}": [1] for kind in _REDUCTIONS}
"""Inputs that decide shapes: a compiler needs their values, though a case passes them at run time."""


@dataclass(frozen=True, eq=False)
class Case:
    """One case.

    Parameters
    ----------
    operators : frozenset of str
        What its graph holds: one operator, or those that a case named ``…_expanded`` takes one apart into.
    model : onnx.ModelProto
        With its compile-time inputs as initializers.
    inputs, outputs : tuple of np.ndarray
        What is left to pass, and what it returns.
    """

    name: str
    operators: frozenset[str]
    model: onnx.ModelProto
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    rtol: float
    atol: float

    @property
    def operator(self) -> str | None:
        """The operator of a case of a single node."""
        return _name(self.model.graph.node[0]) if len(self.model.graph.node) == 1 else None

    @property
    def version(self) -> int:
        """The version of the operator set in which the operator of a single node got its form."""
        node = self.model.graph.node[0]
        opset = next(entry.version for entry in self.model.opset_import if entry.domain == node.domain)
        return onnx.defs.get_schema(node.op_type, opset, node.domain).since_version


@functools.cache
def all_cases() -> tuple[list[Case], dict[str, frozenset[str]]]:
    """The cases over tensors of NumPy's own numbers, and the operators of every other one."""
    from onnx.backend.test.loader import load_node_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_node_model_tests()
    cases, others = [], {}
    for case in found:
        operators = frozenset(_operators(case.model.graph.node))
        inputs, outputs = (tuple(map(_as_array, values)) for values in case.data_sets[0])
        if all(map(_is_numeric, (*inputs, *outputs))):
            model, rest = _fix_inputs(case.model, inputs)
            cases.append(Case(case.name, operators, model, rest, outputs, case.rtol, case.atol))
        else:
            others[case.name] = operators
    return cases, others


def _name(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _operators(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield _name(node)
        for attribute in node.attribute:
            yield from _operators(attribute.g.node)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.isbuiltin == 1 and value.dtype.kind in "fiub"


def _as_array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _fix_inputs(
    source: onnx.ModelProto, values: Iterable[np.ndarray]
) -> tuple[onnx.ModelProto, tuple[np.ndarray, ...]]:
    model = onnx.ModelProto()
    model.CopyFrom(source)
    graph = model.graph
    fixed = {
        node.input[index]
        for node in graph.node
        for index in COMPILE_TIME_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }
    del graph.input[:]
    rest = []
    for info, value in zip(source.graph.input, values, strict=True):
        if info.name in fixed:
            graph.initializer.append(numpy_helper.from_array(value, info.name))
        else:
            graph.input.append(info)
            rest.append(value)
    return model, tuple(rest)
