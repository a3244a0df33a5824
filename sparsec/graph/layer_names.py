"""The layers with weights that a graph has, by name, to tell which of the model's are gone at the end."""

from __future__ import annotations

from sparsec.graph.graph import Graph

WEIGHTS = {"conv2d": 1, "conv_padded": 1, "linear": 1, "linear_cols": 1, "low_bit_product": 1}
"""Layers, before and after layouts are planned, and which of their inputs is the weight."""


def layer_names(graph: Graph) -> list[str]:
    """Return the names of linear layers and convolutions with a constant weight, each once, in the graph's order."""
    layers = (node for node in graph.nodes if node.op in WEIGHTS and node.inputs[WEIGHTS[node.op]].is_constant)
    return list(dict.fromkeys(node.where for node in layers if node.where))
