"""Attention over a constant mask, as nodes that compute what the mask keeps and nothing else."""

from __future__ import annotations

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.simplify import add_zeros, permute
from sparsec.ir.layout import Layout
from sparsec.ir.sddmm import vector_axis


def sampled_product(
    graph: Graph,
    a: Value,
    b: Value,
    mask: Value,
    layout: Layout,
    *,
    scale: float = 1.0,
    elsewhere: float = 0.0,
    before: Node | None = None,
) -> Value:
    """Add the product of ``a`` [.., i, k] and ``b`` [.., j, k] at the entries of a mask, in the order of a layout.

    Parameters
    ----------
    elsewhere : what stands where the layout stores an element that is no entry
    """
    assert mask.data is not None
    axis = vector_axis(layout, mask.data.shape)
    swap = (*range(a.rank - 2), a.rank - 1, a.rank - 2)
    a = permute(graph, a, swap, before) if axis == "i" else a
    b = permute(graph, b, swap, before) if axis == "j" else b
    attrs = {
        "layout": str(layout),
        "a_transposed": axis == "i",
        "b_transposed": axis != "j",
        "scale": scale,
        "elsewhere": elsewhere,
    }
    stored = len(layout.pack(mask.data).arrays["data"])
    return graph.add("sddmm", [a, b, mask], (*a.shape[:-2], stored), attrs, before=before)


def masked_attention(
    graph: Graph,
    query: Value,
    key: Value,
    value: Value,
    mask: np.ndarray,
    layout: Layout,
    *,
    scale: float,
    empty: float,
    blocks: tuple[int, int] = (1, 1),
    before: Node | None = None,
) -> Value:
    """Add ``softmax(scale · query @ keyᵀ where mask) @ value`` for operands ``[.., rows or keys, size]``.

    Parameters
    ----------
    mask : bool [rows, keys]
    layout : of the mask
    empty : what a row of the result is that keeps no key
    blocks : what rows and keys are filled up to multiples of, with rows and keys that no entry meets
    """
    rows, keys = mask.shape
    if not mask.any():
        return graph.constant(np.full((*query.shape[:-1], value.shape[-1]), empty, query.dtype), "nothing")
    more_rows, more_keys = -rows % blocks[0], -keys % blocks[1]
    query = add_zeros(graph, query, query.rank - 2, more_rows, before)
    key, value = (add_zeros(graph, x, x.rank - 2, more_keys, before) for x in (key, value))
    pattern = graph.constant(np.pad(mask.astype(np.uint8), ((0, more_rows), (0, more_keys))), "mask")
    scores = sampled_product(graph, query, key, pattern, layout, scale=scale, elsewhere=-np.inf, before=before)
    per_row = (*query.shape[:-2], rows + more_rows)
    kinds = [(scores.shape, scores.dtype), (per_row, scores.dtype), (per_row, scores.dtype)]
    softmax = graph.add_node("masked_softmax", [scores, pattern], kinds, {"layout": str(layout)}, before=before)
    weights, _, total = softmax.outputs
    attrs = {"layout": str(layout), "empty": empty}
    mixed = graph.add(
        "masked_product", [weights, value, total, pattern], (*per_row, value.shape[-1]), attrs, before=before
    )
    if not more_rows:
        return mixed
    ends = {"axes": (mixed.rank - 2,), "begin": (0,), "end": (rows,), "strides": (1,), "assume_inbound": False}
    return graph.add("strided_slice", [mixed], (*mixed.shape[:-2], rows, mixed.shape[-1]), ends, before=before)
