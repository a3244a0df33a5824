"""Reads an ONNX model whole, or says in one sentence why it cannot be read."""

import os
from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper

from sparsec.errors import ModelError

_PROTOBUF_LIMIT = 2**31 - 1


def read_onnx(path: str) -> onnx.ModelProto:
    """Read an ONNX file together with its external data.

    Raises
    ------
    ModelError
        The file is missing, is not ONNX, is truncated, or its external data cannot be found.
    """
    try:
        model = onnx.load_model(path, load_external_data=False)
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror}") from err
    except DecodeError as err:
        raise ModelError(f"{path} is not an ONNX file, or it is truncated: {_kind(path) or err}") from err
    for tensor in _tensors(model.graph):
        if external_data_helper.uses_external_data(tensor):
            _load_external(tensor, path)
    return check_onnx(model, path)


def _kind(path: str) -> str:
    """Say what a file is that is taken for a model now and then; "" for another one."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"\x7fELF":
        return "it is a shared library; sparsec run and sparsec inspect take what sparsec compiled"
    archive = "it is an archive, as PyTorch writes them; load the module in Python and give it to sparsec.compile"
    return archive if start == b"PK\x03\x04" else ""


def _load_external(tensor: onnx.TensorProto, path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    location = external_data_helper.ExternalDataInfo(tensor).location
    try:
        external_data_helper.load_external_data_for_tensor(tensor, folder)
    except (OSError, ValueError, onnx.checker.ValidationError) as err:
        raise ModelError(
            f"{path} keeps the weight {tensor.name!r} in {location!r}, which cannot be read from {folder}; "
            "copy that file beside the model"
        ) from err
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def check_onnx(model: onnx.ModelProto, path: str = "the model") -> onnx.ModelProto:
    """Check that a protobuf holds a whole model."""
    if not isinstance(model, onnx.ModelProto):
        raise ModelError(f"expected an onnx.ModelProto, got {type(model).__name__}")
    if not (model.graph.output and model.ir_version and model.opset_import):
        missing = "outputs" if not model.graph.output else "IR version" if not model.ir_version else "operator set"
        raise ModelError(f"{path} is not an ONNX file, or it is truncated: it states no {missing}")
    if model.ByteSize() > _PROTOBUF_LIMIT:
        raise ModelError(
            f"{path} holds {model.ByteSize() / 2**30:.1f} GiB; models are read up to the 2 GiB of one protobuf"
        )
    _check_names(model.graph, set())
    for tensor in _tensors(model.graph):
        if external_data_helper.uses_external_data(tensor):
            raise ModelError(
                f"the weight {tensor.name!r} of {path} is in an external file that was not loaded; give the path of "
                "the model instead, or load it with onnx.load_model(..., load_external_data=True)"
            )
        _check_whole(tensor, path)
    return model


def _check_names(graph: onnx.GraphProto, outer: set[str]) -> None:
    """Every name is written once, and before it is read; `outer` are the names of the graphs around this one."""
    known = outer | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    writers: dict[str, str] = {}
    for node in graph.node:
        label = node.name or f"{node.op_type}({', '.join(filter(None, node.output))})"
        if unknown := next((name for name in node.input if name and name not in known), None):
            raise ModelError(f"node {label!r} reads {unknown!r}, which nothing before it writes")
        for subgraph in _subgraphs(node):
            _check_names(subgraph, known)
        for name in filter(None, node.output):
            if name in writers:
                raise ModelError(f"nodes {writers[name]!r} and {label!r} both write {name!r}; a name has one writer")
            writers[name] = label
            known.add(name)
    if unknown := next((value.name for value in graph.output if value.name not in known), None):
        raise ModelError(f"output {unknown!r} is written by no node")


def _check_whole(tensor: onnx.TensorProto, path: str) -> None:
    if tensor.data_type == onnx.TensorProto.STRING or not tensor.HasField("raw_data"):
        return
    try:
        numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as err:
        raise ModelError(
            f"the weight {tensor.name!r} of {path} has {len(tensor.raw_data)} bytes, which do not fill its shape "
            f"{tuple(tensor.dims)}; the file is truncated or damaged"
        ) from err


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in a graph: initializers, sparse ones, and attributes, subgraphs included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for subgraph in _subgraphs(node):
            yield from _tensors(subgraph)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node runs, as of a branch or a loop."""
    for attribute in node.attribute:
        yield from (attribute.g, *attribute.graphs)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph, those of its subgraphs included."""
    for node in graph.node:
        yield node
        for subgraph in _subgraphs(node):
            yield from _nodes(subgraph)


def import_operator_sets(model: onnx.ModelProto) -> None:
    """State, in place, the operator sets that nodes are of and the model forgot to import, without which ONNX infers
    no shapes; the standard one is the newest then, which is what ONNX Runtime takes.
    """
    stated = {"" if entry.domain == "ai.onnx" else entry.domain for entry in model.opset_import}
    used = {"" if node.domain == "ai.onnx" else node.domain for node in _nodes(model.graph)}
    for domain in sorted(used - stated):
        model.opset_import.add(domain=domain, version=1 if domain else onnx.defs.onnx_opset_version())


def densify(model: onnx.ModelProto) -> None:
    """Turn sparse initializers, and `Constant` nodes with a sparse value, into dense initializers, in place."""
    graph = model.graph
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_to_dense(sparse, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        if sparse_value := next((a.sparse_tensor for a in node.attribute if a.name == "sparse_value"), None):
            graph.initializer.append(_to_dense(sparse_value, node.output[0]))
            graph.node.remove(node)


def _to_dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """Indices are linear, or one row of coordinates per value (ONNX IR, "Sparse tensors")."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except (IndexError, ValueError) as err:
        raise ModelError(
            f"the sparse weight {name!r} of shape {tuple(sparse.dims)} has indices that do not fit it: {err}"
        ) from err
    return numpy_helper.from_array(dense, name)
