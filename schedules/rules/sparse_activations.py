"""The schedule of a product that passes over zeros of its activations, and which layout its weight takes."""

from __future__ import annotations

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.named import CSC
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import Product
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.product import Proposal, column_widths, propose
from sparsec.schedules.steps import Accumulate, Tile
from sparsec.schedules.trace import Trace
from sparsec.targets import Target

ROWS = (2, 4, 8)  # of a dense block
VECTOR = 1.5  # cycles to add a product to a vector of sums, which are in cache
BLOCK = 1.5  # cycles to find a block
DEPTH = 8.0  # cycles to find out whether a vector of X is zero


def propose_skipping(product: Product, matrix: np.ndarray, layout: Layout | Sum | None, target: Target) -> Proposal:
    """Choose the layout, with the rows innermost, by what it costs if no vector of X is zero.

    Parameters
    ----------
    product : whose weight has no layout yet
    matrix : float32 [rows, depth], the constant weight
    layout : of the weight; None where it is free

    Raises
    ------
    LayoutError : if the layout cannot hold the weight without loss
    """
    if layout is not None and (refusal := layout.refusal(matrix != 0)):
        raise LayoutError(f"the layout {layout} cannot hold this weight: {refusal}; prune it so, or choose another")
    prices = _prices(matrix)
    chosen = layout or min(prices, key=lambda one: prices[one])
    moves = (Accumulate("init|update|finish", target.lanes(product.y.dtype)),)
    trace = Trace((Tile(column_widths(product, 1, target), skip_zeros=True), *moves))
    panels = -(-product.columns // target.lanes(product.y.dtype)) if isinstance(product.columns, int) else 8
    seconds = panels * prices.get(chosen, min(prices.values())) / (target.ghz * 1e9)
    dense = propose(product, matrix, target).dense_seconds
    return Proposal(product.stored_as(chosen), trace, seconds, dense, "sparse activations")


def _prices(matrix: np.ndarray) -> dict[Layout | Sum, float]:
    """Return the cycles of one vector of columns by layout."""
    mask = matrix != 0
    rows, depth = mask.shape
    prices: dict[Layout | Sum, float] = {
        CSC: depth * DEPTH + int(mask.sum()) * (VECTOR + BLOCK),
        parse_layout("(i, k) -> (k : dense, i : dense)"): depth * DEPTH + rows * depth * VECTOR,
    }
    for r in ROWS:
        blocks = int(np.pad(mask, ((0, -rows % r), (0, 0))).reshape(-1, r, depth).any(axis=1).sum())
        layout = parse_layout(f"(i, k) -> (k : dense, i floordiv {r} : compressed, i mod {r} : dense)")
        prices[layout] = depth * DEPTH + blocks * (r * VECTOR + BLOCK)
    return prices
