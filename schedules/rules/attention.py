"""The schedule of attention: the width of its panels, and the tiles of rows of its two products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsec.ir.attention import Attention, build_attention
from sparsec.ir.product import Product
from sparsec.schedules.fast_math import TOGETHER
from sparsec.schedules.rules.cuts import Panel
from sparsec.schedules.rules.prices import batch, tiles
from sparsec.schedules.rules.product import VECTORS, activations, column_widths
from sparsec.schedules.steps import Accumulate, Tensorize, Tile
from sparsec.schedules.trace import Scheduled, schedule_kernel
from sparsec.targets import Target

L2_SHARE = 0.5
"""Of L2 that the scores of a panel may take, beside the keys and the values that are read for each panel."""

SOFTMAX = 30.0
"""Operations for the softmax of a vector."""

SOFTMAX_ABREAST = 24.0
"""The same where so many vectors take their steps together that none waits."""


@dataclass(frozen=True)
class _Tiles:
    """A width of panels with the best tiles of rows for it, and the cycles that one core takes."""

    scores: Tile
    mix: Tile
    cycles: float


def has_schedule(op: Attention, target: Target) -> bool:
    """Whether there is a schedule: caches hold the scores of a panel, and queries fill vectors."""
    return any(True for _ in _tiles(op, target))


def schedule_attention(op: Attention, target: Target) -> Scheduled:
    """Lower attention of constant shape, for which there is a schedule."""
    best = min(_tiles(op, target), key=lambda tiles: tiles.cycles)
    tiling = best.scores.tiling(op.scores.columns, op.scores.rows)
    mixed = best.mix.tiling(op.mix.columns, op.mix.rows)
    lanes = target.lanes(op.scores.sums)
    moves = (Tensorize("update", f"fma.{lanes}"), Accumulate("init|update|finish", lanes))
    return schedule_kernel(build_attention(op, tiling, mixed.rows), moves, target.emits)


def _tiles(op: Attention, target: Target) -> Iterator[_Tiles]:
    lanes = target.lanes(op.scores.sums)
    for v in VECTORS:
        panel = Panel(op.scores, v * lanes, target)
        if panel.has_few_columns or not _fits(op.scores, column_widths(op.scores, v, target)[0], target):
            continue
        scores, mix = list(activations(op.scores, v, target)), list(activations(op.mix, v, target, kept=True))
        if scores and mix:
            first, second = (min(choices, key=lambda choice: choice.cycles) for choices in (scores, mix))
            softmax = _softmax_cycles(op.scores, first.tile.columns, target)
            yield _Tiles(first.tile, second.tile, first.cycles + softmax + second.cycles)


def _softmax_cycles(scores: Product, widths: tuple[int, ...], target: Target) -> float:
    """Return what the softmax takes between the products, its columns in tiles of these widths."""
    assert isinstance(scores.rows, int)
    row = sum(
        count * vectors * (SOFTMAX_ABREAST if vectors >= TOGETHER else SOFTMAX)
        for count, vectors in tiles(scores, widths, target)
    )
    return batch(scores) * scores.rows * row / target.fma_per_cycle


def _fits(scores: Product, width: int, target: Target) -> bool:
    """Whether L2 keeps the scores of a panel."""
    assert isinstance(scores.rows, int)
    return scores.rows * width * np.dtype(scores.sums).itemsize <= L2_SHARE * target.l2_bytes
