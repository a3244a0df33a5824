"""The schedule of a product: which layout its weight takes, and how rows, depth and columns are tiled.

Every candidate is priced in cycles of one core by a model of the inner loop; the cheapest wins, dense among them, so a
compiled layer is never meant to be slower than its dense self. The constants are fits to measurements of the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from sparsec.ir.gather import evaluate
from sparsec.ir.kernel import Const, Coordinate, substitute
from sparsec.ir.layout import Layout
from sparsec.ir.named import dense_blocks, depth_blocked
from sparsec.ir.product import Product
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target

BUSY = 1.28  # measured cycles for each cycle of the sum of all that follows, in sparse layouts
STEP = 0.64  # cycles that a nonzero block costs beside its loads and multiply-adds
DENSE_STEP = 0.3  # the same where the depth is a counted loop that LLVM unrolls
STORE = 1.6  # cycles to open and store a vector of sums of a dense tile
MISS = 0.44  # cycles for each vector of X that comes from L2
SUMS = 3.7  # cycles for each vector of sums that a part of the depth opens, brings from Y and leaves there
OPEN = 2.0  # cycles to open a tile in a sparse layout
COPY = 1.6  # cycles to copy a vector of X
L1_REUSE = 1.5  # of X where it lies: the more a row is read, the longer it stays
LINE = 64  # bytes
SETS = 64  # of L1, on nearly every processor: more bytes are more ways
ASSUMED_COLUMNS = 128  # for a symbolic number of columns
IDLE = 0.2  # of the time of an idle core
MANY = 4  # panels for a core that are enough to split work by columns
DENSE_BIAS = 0.95  # a sparse layout must be cheaper than dense by this factor


@dataclass(frozen=True)
class Choice:
    """A priced candidate.

    Parameters
    ----------
    family : the name of the kind of layout that it belongs to, such as ``CSR``
    layout : of the weight; None for an activation
    tile : rows and columns of a tile
    cycles : of one core, for the whole product
    """

    family: str
    layout: Layout | None
    tile: Tile
    cycles: float


@dataclass(frozen=True)
class Proposal:
    """The product with its weight's layout, its trace, and what the model predicts of it and of the dense layout."""

    product: Product
    trace: Trace
    seconds: float
    dense_seconds: float


def propose(product: Product, matrix: np.ndarray | None, target: Target) -> Proposal:
    """Choose layout and tiles by the model.

    Parameters
    ----------
    product : whose weight has no layout yet
    matrix : float32 [rows, depth], the constant weight; None where the weight is an activation
    target : whose caches and vector units the model prices for
    """
    dense = min(_dense(product, matrix is not None, target), key=_cycles)
    if matrix is None:
        return _proposal(product, dense, dense, target)
    sparse = min(_sparse(product, matrix, target), key=_cycles)
    return _proposal(product, sparse if sparse.cycles < DENSE_BIAS * dense.cycles else dense, dense, target)


def cheapest(product: Product, matrix: np.ndarray, target: Target) -> dict[str, Proposal]:
    """Return the cheapest candidate of each family of layouts that can hold the weight, by the family's name."""
    choices = sorted([*_dense(product, True, target), *_sparse(product, matrix, target)], key=_cycles)
    best: dict[str, Choice] = {}
    for choice in choices:
        best.setdefault(choice.family, choice)
    return {name: _proposal(product, choice, best["dense"], target) for name, choice in best.items()}


