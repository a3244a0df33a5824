"""Which operators of PyTorch are taken apart before import, and how."""

from typing import Any

import torch

_aten = torch.ops.aten

_KEPT = (
    _aten.batch_norm.default,
    _aten.layer_norm.default,
    _aten.linear.default,
    _aten.matmul.default,
)
"""Decomposed, they become many nodes (``linear`` a view, transpose, ``addmm``, view) that later passes would undo."""


def decompositions() -> Any:
    """The table for ``ExportedProgram.run_decompositions``."""
    table = torch.export.default_decompositions()
    for operator in _KEPT:
        table.pop(operator, None)
    table[_aten.scaled_dot_product_attention.default] = scaled_dot_product_attention
    return table


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention as the products and the softmax that it is, as the documentation of PyTorch states it."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = torch.matmul(query, key.transpose(-2, -1)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = torch.where(attn_mask, scores, torch.full((), -torch.inf, dtype=scores.dtype))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)
