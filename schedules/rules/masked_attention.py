"""Attention over a constant pattern: which layout the pattern takes, and the schedules of the kernels.

A layout is priced by the blocks of r rows and c columns that it stores. The rows of a block are the lanes of vectors:
scores of c columns are in registers at once, the softmax runs down the columns, and a block meets one vector of V at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from sparsec.ir.layout import Layout
from sparsec.ir.masked_softmax import MaskedSoftmax, build_masked_softmax
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import Product
from sparsec.ir.types import sums
from sparsec.schedules.rules.product import column_widths
from sparsec.schedules.steps import Accumulate, Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Scheduled, Trace, schedule_kernel
from sparsec.targets import Target

COLUMNS = (1, 2, 4, 8, 16)
"""How many columns a stored block may have."""

LATENCY = 4  # cycles of a multiply-add, of which two may start in each
EXP = 14  # cycles of the softmax of a vector
OPEN = 12  # cycles to open a block: its index, its sums


@dataclass(frozen=True)
class AttentionPrice:
    """What attention over a pattern costs in a layout, in cycles for one head.

    Parameters
    ----------
    layout : of the pattern
    rows, columns : of its blocks
    """

    layout: Layout
    rows: int
    columns: int
    cycles: float


def price_attention(mask: np.ndarray, size: int, target: Target) -> list[AttentionPrice]:
    """Price the layouts that a pattern may take, the cheapest first.

    Parameters
    ----------
    mask : bool [rows, columns]
    size : of a head
    """
    return sorted(
        (_price(mask, columns, size, target) for columns in COLUMNS if columns <= mask.shape[1]),
        key=lambda price: price.cycles,
    )


def price_dense(shape: tuple[int, int], size: int, target: Target) -> float:
    """Price attention without a pattern, in cycles for one head."""
    lanes = target.lanes("float32")
    rows, columns = shape
    vectors = ceil(rows / lanes) * columns
    return vectors * (2 * size / target.fma_per_cycle + EXP)


def blocks_of_rows(rows: int, columns: int) -> Layout:
    """Return blocks of a pattern with their rows innermost."""
    width = f" floordiv {columns} : compressed, k mod {columns} : dense" if columns > 1 else " : compressed"
    return parse_layout(f"(i, k) -> (i floordiv {rows} : dense, k{width}, i mod {rows} : dense)")


def _price(mask: np.ndarray, columns: int, size: int, target: Target) -> AttentionPrice:
    rows = target.lanes("float32")
    padded = np.pad(mask, [(0, -extent % block) for extent, block in zip(mask.shape, (rows, columns), strict=True)])
    tiles = padded.reshape(len(padded) // rows, rows, -1, columns)
    stored = int(np.count_nonzero(tiles.any(axis=(1, 3))))
    scores = size * max(LATENCY, columns / target.fma_per_cycle)
    mixed = columns * size / target.fma_per_cycle
    return AttentionPrice(
        blocks_of_rows(rows, columns), rows, columns, stored * (scores + mixed + columns * EXP + OPEN)
    )


def schedule_softmax(op: MaskedSoftmax, target: Target) -> Scheduled:
    """Lower a softmax over stored elements, its rows in the lanes of vectors where the layout has them so."""
    lanes = target.lanes(sums(op.scores.dtype))
    return schedule_kernel(build_masked_softmax(op), [Accumulate("init|update|finish", lanes)])


def schedule_mix(op: Product, target: Target) -> Scheduled:
    """Lower a product with a weight that is made at run time: a vector of columns, more where rows are few."""
    lanes = target.lanes(op.sums)
    assert op.weight.layout is not None
    sizes = op.weight.layout.sizes(op.weight.extents)
    vectors = 1 if sizes[-1] > 4 else 4
    moves = (Vectorize("init", lanes), Tensorize("update", f"fma.{lanes}"), Vectorize("finish", lanes))
    return Trace((Tile(column_widths(op, vectors, target), rows_first=True), *moves)).apply(op, target.emits)
