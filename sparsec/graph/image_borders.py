"""What stands around the pixels of padded images: zeros, or what means zero, where a filter reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import same_shape
from sparsec.ir.image import Image

WRITES_BORDERS = ("conv_padded", "max_pool", "winograd_input")
"""Operators whose kernels write what is to stand around their pixels."""

_ZERO_AT_ZERO = frozenset({
    "abs", "add", "astype", "concat", "maximum", "minimum", "multiply", "negative", "nn.gelu", "nn.gelu_tanh",
    "nn.leakyrelu", "nn.relu", "nn.silu", "round", "sqrt", "subtract", "tanh",
})  # fmt: skip


def mark_borders(graph: Graph) -> None:
    """Tell what writes borders, and is read by a filter through what keeps its form, what to write around pixels."""
    needed: dict[Value, int] = {}
    for node in reversed(graph.nodes):
        if _reads_borders(node):
            needed[node.inputs[0]] = node.attrs["blank"]
        if node.op in WRITES_BORDERS:
            node.attrs["borders"] = needed.get(node.output)
        elif (node.op in ELEMENTWISE or node.op == "concat") and node.output in needed:
            needed = dict.fromkeys(node.inputs, needed[node.output]) | needed


def _reads_borders(node: Node) -> bool:
    """Whether a filter of several taps reads an image in the form of its output."""
    if node.op != "conv_padded" or node.attrs["x_image"] != node.attrs["image"] or not node.attrs["image"].halo:
        return False
    return any(extent != 1 for extent in node.inputs[1].shape[2:])


def keep_borders(graph: Graph, masked: Mapping[Value, int | None]) -> bool:
    """Set what surrounds the pixels where a filter reads it and an elementwise operator may have changed it.

    Parameters
    ----------
    masked : the results of the kernels that write the borders themselves, convolutions with their epilogues among them,
        and what they write

    Returns
    -------
    Whether the graph was changed.
    """
    changed = False
    for node in list(graph.nodes):
        if not _reads_borders(node) or _stands_around(node.inputs[0], node.attrs["blank"], masked):
            continue
        x = node.inputs[0]
        image = node.attrs["x_image"]
        pixels = graph.constant(_mask_of(image), "pixels")
        blank = graph.constant(np.array(node.attrs["blank"], x.dtype), "blank")
        inside = graph.add("where", [pixels, x, blank], x.shape, dtype=x.dtype, before=node)
        graph.set_inputs(node, [inside, *node.inputs[1:]])
        changed = True
    return changed


def _mask_of(image: Image) -> np.ndarray:
    """Return where the pixels are, bool `[1, 1, plane]`."""
    mask = np.zeros((1, 1, image.plane), bool)
    rows = mask[..., image.origin : image.origin + image.height * image.pitch]
    rows.reshape(image.height, image.pitch)[:, : image.width] = True
    return mask


def _stands_around(value: Value, blank: int, masked: Mapping[Value, int | None]) -> bool:
    """Whether `blank` is what surrounds the pixels."""
    node = value.producer
    if value in masked:
        return masked[value] == blank
    if node is None:
        return False
    if node.op == "repack":
        return bool(node.attrs["blank"] == blank)
    if node.op == "where":
        return node.inputs[2].is_all(blank)
    if blank and node.op != "concat":
        return False
    images = [x for x in node.inputs if x.rank == 3 and same_shape(x.shape[2:], value.shape[2:])]
    zero = [_stands_around(image, blank, masked) for image in images]
    if node.op == "clip":
        return node.attrs["min"] <= 0 <= node.attrs["max"] and all(zero)
    if node.op == "multiply":
        return any(zero)
    if node.op == "divide":
        return zero[0] and images[0] is node.inputs[0] and len(images) == 1
    return node.op in _ZERO_AT_ZERO and len(images) == len(node.inputs) and all(zero)
