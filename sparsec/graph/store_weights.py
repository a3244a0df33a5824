"""Store the weights of products in half precision or as integers; arithmetic and activations keep their types."""

from __future__ import annotations

import numpy as np

from sparsec.errors import UnsupportedError
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.integer_weights import IntegerWeight, relative_error, round_to_integers
from sparsec.ir.types import HALVES

WEIGHTS = {"conv_padded": 1, "embedding_bag": 0, "linear_cols": 1}
"""Operators with weights, and which of their inputs is the weight."""

STORAGES = (*HALVES, "int8", "int4", "int4:32", "int4:64", "int4:128")
"""What weights can be stored as; behind the colon is how many weights of a row share a scale, else all of them do."""

WIDER = ("float32", "float64")
ERROR = "storage_error"
"""The attribute of a layer that says how far off its weight is, as `relative_error` counts."""


def store_weights(graph: Graph, storage: str) -> None:
    """Round the constant weights of a physical graph to `storage`, to nearest even.

    Each weight is off by at most 2⁻¹¹ of itself in float16, or 2⁻²⁵ where it is below 2⁻¹⁴, and by 2⁻⁸ of itself in
    bfloat16. As integers it is off by at most 1/254 (int8) or 1/14 (int4) of the largest weight that shares its scale.
    So a product is off by at most Σ of what each weight is off by times |X|, beside what its sums are off by.
    Embeddings stay what they are where storage is of integers.

    Parameters
    ----------
    storage : one of `STORAGES`

    Raises
    ------
    UnsupportedError : naming the layer with a weight that is finite and that `storage` cannot hold, or that integers
        cannot hold since it is not finite
    """
    dtype, _, group = storage.partition(":")
    for node in list(graph.nodes):
        place = WEIGHTS.get(node.op)
        if place is None or (dtype not in HALVES and node.op == "embedding_bag"):
            continue
        weight = node.inputs[place]
        if weight.data is None or weight.dtype not in WIDER:
            continue
        if dtype in HALVES:
            rounded = _rounded(weight.data, dtype, node)
            inputs = list(node.inputs)
            inputs[place] = graph.constant(rounded, weight.name)
            graph.set_inputs(node, inputs)
            node.attrs[ERROR] = relative_error(weight.data, rounded)
        else:
            _check_finite(weight.data, dtype, node)
            in_groups = node.attrs.get("groups", 1) == 1  # the rows of other convolutions start at any depth
            found = round_to_integers(weight.data, dtype, int(group or 0) if in_groups else 0)
            node.attrs[ERROR] = relative_error(weight.data, found.dense())
            replace_weight(graph, node, found)
    graph.remove_dead()


def replace_weight(graph: Graph, node: Node, weight: IntegerWeight) -> None:
    """Let a layer read integers, whose scales its result is multiplied by.

    Before:  `y = linear_cols(x, W)`
    After:   `y = multiply(linear_cols(x, integers), scales)`, or with scales for groups of depths
             `y = linear_cols(x, integers, scales, group=…)`
    """
    x, old = node.inputs[:2]
    inputs = [x, graph.constant(weight.integers, old.name)]
    attrs = dict(node.attrs)
    if weight.group:
        inputs.append(graph.constant(np.ascontiguousarray(weight.scales.T), f"{old.name}.scales"))
        attrs["group"] = weight.group
    result = graph.add(node.op, inputs, node.output.shape, attrs, dtype=node.output.dtype, before=node)
    if not weight.group:
        result = _multiplied(graph, result, weight.scales, node)
    graph.replace(node.output, result)


def _multiplied(graph: Graph, result: Value, scales: np.ndarray, node: Node) -> Value:
    """The scales in the epilogue, where they cost one multiplication for each result."""
    shape = [1] * result.rank
    shape[1 if "image" in node.attrs else -2] = len(scales)
    factors = graph.constant(scales.reshape(shape), f"{node.inputs[1].name}.scales")
    return graph.add("multiply", [result, factors], result.shape, dtype=result.dtype, before=node)


def _check_finite(weight: np.ndarray, dtype: str, node: Node) -> None:
    odd = weight[~np.isfinite(weight)]
    if odd.size:
        raise UnsupportedError(
            f"{node.where or node.op}: the weight {odd[0]} cannot be stored as {dtype}, which holds finite numbers; "
            "store the weights as bfloat16, or leave storage out"
        )


def _rounded(weight: np.ndarray, storage: str, node: Node) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded = weight.astype(storage)
    lost = np.isinf(rounded) & np.isfinite(weight)
    if lost.any():
        worst = np.abs(weight[lost]).max()
        raise UnsupportedError(
            f"{node.where or node.op}: the weight {worst:.6g} is too large for {storage}; "
            "store the weights as bfloat16, which has the range of float32"
        )
    return rounded