def candidates(product: Product, matrix: np.ndarray, target: Target, count: int = 6) -> list[Proposal]:
    """Return what is worth measuring, the most promising first: the cheapest dense tiles and sparse layouts."""
    dense = _distinct(_dense(product, True, target))
    sparse = _distinct(_sparse(product, matrix, target))
    chosen = sorted([*dense[: count // 3], *sparse[: count - count // 3]], key=_cycles)
    return [_proposal(product, choice, dense[0], target) for choice in chosen]


def _distinct(choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices, the cheapest first, without those that come to the same tiles."""
    return list({(choice.layout, choice.tile): choice for choice in sorted(choices, key=_cycles)}.values())


def _cycles(choice: Choice) -> float:
    return choice.cycles


def _proposal(product: Product, choice: Choice, dense: Choice, target: Target) -> Proposal:
    lanes = target.lanes(product.y.dtype)
    moves = (Vectorize("init", lanes), Tensorize("update", "fma", lanes), Vectorize("finish", lanes))
    laid_out = replace(product, weight=replace(product.weight, layout=choice.layout))
    hertz = target.ghz * 1e9
    return Proposal(laid_out, Trace((choice.tile, *moves)), choice.cycles / hertz, dense.cycles / hertz)


# -- candidates ------------------------------------------------------------------------------------------------------


def _dense(product: Product, constant: bool, target: Target) -> Iterator[Choice]:
    """Yield register tiles of r × v vectors; all sums, one vector of X and a broadcast weight are in registers."""
    rows = product.rows if isinstance(product.rows, int) else ASSUMED_COLUMNS
    depth = product.depth if isinstance(product.depth, int) else ASSUMED_COLUMNS
    for r in range(1, 17):
        for v in range(1, 9):
            if r > rows or r * v + v + 1 > target.vector_registers:
                continue
            columns = _columns(product, v, target)
            cycles = 0.0
            for count, vectors in _tiles(product, columns, target):
                loads = vectors * (2 - 1 / product.taps)
                step = _step(r, vectors, loads, DENSE_STEP, target)
                cycles += count * -(-rows // r) * (depth * step + STORE * r * vectors)
            layout = dense_blocks(r, product.taps) if constant else None
            if constant:
                tile = Tile(columns, rows_first=_rows_first(product, v * target.lanes("float32"), rows * depth, target))
            else:
                tile = Tile(columns, _with_one(r, product.rows))
            yield Choice("dense", layout, tile, cycles * _batch(product))


def _sparse(product: Product, matrix: np.ndarray, target: Target) -> Iterator[Choice]:
    """Yield sparse layouts: rows jammed in blocks of r, the depth cut into parts of which X stays in L1."""
    rows, depth = matrix.shape
    lanes = target.lanes(product.y.dtype)
    apart = _row_bytes(product)
    for r in (1, 2, 4, 8):
        if r > 1 and rows % r:
            continue
        blocks = count_blocks(matrix, r)
        for v in range(1, 9):
            if r * v + v + 1 > target.vector_registers:
                continue
            columns = _columns(product, v, target)
            for stage in (False, True):
                # A copied part is whole vectors of single depths; one that is not copied keeps the taps of a channel.
                together = 1 if stage else product.taps
                for parts in _parts(depth // together):
                    part = -(-(depth // together) // parts) * together
                    chunk = _chunk(product, v * lanes, r, parts, target)
                    cycles = 0.0
                    for count, vectors in _tiles(product, columns, target):
                        outside = _outside_l1(product, part, vectors, None if stage else apart, target)
                        loads = vectors * (1 if stage else 2 - 1 / product.taps)  # a shifted vector lies in two lines
                        step = _step(r, vectors, loads, STEP, target) + MISS * vectors * outside
                        rows_and_parts = parts * (rows / r) * (SUMS * r * vectors + OPEN)
                        copies = depth * loads * COPY * (-(-rows // chunk) if chunk else 1) if stage else 0.0
                        alone = BUSY * count * (blocks * step + rows_and_parts + copies)
                        cycles += alone * _idle(count * _batch(product) * (-(-rows // chunk) if chunk else 1), target)
                    if parts > 1 or not stage:
                        yield Choice(
                            f"{r}x1 blocks" if r > 1 else "CSR",
                            depth_blocked(part, r, chunk, parts),
                            Tile(columns, (), stage, _rows_first(product, v * lanes, blocks * r, target)),
                            cycles * _batch(product),
                        )


def _outside_l1(product: Product, part: int, vectors: float, apart: int | None, target: Target) -> float:
    """Return which share of the loads of X misses L1, its rows being so many bytes apart; None for copied rows.

    Rows of X that are a multiple of many lines apart meet in few of the cache's sets, unless they were copied together.
    """
    width = vectors * target.lanes(product.y.dtype) * 4
    if apart is None:
        return max(0.0, 1 - target.l1_bytes / (width * part))
    footprint = (width + product.span * 4) * (part // product.taps)
    starts = SETS // gcd(max(1, apart // LINE), SETS)  # rows that start in different sets
    used = min(SETS, starts * -(-width // LINE))
    return max(0.0, 1 - L1_REUSE * target.l1_bytes * used / SETS / footprint)


def _row_bytes(product: Product) -> int:
    """Return how far apart in X the rows of neighbouring channels are; as assumed where that is not constant."""
    extents = product.x.shape
    if not all(isinstance(extent, int) for extent in extents[1:]):
        return ASSUMED_COLUMNS * 4
    bindings = {"b": Const(0), "k": Coordinate("W", "k"), "m": Const(0)}
    place = np.zeros(2, np.int64)
    for index, extent in zip(product.x_index, extents, strict=True):
        depths = evaluate(substitute(index, bindings), {"W.k": np.array([0, product.taps])})
        place = place * (extent if isinstance(extent, int) else 1) + depths
    return int(place[1] - place[0]) * 4


def _step(r: int, v: float, loads: float, overhead: float, target: Target) -> float:
    """Return the cycles of one depth step of a tile: r·v multiply-adds, the loads of X and r of the weight."""
    return max(r * v / target.fma_per_cycle, (r + loads) / target.loads_per_cycle) + overhead


def _parts(channels: int) -> list[int]:
    """Return into how many parts the depth may be cut."""
    return [parts for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if parts == 1 or channels // parts >= 8]


def _chunk(product: Product, width: int, r: int, parts: int, target: Target) -> int:
    """Return how many rows are a task of their own; 0 for all of them.

    The sums of a chunk stay in L2 from one part of the depth to the next, and every core gets a task.
    """
    assert isinstance(product.rows, int)
    columns = product.columns if isinstance(product.columns, int) else ASSUMED_COLUMNS
    panels = max(1, columns // width) * _batch(product)
    wanted = target.cores if panels < MANY * target.cores else 1
    if parts > 1:
        large = -(-product.rows * width * 4 // (target.l2_bytes // 2))
        wanted = -(-large // wanted) * wanted
    rows = -(-product.rows // wanted)
    rows = max(2, -(-rows // r)) * r
    return 0 if rows >= product.rows else rows


def _idle(tasks: int, target: Target) -> float:
    """Return what a loop of so many tasks costs more for the cores that it leaves idle.

    It is a part of their time, since one core may be all that is asked for.
    """
    return 1 + IDLE * (-(-tasks // target.cores) * target.cores / tasks - 1)


def _rows_first(product: Product, width: int, nonzeros: int, target: Target) -> bool:
    """Whether to take all columns of some rows before the next rows.

    It keeps large weights in cache while X streams by. And where each core would get a few panels only, cores that
    share rows write lines next to each other's, which costs them more than the work that they share.
    """
    if not isinstance(product.columns, int) or not isinstance(product.depth, int):
        return False
    few = product.columns // width * _batch(product) < MANY * target.cores and target.cores > 1
    return few or nonzeros * 4 > max(target.l2_bytes, product.depth // product.taps * product.columns * 4)


# -- columns ---------------------------------------------------------------------------------------------------------


def _columns(product: Product, v: int, target: Target) -> tuple[int, ...]:
    """Return the widths of the tiles of columns: v vectors, then what is left of vectors, then of elements."""
    lanes = target.lanes(product.y.dtype)
    if isinstance(product.columns, str):
        widths = [width for width in (v * lanes, lanes, lanes // 4, 1) if width]
        power = 1 << (v.bit_length() - 1)  # each width must divide the one before it
        return tuple(dict.fromkeys([power * lanes, *widths[1:]]))
    widths, left = [], product.columns
    for width in (v * lanes, left % (v * lanes) // lanes * lanes, left % lanes):
        if width and left >= width:
            widths.append(width)
            left %= width
    return tuple(widths)


def _tiles(product: Product, columns: tuple[int, ...], target: Target) -> list[tuple[int, float]]:
    """Return (how many, vectors in each) of the tiles of columns; a part of a vector costs as much as a whole one."""
    lanes = target.lanes(product.y.dtype)
    left = product.columns if isinstance(product.columns, int) else ASSUMED_COLUMNS
    tiles = []
    for width in columns:
        tiles.append((left // width, -(-width // lanes)))
        left %= width
    return [tile for tile in tiles if tile[0]]


def _with_one(r: int, rows: int | str) -> tuple[int, ...]:
    if isinstance(rows, int):
        return (r, rows % r) if rows % r else (r,)
    return (1 << (r.bit_length() - 1), 1)


def _batch(product: Product) -> int:
    return product.batch if isinstance(product.batch, int) else 1


def count_blocks(matrix: np.ndarray, r: int) -> int:
    """Return how many r × 1 blocks of the matrix hold a nonzero."""
    if r == 1:
        return int(np.count_nonzero(matrix))
    return int(np.count_nonzero(matrix.reshape(-1, r, matrix.shape[1]).any(axis=1)))
