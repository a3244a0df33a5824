"""Store the weights of products in half precision; arithmetic and activations keep their types."""

from __future__ import annotations

import numpy as np

from sparsec.errors import UnsupportedError
from sparsec.graph.graph import Graph, Node

WEIGHTS = {"conv_padded": 1, "embedding_bag": 0, "linear_cols": 1}
"""Operators with weights, and which of their inputs is the weight."""


WIDER = ("float32", "float64")


def store_weights(graph: Graph, storage: str) -> None:
    """Round the constant weights of a physical graph to `storage`, to nearest even.

    Each weight is off by at most 2⁻¹¹ of itself in float16, or 2⁻²⁵ where it is below 2⁻¹⁴, and by 2⁻⁸ of itself in
    bfloat16. So a product is off by at most that share of Σ |W| |X|, beside what its sums are off by.

    Parameters
    ----------
    storage : {"float16", "bfloat16"}

    Raises
    ------
    UnsupportedError : naming the layer with a weight that is finite and that `storage` cannot hold
    """
    for node in graph.nodes:
        place = WEIGHTS.get(node.op)
        if place is None:
            continue
        weight = node.inputs[place]
        if weight.data is not None and weight.dtype in WIDER:
            inputs = list(node.inputs)
            inputs[place] = graph.constant(_rounded(weight.data, storage, node), weight.name)
            graph.set_inputs(node, inputs)


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
