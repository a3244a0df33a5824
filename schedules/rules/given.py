"""The schedule of a product whose weight must take a layout that was given, or one of the kind that was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.emission import QUAD
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Bucketed, Dense
from sparsec.ir.loop_order import TILE_ROWS, loop_order
from sparsec.ir.product import Product
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.cuts import Panel
from sparsec.schedules.rules.fits import SLICES, of_entries, of_panels
from sparsec.schedules.rules.prices import Nest, Prices, extent
from sparsec.schedules.rules.product import VECTORS, Choice, Proposal, as_proposal, column_widths, contenders, propose
from sparsec.schedules.rules.refusals import GATHERED
from sparsec.schedules.rules.spelled import SpelledPrices, given_nests, spelled_widths
from sparsec.schedules.steps import Tile
from sparsec.targets import Target


def propose_given(product: Product, matrix: np.ndarray, layout: Layout | Sum, target: Target) -> Proposal:
    """Choose the tiles for a layout by the model, and of a layout that was given by name the member of its kind, too.

    Parameters
    ----------
    product : whose weight has no layout yet
    matrix : float32 [rows, depth], the constant weight
    layout : taken as it is where it has no name, or one that no kind of layouts has
    target : whose caches and vector units the model prices for

    Raises
    ------
    LayoutError : if the layout has not two dimensions, or cannot hold the weight without loss
    """
    if len(layout.dims) != 2:
        raise LayoutError(f"the layout {layout} has {len(layout.dims)} dimensions; a weight has two, outputs first")
    known = contenders(product, matrix, target, every=True) if layout.name else {}
    of_kind = [
        one for (one,) in known.values() if layout.name.casefold() in (one.name.casefold(), one.family.casefold())
    ]
    if of_kind:
        return min(of_kind, key=lambda proposal: proposal.seconds)
    if refusal := layout.refusal(matrix != 0):
        others = f"one of {'; '.join(sorted(known))}" if known else "another"
        what = layout.name or f"the layout {layout}"
        raise LayoutError(f"{what} cannot hold this weight: {refusal}; prune it so, or choose {others}")
    choice = min(_choices(product, matrix != 0, layout, target), key=lambda choice: choice.cycles)
    dense = propose(product, matrix, target, only_dense=True).dense_seconds
    found = as_proposal(product, choice, choice, target)
    return replace(found, product=product.stored_as(layout), dense_seconds=dense, name=layout.name or found.name)


def _choices(product: Product, mask: np.ndarray, layout: Layout | Sum, target: Target) -> Iterator[Choice]:
    """Yield every width of tiles, with the loops over the levels in either order."""
    terms = layout.terms if isinstance(layout, Sum) else (layout,)
    parts = layout.split(mask) if isinstance(layout, Sum) else [mask]
    prices, lanes = Prices(product, target), target.lanes(product.sums)
    if not isinstance(layout, Sum):
        spelled = SpelledPrices(product, target)
        for nest in given_nests(layout, mask, product, target):
            for vectors in VECTORS:
                if widths := spelled_widths(product, vectors * lanes, lanes):
                    tile = Tile(widths, stage=nest.stage, spelled=lanes)
                    yield Choice("given", nest, tile, spelled(nest, widths))
    for whole_rows in (False, True):
        width = min(extent(product.columns), TILE_ROWS)
        nests = [count_loops(term, part, target, whole_rows, width) for term, part in zip(terms, parts, strict=True)]
        for vectors in VECTORS:
            if all(Panel(product, vectors * lanes, target).holds(nest.rows) for nest in nests) or vectors == 1:
                widths = column_widths(product, vectors, target)
                cycles = sum(prices(nest, widths) for nest in nests)
                yield Choice("given", nests[0], Tile(widths, whole_rows=whole_rows), cycles)


def count_loops(
    layout: Layout, mask: np.ndarray, target: Target, whole_rows: bool = False, width: int = TILE_ROWS
) -> Nest:
    """Count the loops over any layout of a weight with these nonzeros, bool [rows, depth], for tiles of a width."""
    rows, depth = mask.shape
    sizes, packed = layout.sizes((rows, depth)), layout.pack(mask)
    order = loop_order(layout, (rows, depth), whole_rows, width, apart=True)
    lanes = prod(sizes[level] for level in order.lanes)
    sparse = max((n for n in order.outside if not isinstance(layout.levels[n][1], Dense | Bucketed)), default=-1)
    opens = packed.count(sparse + 1) * prod(sizes[n] for n in order.outside if n > sparse)
    part = max(1, depth // prod(sizes[n] for n in order.blocks))
    steps = packed.arrays["data"].size // lanes
    inner = of_panels(target) if layout.is_dense else of_entries(target, lanes, load=1 / QUAD if lanes == 1 else 1.0)
    gathers = bool(order.beside) and width < GATHERED
    return Nest("given", lambda: layout, lanes, steps, opens, part, SLICES if gathers else inner, gathers=gathers)
