"""The schedule of a product that passes over zeros of its activations, and which layout its weight takes."""

from __future__ import annotations

from math import prod

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.named import CSC
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import Product
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.prices import batch, extent
from sparsec.schedules.rules.product import Proposal, column_widths, propose
from sparsec.schedules.steps import Accumulate, Tile
from sparsec.schedules.trace import Trace
from sparsec.targets import Target

FAMILY = "sparse activations"
LAYOUTS = (
    CSC,
    parse_layout("(i, k) -> (k : dense, i : dense)"),
    *(parse_layout(f"(i, k) -> (k : dense, i floordiv {r} : compressed, i mod {r} : dense)") for r in (2, 4, 8)),
)
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
    mask = matrix != 0
    if layout is not None and (refusal := layout.refusal(mask)):
        raise LayoutError(f"the layout {layout} cannot hold this weight: {refusal}; prune it so, or choose another")
    chosen = layout or min(LAYOUTS, key=lambda one: _cycles(one, mask))
    lanes = target.lanes(product.sums)
    trace = Trace((Tile(column_widths(product, 1, target), skip_zeros=True), Accumulate("init|update|finish", lanes)))
    laid_out = product.stored_as(chosen)
    parts = laid_out.parts(mask)
    cycles = sum(_cycles(term.layout, parts[term.name]) for term in laid_out.terms if term.layout)
    seconds = batch(product) * -(-extent(product.columns) // lanes) * cycles / (target.ghz * 1e9)
    dense = propose(product, matrix, target).dense_seconds
    return Proposal(laid_out, trace, seconds, dense, FAMILY, FAMILY)


def _cycles(layout: Layout, mask: np.ndarray) -> float:
    """Return the cycles of one vector of columns: the dense levels at the end of a layout are what a block holds."""
    stored, block = layout.lengths(mask)["data"], prod(layout.sizes(mask.shape)[layout.leaf :])
    blocks = stored // block if layout.leaf else 0
    return mask.shape[1] * DEPTH + stored * VECTOR + blocks * BLOCK
