"""The weights of an ONNX model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sparsec.errors import PruningError, last_line
from sparsec.frontends.onnx_read import densify
from sparsec.pruning import flow, onnx_steps
from sparsec.pruning.norms import conv_squares, linear_squares
from sparsec.pruning.onnx_steps import attribute_of
from sparsec.pruning.patterns import Mask
from sparsec.pruning.weights import Weight

OPERATORS = ("Conv", "Gemm", "MatMul")
"""Operators whose constant operand of two axes or more is a weight."""

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

VIEWS = ("Identity", "Transpose", "Cast", "Reshape", "DequantizeLinear")
"""Operators through which a weight is looked for; it can be pruned behind the first two of them."""


class OnnxSource:
    """An ONNX model that is changed in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        densify(model)
        self.model = model
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._writers = {name: node for node in model.graph.node for name in node.output if name}
        for node in model.graph.node:
            if node.op_type == "Constant" and (value := attribute_of(node, "value")):
                self._tensors[node.output[0]] = value
        self._readers = _readers(model.graph)
        self._uses: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        found: dict[str, Weight] = {}
        for node in model.graph.node:
            if node.op_type in OPERATORS and node.domain in ("", "ai.onnx"):
                self._find(node, found)
        self.weights = tuple(found.values())

    # ---- finding weights

    def _find(self, node: onnx.NodeProto, found: dict[str, Weight]) -> None:
        """Add the weight of a node to those found, unless both its operands are computed."""
        for index in (1, 0) if node.op_type == "MatMul" else (1,):
            source = self._trace(node.input[index])
            if source is None:
                continue
            name, transposed, through = source
            shape = tuple(self._tensors[name].dims)
            if len(shape) < 2:
                continue
            if node.op_type == "Conv" and transposed:
                through = "Transpose"
            flipped = transposed != (index == 1 and not (node.op_type == "Gemm" and attribute_of(node, "transB", 0)))
            weight = Weight(
                name,
                node.name or f"{node.op_type}({node.output[0]})",
                node.op_type,
                shape,
                inputs_first=flipped and node.op_type != "Conv",
                groups=attribute_of(node, "group", 1) if node.op_type == "Conv" else 1,
                obstacle=self._obstacle(name, node, through),
            )
            if name not in found:
                found[name] = weight
            elif (found[name].inputs_first, found[name].groups) != (weight.inputs_first, weight.groups):
                obstacle = found[name].obstacle or f"is used another way by {weight.layer!r}"
                found[name] = replace(found[name], obstacle=obstacle)
            self._uses.setdefault(name, []).append((node, index))
            return

    def _trace(self, name: str) -> tuple[str, bool, str] | None:
        """The tensor behind a value: its name, whether it is transposed, and an operator that is in the way."""
        transposed, through = False, ""
        while name not in self._tensors:
            node = self._writers.get(name)
            if node is None or node.op_type not in VIEWS:
                return None
            if node.op_type == "Transpose" and attribute_of(node, "perm", [1, 0]) == [1, 0]:
                transposed = not transposed
            elif node.op_type != "Identity":
                through = node.op_type
            name = node.input[0]
        return name, transposed, through

    def _obstacle(self, name: str, node: onnx.NodeProto, through: str) -> str:
        tensor = self._tensors[name]
        if tensor.data_type not in FLOATS:
            kind = TensorProto.DataType.Name(tensor.data_type).lower()
            return f"holds {kind}, and only floating-point weights are pruned"
        if through:
            return f"reaches its layer through {through}"
        if node.op_type != "Conv" and len(tensor.dims) > 2:
            return f"is a stack of {int(np.prod(tensor.dims[:-2]))} matrices"
        if other := next((reader for reader in self._readers.get(name, ()) if reader.op_type not in _SEEN), None):
            return f"is also read by {other.op_type} {other.name or other.output[0]!r}"
        return ""

    # ---- reading and masking

    def read(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._tensors[name])

    def mask(self, name: str, mask: Mask) -> None:
        values = self.read(name)
        self._write(name, np.where(mask.reshape(values.shape), values, np.zeros((), values.dtype)))

    def _write(self, name: str, values: NDArray[Any]) -> None:
        tensor = self._tensors[name]
        changed = numpy_helper.from_array(np.ascontiguousarray(values), name)
        if changed.data_type != tensor.data_type:
            kind = TensorProto.DataType.Name(tensor.data_type).lower()
            raise PruningError(f"weight {name!r} is {kind}, which onnx {onnx.__version__} cannot write; update onnx")
        for field in ("float_data", "int32_data", "double_data"):
            tensor.ClearField(field)
        tensor.raw_data = changed.raw_data

    @contextmanager
    def hold(self, masks: Mapping[str, Mask]) -> Iterator[None]:
        try:
            yield
        finally:
            for name, mask in masks.items():
                self.mask(name, mask)

    # ---- following channels

    def last_layers(self) -> frozenset[str]:
        return onnx_steps.last_layers(self.model.graph, self._layers(), self._constant)

    def kill_channels(self, masks: Mapping[str, Mask]) -> dict[str, Mask]:
        steps = list(onnx_steps.steps_of(self.model.graph, self._layers(), self._constant))
        offsets = {name for step in steps for name in step.offsets}
        sizes = {name: self.read(name).size for name in offsets if self._is_alone(name)}
        return flow.kill_channels(steps, self.weights, masks, sizes)

    def _layers(self) -> onnx_steps.Uses:
        return {node.output[0]: (name, index) for name, uses in self._uses.items() for node, index in uses}

    def _constant(self, name: str) -> NDArray[Any] | None:
        found = self._trace(name)
        return None if found is None else self.read(found[0])

    def _is_alone(self, name: str) -> bool:
        """Whether a tensor may be changed without a change to what else reads it."""
        return name in self._tensors and len(self._readers.get(name, ())) == 1

    # ---- running the model

    def input_norms(self, inputs: Any, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        uses = [(weight, *use) for weight in weights for use in self._uses[weight.name]]
        wanted = {node.input[1 - index] for _, node, index in uses}
        squares: dict[str, Any] = {}
        for batch in [inputs] if isinstance(inputs, Mapping) else inputs:
            values = _run(self.model, batch, wanted)
            for weight, node, index in uses:
                found = _squares(values[node.input[1 - index]], weight, node, index)
                squares[weight.name] = squares.get(weight.name, 0.0) + found
        if not squares:
            raise PruningError("there are no calibration inputs; give at least one batch")
        return {name: np.sqrt(value) for name, value in squares.items()}


_SEEN = {*OPERATORS, "Identity", "Transpose"}


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each name, those of subgraphs too, through views of it as well."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                for name, nodes in _readers(subgraph).items():
                    readers.setdefault(name, []).extend([node] * len(nodes))
    for node in reversed(graph.node):  # what reads a view reads the value
        if node.op_type in ("Identity", "Transpose"):
            readers.setdefault(node.input[0], []).extend(readers.get(node.output[0], ()))
    return readers


def _squares(x: NDArray[Any], weight: Weight, node: onnx.NodeProto, index: int) -> NDArray[np.float64]:
    """Sums of squares of an activation at each input of a weight: [groups, 1, depth]."""
    if node.op_type != "Conv":
        transposed = index == 0 or bool(node.op_type == "Gemm" and attribute_of(node, "transA", 0))
        return linear_squares(x, -2 if transposed else -1)[None, None]
    kernel = weight.shape[2:]
    axes = len(kernel)
    strides = attribute_of(node, "strides", [1] * axes)
    dilations = attribute_of(node, "dilations", [1] * axes)
    pads = _pads(node, x.shape[2:], kernel, strides, dilations)
    return conv_squares(x, kernel, strides, pads, dilations).reshape(weight.groups, 1, -1)


def _pads(
    node: onnx.NodeProto, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis."""
    mode = attribute_of(node, "auto_pad", b"NOTSET").decode()
    if not mode.startswith("SAME"):
        pads = attribute_of(node, "pads", [0] * 2 * len(kernel))
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    pairs = []
    for extent, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-extent // stride) - 1) * stride + (k - 1) * dilation + 1 - extent)
        low, high = total // 2, total - total // 2
        pairs.append((low, high) if mode == "SAME_UPPER" else (high, low))
    return pairs


def _run(model: onnx.ModelProto, inputs: Mapping[str, Any], wanted: set[str]) -> dict[str, NDArray[Any]]:
    """The wanted values of a model, by ONNX Runtime where it is installed, by onnx's reference evaluator otherwise."""
    stored = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in stored]
    if unknown := sorted({*inputs} - {*names}):
        raise PruningError(f"the model has no input {unknown[0]!r} to calibrate with; it has {', '.join(names)}")
    if missing := [name for name in names if name not in inputs]:
        raise PruningError(f"there is nothing to calibrate the input {missing[0]!r} with")
    given = {name: np.asarray(inputs[name]) for name in names}
    inner = sorted(wanted - {*names})
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inner)
    try:
        values = _evaluate(probe, inner, given) if inner else []
    except Exception as error:  # both raise errors of many kinds for inputs that do not fit
        raise PruningError(f"the model does not run on the calibration inputs: {last_line(error)}") from error
    return given | dict(zip(inner, values, strict=True))


def _evaluate(model: onnx.ModelProto, wanted: list[str], inputs: dict[str, NDArray[Any]]) -> list[Any]:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(model).run(wanted, inputs))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(wanted, inputs))
