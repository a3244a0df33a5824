"""The schedule of a sampled product: how much of a dense block a register tile holds, or vectors along the depth."""

from __future__ import annotations

from math import prod

from sparsec.ir.sddmm import SDDMM, SDDMMTiling, build_sddmm, vector_axis
from sparsec.ir.types import sums
from sparsec.schedules.steps import Accumulate
from sparsec.schedules.trace import Scheduled, schedule_kernel
from sparsec.targets import Target

DOT_VECTORS = 4
"""Vectors of partial sums of a dot product, so that multiply-adds need not wait for one another."""


def schedule_sddmm(op: SDDMM, target: Target) -> Scheduled:
    """Tile, lower and vectorise a sampled product for a target."""
    lanes = target.lanes(sums(op.y.dtype))
    tiling = tile_sddmm(op, target)
    return schedule_kernel(build_sddmm(op, tiling), [Accumulate("init|update|finish", lanes)])


def tile_sddmm(op: SDDMM, target: Target) -> SDDMMTiling:
    """Choose the most of a dense block that registers hold, or else whole vectors of the depth."""
    lanes = target.lanes(sums(op.y.dtype))
    sizes = op.layout.sizes(op.shape)
    levels = 0
    for count in range(1, len(sizes) - op.layout.leaf + 1):
        *outer, last = sizes[len(sizes) - count :]
        if prod(outer) * -(-last // lanes) > target.vector_registers // 2:
            break
        levels = count
    if levels and vector_axis(op.layout, op.shape) != "k":
        return SDDMMTiling(levels)
    return SDDMMTiling(0, _widths(op.depth, lanes))


def _widths(depth: int, lanes: int) -> tuple[int, ...]:
    """Cut a depth into several vectors, single ones, and what is left in powers of two."""
    widths = []
    width = DOT_VECTORS * lanes
    while depth:
        if width <= depth:
            widths.append(width)
            depth %= width
        width //= 2
    return tuple(widths)
