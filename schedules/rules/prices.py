"""Prices: what the loops of a product over a layout take, in cycles of one core.

One model for every layout: loads of X and of the weight against multiply-adds, misses of L1, sums that are opened and
left in memory, copies, idle cores. A layout comes in as a `Nest`, which counts how often its loops run; what an
iteration costs beside its arithmetic is its `Inner`. The constants are fits to measurements of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np

from sparsec.ir.gather import evaluate
from sparsec.ir.kernel import Const, Coordinate, Expr, substitute
from sparsec.ir.layout import Layout
from sparsec.ir.product import Product
from sparsec.ir.staged import stretches
from sparsec.ir.sums import Sum
from sparsec.ir.types import HALVES, is_float, stored_bits
from sparsec.targets import L1_SETS, LINE, PAGE, Target

CONVERT = 0.25  # cycles to convert a weight, or a vector of X, from half precision
DECODE = {"int8": 0.02, "int4": 0.08}  # cycles to decode a weight, many of them at once
DECODED_ROWS = 8  # fewer take as long, since they are a vector
DECODE_ONE = {"int8": 0.2, "int4": 0.8}  # cycles to decode a weight by itself
SCALE_ONE = 2.0  # cycles to find the scale of the group of a weight by itself
WAIT = 4  # cycles from one addition to the next one to the same sum
STREAM = 8  # bytes of weights that come from memory in a cycle
INDEX_BYTES = 2  # of a stored coordinate
L1_SHARE = 0.95  # of L1 that keeps rows which are read again
HIDES = 4  # the norm of loads and arithmetic: the longer one hides most of the other, but less where they are alike
PAGES = 48  # of X that the TLB keeps beside those of Y and of the weight
ASSUMED = 128  # for a symbolic extent
IDLE = 0.2  # of the time of an idle core


@dataclass(frozen=True)
class Inner:
    """What the loops around a tile cost beside loads and multiply-adds.

    Parameters
    ----------
    step : cycles for each step of a tile beside its loads
    sums : cycles for each vector of sums that a tile opens, brings from Y and leaves there
    open : cycles to open a tile
    group : cycles to enter a loop over some steps
    miss : cycles for each vector that comes from L2, two of them where it lies in two lines
    busy : measured cycles for each cycle that loads take at least
    works : and for each that multiply-adds take at least
    far : cycles for a row of X on a page that was left since it was read
    wait : cycles that a step takes at least, since it adds once to each sum of its tile
    load : loads for each weight
    copy : cycles to copy a vector of X
    first : cycles to come to a vector of X that is not copied, for the first time in a panel
    keeps : of L1 keeps rows that are read again; more than all of it where the few others that are missed cost nothing
    """

    step: float
    sums: float
    open: float = 0.0
    group: float = 0.0
    miss: float = 0.0
    busy: float = 1.0
    works: float = 1.0
    far: float = 0.0
    wait: float = 0.0
    load: float = 1.0
    copy: float = 1.9
    first: float = 0.0
    keeps: float = L1_SHARE


@dataclass(frozen=True)
class Nest:
    """The loops over one layout, counted for one tile of columns.

    A tile keeps the sums of some rows in registers, and each step reads one row of X. Where rows are found inside
    depths it is the other way round (`scatter`): a tile keeps some rows of X, and each step adds to a row of sums.

    Parameters
    ----------
    name : of the layouts that are alike but for how they are cut, such as ``bucketed rows`` or ``2:4``
    layout : makes the layout; None for an activation
    rows : that a tile keeps
    steps : that all tiles take together, each of so many multiply-adds as a tile keeps elements
    opens : tiles that are opened
    part : rows between two times that one is read in another tile
    inner : what the loops cost
    groups : loops over some of the steps that are entered
    stage : whether the part of X that a depth block reads is copied first
    scatter : whether tiles keep X
    tasks : chunks or blocks of rows that cores can take
    rest : the loops over the other terms of a sum of layouts
    together : whether many stored integers are decoded at once
    gathers : whether each of the rows has an element of X of its own in a step
    stretch : elements that loads are aligned to where the taps of a channel share what is copied of X; else None
    entries : those that are spelled out as code, so that steps are loads of X; 0 where loops walk them
    """

    name: str
    layout: Callable[[], Layout | Sum] | None
    rows: int
    steps: int
    opens: float
    part: int
    inner: Inner
    groups: int = 0
    stage: bool = False
    scatter: bool = False
    tasks: int = 1
    rest: Nest | None = None
    together: bool = False
    gathers: bool = False
    stretch: int | None = None
    entries: int = 0


class Prices:
    """The prices of nests for one product on one target."""

    def __init__(self, product: Product, target: Target) -> None:
        self.product, self.target = product, target
        self._apart, self._few = row_bytes(product), has_few_columns(product, target)
        in_two_lines = min(1.0, target.vector_bits / 8 / LINE)  # of vectors that start anywhere
        self._crossing = in_two_lines * (1.0 if self._apart % LINE else 1 - 1 / product.taps)  # of loads of X

    def __call__(self, nest: Nest, widths: tuple[int, ...]) -> float:
        """Return the cycles of one core for the whole product, its columns in tiles of these widths."""
        if self._few:
            return self._streamed(nest, self._in_cache(nest, widths))
        return self._in_cache(nest, widths)

    def _streamed(self, nest: Nest, cycles: float) -> float:
        """Return the cycles with those in which the weight, which few columns use but once, comes from memory."""
        stored = nest.steps * nest.rows * stored_bits(self.product.weight.dtype) // 8
        moved = stored + (0 if nest.name == "dense" else nest.steps * INDEX_BYTES)
        if moved <= self.target.l2_bytes:
            return cycles
        return (cycles**HIDES + (batch(self.product) * moved / STREAM) ** HIDES) ** (1 / HIDES)

    def _in_cache(self, nest: Nest, widths: tuple[int, ...]) -> float:
        """Return the cycles where the weight comes from a cache in time."""
        product, target, inner = self.product, self.target, nest.inner
        images, cycles = batch(product), self(nest.rest, widths) if nest.rest else 0.0
        lanes = target.lanes(product.sums)
        together = nest.stage or nest.scatter  # rows of a copy, or of Y, lie together and are aligned
        for count, vectors in tiles(product, widths, target):
            loads = vectors * (1 if together else 1 + self._crossing)
            step = self._step(nest, vectors, loads)
            if inner.miss:
                step += inner.miss * loads * self._outside_l1(nest, vectors * lanes, together)
            if inner.far and not together:
                step += inner.far * self._far(nest.part)
            depth = extent(product.depth)
            if nest.stretch:
                brought = depth / product.taps * self._copied(nest.stretch, vectors * lanes) / lanes * inner.copy
            else:
                brought = depth * loads * inner.copy if nest.stage else depth / product.taps * vectors * inner.first
            opens = nest.opens * (inner.sums * nest.rows * vectors + inner.open) + nest.groups * inner.group
            idle = idle_cores(count * images * nest.tasks, target)
            cycles += count * images * idle * (nest.steps * step + opens + brought * nest.tasks)
        return cycles

    def _step(self, nest: Nest, vectors: float, loads: float) -> float:
        """Return the cycles of a step whose operands are in L1."""
        if nest.gathers:
            return self._step_of_gathered(nest)
        if nest.rows > 1 and self._few and not nest.scatter:
            return self._step_by_rows(nest)
        arithmetic = nest.inner.works * max(nest.inner.wait, nest.rows * vectors / self.target.fma_per_cycle)
        loads += nest.inner.load * nest.rows
        loading = nest.inner.busy * loads / self.target.loads_per_cycle + nest.inner.step
        together = (arithmetic**HIDES + loading**HIDES) ** (1 / HIDES)
        return together + CONVERT * self._conversions(nest, vectors) + self._decoding(nest)

    def _step_by_rows(self, nest: Nest) -> float:
        """Return the cycles of a step that multiplies vectors of rows by each of few columns."""
        columns, vectors = extent(self.product.columns), -(-nest.rows // self.target.lanes(self.product.sums))
        arithmetic = max(WAIT, vectors * columns / self.target.fma_per_cycle)
        loading = (vectors + columns) / self.target.loads_per_cycle + nest.inner.step
        return (arithmetic**HIDES + loading**HIDES) ** (1 / HIDES)

    def _step_of_gathered(self, nest: Nest) -> float:
        """Return the cycles of a step that loads an element of X for each row and column, one by one."""
        target, sums = self.target, self.product.sums
        at_once = target.loads_per_cycle * target.lanes(sums) // target.unit_lanes(sums)
        return nest.inner.busy * nest.rows * extent(self.product.columns) / at_once + nest.inner.step

    def _outside_l1(self, nest: Nest, columns: float, together: bool) -> float:
        """Return which share of the loads of X misses L1.

        Rows of X that are a multiple of many lines apart meet in few of the cache's sets, unless they were copied
        together.
        """
        product, apart = self.product, self._apart
        kept = nest.inner.keeps * self.target.l1_bytes
        if nest.stretch:
            kept, columns = min(kept, self.target.l1_bytes), self._copied(nest.stretch, columns) / product.taps
        if together:
            return max(0.0, 1 - kept / (columns * np.dtype(product.sums).itemsize * nest.part))
        itemsize = np.dtype(product.x.dtype).itemsize
        width = columns * itemsize
        beside = LINE - itemsize if apart > LINE and apart % LINE else 0  # of lines that a row starts or ends in
        row = min(width + beside, apart) if apart else width
        footprint = (row + product.span * itemsize) * max(1, nest.part // product.taps)
        starts = L1_SETS // gcd(max(1, apart // LINE), L1_SETS)  # rows that start in different sets
        used = min(L1_SETS, starts * -(-width // LINE))
        return max(0.0, 1 - kept * used / L1_SETS / footprint)

    def _copied(self, stretch: int, columns: float) -> float:
        """Return how many elements of a channel are copied for taps that share them."""
        return sum(columns + reach for reach in stretches(self.product, stretch).values())

    def _far(self, part: int) -> float:
        """Return for which share of the steps the row of X is on a page that was left since it was read."""
        taps = self.product.taps
        pages = part / taps * min(1.0, self._apart / PAGE)
        return max(0.0, 1 - PAGES / pages) / taps

    def _decoding(self, nest: Nest) -> float:
        """Return the cycles in which a step decodes its weights from integers."""
        product = self.product
        if product.weight.dtype not in DECODE or not is_float(product.sums):
            return 0
        if nest.together:
            return max(nest.rows, DECODED_ROWS) * DECODE[product.weight.dtype]
        return nest.rows * (DECODE_ONE[product.weight.dtype] + (SCALE_ONE if product.group else 0))

    def _conversions(self, nest: Nest, vectors: float) -> float:
        """Return how much a step converts from half precision: its weights, and vectors of X that are no copies."""
        if self._few:
            return 0  # the rows are vectors then, whose weights are converted together
        weights = nest.rows if self.product.weight.dtype in HALVES else 0
        return weights + (vectors if self.product.x.dtype in HALVES and not nest.stage else 0)


def has_few_columns(product: Product, target: Target) -> bool:
    """Whether there are fewer columns than vector units take at once."""
    return extent(product.columns) < target.unit_lanes(product.sums)


def extent(dim: int | str) -> int:
    """Return a size, as assumed where it is symbolic."""
    return dim if isinstance(dim, int) else ASSUMED


def batch(product: Product) -> int:
    """Return how many images or sequences, or tiles of these, there are, as of one where that is symbolic."""
    return product.tiles * (product.batch if isinstance(product.batch, int) else 1)


def tiles(product: Product, widths: tuple[int, ...], target: Target) -> list[tuple[int, float]]:
    """Return (how many, vectors in each) of the tiles of columns; a part of a unit costs as much as a whole one."""
    unit, lanes = target.unit_lanes(product.sums), target.lanes(product.sums)
    left = extent(product.columns)
    found = []
    for width in widths:
        found.append((left // width, -(-width // unit) * unit / lanes))
        left %= width
    return [tile for tile in found if tile[0]]


def row_bytes(product: Product) -> int:
    """Return how far apart in X the rows of neighbouring channels are; as assumed where that is not constant."""
    return _apart(product.x_index, product.x.shape, product.taps) * np.dtype(product.x.dtype).itemsize


@lru_cache(maxsize=64)  # of every candidate
def _apart(x_index: tuple[Expr, ...], extents: tuple[int | str, ...], taps: int) -> int:
    """Return how many elements `row_bytes` are."""
    if not all(isinstance(size, int) for size in extents[1:]):
        return ASSUMED
    bindings = {"b": Const(0), "k": Coordinate("W", "k"), "m": Const(0)}
    place = np.zeros(2, np.int64)
    for index, size in zip(x_index, extents, strict=True):
        depths = evaluate(substitute(index, bindings), {"W.k": np.array([0, taps])})
        place = place * (size if isinstance(size, int) else 1) + depths
    return int(place[1] - place[0])


def idle_cores(tasks: int, target: Target) -> float:
    """Return what a loop of so many tasks costs more for the cores that it leaves idle.

    It is a part of their time, since one core may be all that is asked for.
    """
    return 1 + IDLE * (-(-tasks // target.cores) * target.cores / tasks - 1)
