"""Prices of products whose instructions add up several products at once, in cycles of one core.

The constants are fits to measured kernels, as those of `sparsec.schedules.rules.prices`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sparsec.ir.interleaved import SEGMENT
from sparsec.ir.product import Product
from sparsec.ir.tiles import best_block
from sparsec.schedules.rules.prices import HIDES, L1_SHARE, Nest, batch, extent, idle_cores
from sparsec.targets import LINE, Target

if TYPE_CHECKING:
    from sparsec.schedules.rules.dots import Dot

SHUFFLE = 1.3  # cycles to interleave rows of X, for each vector that this gives
WIDEN = 2.8  # cycles instead, where what is in one segment is widened to a vector
ADDED = 1.25  # times as long, where another instruction adds to the sums
ADDED_APART = ("x86.vpmaddwd",)
STEP = 0.5  # cycles for each run of depths beside its loads and products
STORE = 0.6  # cycles to store a vector of interleaved X
TAP = 4.0  # cycles to find the rows of X of a run
NARROW = 6.0  # cycles to interleave a vector of columns by itself, and to store it
TURN = 3.0  # cycles to transpose a vector of sums
LATENCY = 4.5  # cycles until a sum can be added to again
TILE = 16.0  # cycles to multiply two tiles
TILE_MISS = 3.0  # cycles for a row of a tile of X, where those of the weight leave no room for it in L1
SPILL = 2.0  # cycles to store a row of a tile of sums, and to load it again
OPEN = 12.0  # cycles to open a tile
FINISH = 4.0  # cycles to put a vector of sums in order and store its results
FETCH = 1.2  # cycles to bring a line of weights to L1
STREAM = 0.05  # cycles for each vector of weights, or line of X, that comes from L2 in order
MISS = 0.35  # cycles for each vector of X that comes from L2


def dot_cycles(dot: Dot, nest: Nest, widths: tuple[int, ...], product: Product, target: Target) -> float:
    """Return the cycles of one core for the whole product."""
    total = 0.0
    for width, count in _tiles(widths, product):
        vectors = max(1, width // dot.columns)
        products = _each(dot) * (nest.rows // dot.rows) * vectors / target.fma_per_cycle
        shuffles = (WIDEN if dot.widens(product) and width <= SEGMENT else SHUFFLE) * vectors
        loads = (nest.rows + vectors) / target.loads_per_cycle
        beside = loads if nest.stage else shuffles + nest.rows / target.loads_per_cycle
        step = (products**HIDES + beside**HIDES) ** (1 / HIDES) + STEP
        if not nest.stage:
            step += MISS * vectors * _outside_l1(width, product, target)
        tap = TAP if product.taps > 1 else 0.0
        staged = nest.part / dot.depth * (shuffles + STORE * vectors + tap) if nest.stage else 0.0
        opens = nest.opens * (OPEN + FINISH * nest.rows * vectors) + _weights(dot, nest)
        tasks = count * batch(product) * nest.tasks
        total += count * batch(product) * idle_cores(tasks, target) * (nest.steps * step + staged + opens)
    return total


def row_cycles(dot: Dot, nest: Nest, width: int, pixels: int, product: Product, target: Target) -> float:
    """Return the cycles of one core for the whole product."""
    panels, places, whole = -(-extent(product.columns) // width), width, -(-width // dot.columns)
    if product.pixels:
        count, wide, pitch = product.pixels
        lines = count if panels == 1 else width // pitch if width % pitch == 0 else 1
        if product.valid is None and wide < pitch and lines > 1:
            places, whole = lines * wide, lines * -(-wide // dot.columns)
        elif panels == 1:
            places = min(width, (count - 1) * pitch + wide)
    vectors, runs = nest.rows // dot.columns, nest.part / dot.depth
    if places * nest.part * dot.itemsize > target.l2_bytes:
        return inf
    # Bytes of weights, and lines of X, by each tile of pixels.
    read = (nest.rows * dot.itemsize + LINE / dot.depth) * nest.part
    far = STREAM * (vectors + 1) * max(0.0, 1 - L1_SHARE * target.l1_bytes / read)
    step = 0.0
    for size, count in ((pixels, places // pixels), (places % pixels, 1)):
        if size:
            products = max(_each(dot) * size * vectors / target.fma_per_cycle, LATENCY)
            loads = (size + vectors) / target.loads_per_cycle
            step += count * ((products**HIDES + loads**HIDES) ** (1 / HIDES) + far + STEP)
    staged = runs * (whole * NARROW + (TAP if product.taps > 1 else 0))
    finish = whole * dot.columns * vectors * (TURN + FINISH)
    opens = nest.opens * (finish + OPEN * places / pixels) + _weights(dot, nest)
    tasks = panels * batch(product)
    return tasks * idle_cores(tasks, target) * (nest.steps * step + staged + opens)


def tile_cycles(dot: Dot, nest: Nest, widths: tuple[int, ...], product: Product, target: Target) -> float:
    """Return the cycles of one core for the whole product, whose sums registers of tiles hold."""
    assert dot.instruction.tiles is not None
    if widths[0] * nest.part * dot.itemsize > target.l2_bytes:
        return inf
    total = 0.0
    for width, count in _tiles(widths, product):
        rows, columns = nest.rows // dot.rows, width // dot.columns
        block = best_block(rows, columns, dot.instruction.tiles.registers)
        products, loads = TILE * rows * columns, dot.rows * block.loads(rows, columns) / target.loads_per_cycle
        step = (products**HIDES + loads**HIDES) ** (1 / HIDES) + STEP
        kept = L1_SHARE * target.l1_bytes / ((nest.rows + width) * nest.part * dot.itemsize)
        step += TILE_MISS * dot.rows * columns * max(0.0, 1 - kept)
        vectors, tap = max(1, width * dot.itemsize * dot.run // LINE), TAP if product.taps > 1 else 0.0
        staged = nest.part / dot.run * ((SHUFFLE + STORE) * vectors + tap)
        opens = nest.opens * (OPEN + (FINISH + SPILL) * nest.rows * columns) + _weights(dot, nest)
        tasks = count * batch(product) * nest.tasks
        total += count * batch(product) * idle_cores(tasks, target) * (nest.steps * step + staged + opens)
    return total


def _tiles(widths: tuple[int, ...], product: Product) -> Iterator[tuple[int, int]]:
    """Yield each width of tiles, and how many tiles have it; the last ones may overlap."""
    left = extent(product.columns)
    for width in widths:
        count, left = (left // width, left % width) if width != widths[-1] else (-(-left // width), 0)
        if count:
            yield width, count


def _each(dot: Dot) -> float:
    """Return how long an instruction takes, in times of a multiply-add of vectors."""
    return ADDED if dot.instruction.family in ADDED_APART else 1.0


def _weights(dot: Dot, nest: Nest) -> float:
    """Return the cycles to bring all weights to L1 once, for each panel."""
    return FETCH * nest.steps * nest.rows * dot.depth * dot.itemsize / LINE


def _outside_l1(width: int, product: Product, target: Target) -> float:
    """Return which share of the loads of X misses L1."""
    itemsize = np.dtype(product.x.dtype).itemsize
    footprint = (width + product.span) * itemsize * extent(product.depth) / product.taps
    return max(0.0, 1 - L1_SHARE * target.l1_bytes / footprint)
