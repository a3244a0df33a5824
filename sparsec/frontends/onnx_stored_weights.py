"""Weights that an ONNX model stores as integers in ways that TVM's importer does not read: blocks of them, and 4 bits.

Integers of 4 bits become such of 8, so that products with quantised activations find them. Blocks become constants of
the numbers that they stand for. How many share a scale is kept, so that the compiler finds the integers again in layers
that it can store so; see `sparsec.graph.find_integers`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sparsec.errors import ModelError, UnsupportedError

_WIDER = {onnx.TensorProto.INT4: np.int8, onnx.TensorProto.UINT4: np.uint8}
"""What holds the integers of 4 bits of a type."""


def expand_stored_weights(model: onnx.ModelProto) -> frozenset[int]:
    """Replace constant weights in blocks by floats, in place, ``MatMulNBits`` by ``MatMul``, and 4 bits by 8.

    Returns
    -------
    How many consecutive weights share a scale, for each kind of weight that became floats.

    Raises
    ------
    UnsupportedError, ModelError : naming the node that cannot be read
    """
    if not any(_is_stored(node) for node in model.graph.node):
        return frozenset()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer} | _constants(model.graph)
    groups: set[int] = set()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if not _is_stored(node):
            nodes.append(node)
        elif node.op_type == "MatMulNBits":
            groups.add(_attribute(node, "block_size", 0))
            nodes += _matmul(node, tensors, model.graph)
        elif (weight := _dequantized(node, tensors)) is not None:
            groups.add(_attribute(node, "block_size", 0))
            model.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        else:
            nodes.append(_widened(node, tensors, model.graph))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unread(model.graph)
    return frozenset(groups)


def _is_stored(node: onnx.NodeProto) -> bool:
    if node.op_type == "MatMulNBits":
        return node.domain == "com.microsoft"
    return node.op_type == "DequantizeLinear"


def _dequantized(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> np.ndarray | None:
    """The floats of a constant in blocks; None for what is in none, or no constant.

    ``(q − zero) · scale``, with a scale for each block of an axis (ONNX operators, "DequantizeLinear").
    """
    stored, block = tensors.get(node.input[0]), _attribute(node, "block_size", 0)
    scale_tensor = tensors.get(node.input[1])
    if stored is None or scale_tensor is None or not block:
        return None
    integers, scale = (numpy_helper.to_array(tensor) for tensor in (stored, scale_tensor))
    zero = np.zeros_like(scale, np.float32)
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in tensors:
            return None
        zero = numpy_helper.to_array(tensors[node.input[2]]).astype(np.float32)
    axis = _attribute(node, "axis", 1)
    try:
        scales, zeros = (_repeated(each, integers.shape, axis, block) for each in (scale.astype(np.float32), zero))
        return ((integers.astype(np.float32) - zeros) * scales).astype(scale.dtype)
    except (ValueError, IndexError) as err:
        raise ModelError(
            f"node {node.name or node.output[0]!r}: scales of shape {scale.shape} do not fit integers of shape "
            f"{integers.shape} with axis {axis} and block_size {block}"
        ) from err


def _repeated(values: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Scales or zeros of the blocks of an axis, one for each integer."""
    return np.repeat(values, block, axis=axis)[tuple(slice(0, extent) for extent in shape)].reshape(shape)


def _widened(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto], graph: onnx.GraphProto) -> onnx.NodeProto:
    """The node with constants of 8 bits in the place of those of 4."""
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    for place, name in enumerate(node.input):
        tensor = tensors.get(name)
        if tensor is not None and tensor.data_type in _WIDER:
            wide.input[place] = f"{name}::{node.output[0]}"
            integers = numpy_helper.to_array(tensor).astype(_WIDER[tensor.data_type])
            graph.initializer.append(numpy_helper.from_array(integers, wide.input[place]))
    return wide


def _matmul(
    node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """``A · dequantized(B)ᵀ + bias``, B ``[N, blocks, bytes]`` (ONNX Runtime contrib operators, "MatMulNBits")."""
    a, *names = [*node.input, "", "", "", "", ""][:6]
    weight = _matmul_weight(node, names[:4], tensors)
    y, bias = node.output[0], names[4]
    constant = f"{y}::weight"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), constant))
    product = helper.make_node("MatMul", [a, constant], [f"{y}::product" if bias else y], name=node.name)
    added = [helper.make_node("Add", [f"{y}::product", bias], [y], name=node.name)] if bias else []
    return [product, *added]


def _matmul_weight(node: onnx.NodeProto, names: list[str], tensors: Mapping[str, onnx.TensorProto]) -> np.ndarray:
    """The floats ``[N, K]`` of a ``MatMulNBits``."""
    label = f"node {node.name or node.output[0]!r}: operator com.microsoft.MatMulNBits"
    if not all(name in tensors for name in names if name):
        raise UnsupportedError(f"{label} is supported with constant weights and scales only")
    rows, depth = _attribute(node, "N", 0), _attribute(node, "K", 0)
    bits, size = _attribute(node, "bits", 4), _attribute(node, "block_size", 0)
    blocks = -(-depth // size) if size else 0
    if bits not in (2, 4, 8):
        raise UnsupportedError(f"{label} with weights of {bits} bits is not supported, but of 2, 4 and 8")
    packed, scales, zeros, order = (numpy_helper.to_array(tensors[name]) if name else None for name in names)
    assert packed is not None and scales is not None
    try:
        integers = _unpacked(packed.reshape(rows, blocks, -1), bits).reshape(rows, -1)[:, :depth].astype(np.float32)
        zero = np.full((rows, blocks), 1 << (bits - 1), np.float32)
        if zeros is not None:
            found = _unpacked(zeros.reshape(rows, -1), bits) if zeros.dtype == np.uint8 else zeros
            zero = found.reshape(rows, -1)[:, :blocks].astype(np.float32)
        block = np.arange(depth) // size if order is None else order.reshape(-1)[:depth]
        scale = scales.reshape(rows, blocks).astype(np.float32)
        return ((integers - zero[:, block]) * scale[:, block]).astype(scales.dtype)
    except (ValueError, IndexError, ZeroDivisionError) as err:
        raise ModelError(
            f"{label}: weights of shape {packed.shape} and scales {scales.shape} do not fit N {rows}, K {depth}, "
            f"block_size {size}"
        ) from err


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Integers without sign that are packed along the last axis, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[..., None] >> shifts) & ((1 << bits) - 1)).reshape(*packed.shape[:-1], -1)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {
        node.output[0]: attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the integers, which nothing reads any more, and what the importer could not read."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read or tensor.data_type not in _WIDER]
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in read]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
