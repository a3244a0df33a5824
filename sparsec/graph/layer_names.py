"""The layers with weights that a graph has, by name, to tell which of the model's are gone, and what of the others."""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.graph.graph import Graph, Node

WEIGHTS = {"conv2d": 1, "conv_padded": 1, "linear": 1, "linear_cols": 1, "low_bit_product": 1}
"""Layers, before and after layouts are planned, and which of their inputs is the weight."""


def layer_names(graph: Graph) -> list[str]:
    """Return the names of linear layers and convolutions with a constant weight, each once, in the graph's order."""
    return list(dict.fromkeys(node.where for node in _layers(graph)))


def channel_counts(graph: Graph) -> dict[str, list[tuple[int, int]]]:
    """Return how many outputs and inputs the layers of each name have, before layouts are planned."""
    counts: dict[str, list[tuple[int, int]]] = {}
    for node in _layers(graph):
        outputs, inputs, *_ = node.inputs[WEIGHTS[node.op]].shape
        counts.setdefault(node.where, []).append((int(outputs), int(inputs) * node.attrs.get("groups", 1)))
    return counts


def _layers(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        if node.where and node.op in WEIGHTS and node.inputs[WEIGHTS[node.op]].is_constant:
            yield node
