"""The schedule of products of few bits: how the words of a weight lie, and how wide tiles are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np

from sparsec.ir.bit_planes import BitPlanes, build_bit_planes
from sparsec.ir.instruction import INSTRUCTIONS
from sparsec.ir.kernel import Load, Var, call
from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import loop_order
from sparsec.ir.low_bit import LowBitProduct, build_low_bit
from sparsec.ir.notation import parse_layout
from sparsec.schedules.rules.prices import extent
from sparsec.schedules.rules.product import DENSE_BIAS, widths
from sparsec.schedules.steps import Accumulate, Tensorize, Tile
from sparsec.schedules.trace import Scheduled, schedule_kernel
from sparsec.targets import Target

ROWS, VECTORS = (8, 6, 4, 3, 2, 1), (4, 2, 1)  # of a tile
MEET = 2  # operations that put two words together, and that add up how many bits are left
COUNTS = {"avx512vpopcntdq": 1, "avx2": 12, "neon": 3}
"""Operations that count the bits of words, by the first of these extensions that a target has."""
PER_FMA = 2  # operations on integers that start while a multiply-add does
BLOCK = 2.5  # cycles to find a stored block of words
OPEN = 12.0  # cycles to start and to finish the sums of a tile
PACK, READ = 0.65, 3.0  # cycles to take a bit of a vector of activations, and to read a vector of results again
SPARE = 3  # registers for what is on its way to the sums


def schedule_low_bit(op: LowBitProduct, target: Target) -> Scheduled:
    """Tile, lower and vectorise a product of bit planes, its one-bit steps by the target's instruction for them."""
    lanes = target.lanes("int32")
    tiling = Tile(widths(_columns(op), _vectors(op, target), lanes)).tiling(_columns(op), 1)
    steps = [Tensorize("update", name) for name in _instructions(op, target) if tiling.columns[0][2] >= lanes]
    moves: list[Tensorize | Accumulate] = [*steps, Accumulate("init|update|finish", lanes)]
    return schedule_kernel(build_low_bit(op, tiling.columns), moves, target.emits)


def schedule_bit_planes(op: BitPlanes, target: Target) -> Scheduled:
    """Tile, lower and vectorise the packing of activations, whose tiles are vectors of bytes."""
    lanes = target.lanes("int32")
    columns = op.x.shape[2]
    tile = Tile(widths(columns, target.lanes("int8") // lanes, lanes))
    moves = [Accumulate("init", target.lanes("int16")), Accumulate("finish", lanes)]
    moves += [Accumulate("update", lanes)] if op.total is not None else []
    return schedule_kernel(build_bit_planes(op, tile.tiling(columns, 1).columns), moves)


def lay_out_words(op: LowBitProduct, words: np.ndarray, target: Target) -> Layout:
    """Return the layout in which words meet activations soonest.

    Parameters
    ----------
    op : whose weight may have any layout
    words : int32 [rows, words · bits]
    """
    prices = {layout: _cycles(op.stored_as(layout), words, target) for layout in _layouts(op, target)}
    return min(prices, key=lambda layout: prices[layout] * (DENSE_BIAS if layout.is_dense else 1))


def low_bit_seconds(op: LowBitProduct, words: np.ndarray, target: Target) -> float:
    """Return what a product takes on one core, with packing its activations and reading its results once more.

    An epilogue of a product of bytes works on sums in registers; what follows this product reads them from memory.
    """
    columns, batch = extent(_columns(op)), extent(op.y.shape[0])
    lanes = target.lanes("int32")
    packed, results = op.depth * op.encoding.bits, len(words)
    around = batch * columns / lanes * (packed * PACK + results * READ)
    return (_cycles(op, words, target) + around) / (target.ghz * 1e9)


def _layouts(op: LowBitProduct, target: Target) -> Iterator[Layout]:
    """Yield layouts whose tiles of rows fit registers."""
    bits = op.weight_encoding.bits
    planes = f", k mod {bits} : dense" if bits > 1 else ""
    word = f"k floordiv {bits}" if bits > 1 else "k"
    for kind in ("dense",) if op.differs else ("dense", "compressed"):
        for rows in (rows for rows in ROWS if rows == 1 or _fits(op, rows, 1, target)):
            outer, inner = (f"i floordiv {rows}", f", i mod {rows} : dense") if rows > 1 else ("i", "")
            yield parse_layout(f"(i, k) -> ({outer} : dense, {word} : {kind}{inner}{planes})")


def _cycles(op: LowBitProduct, words: np.ndarray, target: Target) -> float:
    """Return the cycles of one core: arithmetic against loads, blocks that are found, tiles that are opened."""
    rows, bits, vectors = _tile_rows(op), op.weight_encoding.bits, _vectors(op, target)
    padded = np.pad(words, ((0, -len(words) % rows), (0, 0)))
    blocks = (padded.reshape(-1, rows, words.shape[1] // bits, bits) != 0).sum(axis=(1, 3)) != 0
    stored = blocks.size if op.layout.is_dense else int(blocks.sum())
    columns, batch = extent(_columns(op)), extent(op.y.shape[0])
    steps = rows * bits * vectors * op.encoding.bits
    found = rows * bits + vectors * op.encoding.bits  # words of a block, and vectors of words that they meet
    busy = max(steps * _operations(target) / (PER_FMA * target.fma_per_cycle), found / target.loads_per_cycle)
    block = busy + (0 if op.layout.is_dense else BLOCK)
    panels = batch * -(-columns // (vectors * target.lanes("int32")))
    return panels * (stored * block + len(blocks) * OPEN)


def _instructions(op: LowBitProduct, target: Target) -> Iterator[str]:
    """Yield the instruction of a target that meets words and adds up their bits, if there is one and bits to add."""
    a, b = (Load(name, (Var("i"),)) for name in ("a", "b"))
    step = call("popcount", a ^ b if op.differs else a & b)
    if op.differs or any(p * q > 0 for p, q in product(op.weight_encoding.weights, op.encoding.weights)):
        for found in INSTRUCTIONS.values():
            if found.statement.value == step and found.bits == target.vector_bits and found.runs_on(target.isa):
                yield found.name


def _operations(target: Target) -> int:
    """Return the operations of a one-bit step."""
    return MEET + next((count for name, count in COUNTS.items() if target.has(name)), max(COUNTS.values()))


def _vectors(op: LowBitProduct, target: Target) -> int:
    """Return how many vectors of columns a tile has."""
    return next((vectors for vectors in VECTORS if _fits(op, _tile_rows(op), vectors, target)), 1)


def _fits(op: LowBitProduct, rows: int, vectors: int, target: Target) -> bool:
    """Say whether the sums of a tile, and the words that meet, fit in registers."""
    sums, words = len(op.counts) * rows * vectors, op.encoding.bits * vectors + op.weight_encoding.bits * rows
    return sums + words + SPARE <= target.vector_registers


def _tile_rows(op: LowBitProduct) -> int:
    sizes = op.layout.sizes(op.shape)
    return prod(sizes[level] for level in loop_order(op.layout, op.shape).lanes)


def _columns(op: LowBitProduct) -> int | str:
    return op.y.shape[2]
