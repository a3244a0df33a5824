"""Weights whose entries are spelled out as code: which ways to cut them are worth trying, and what they cost.

Code reads a vector of X once for all rows of a block, and keeps their sums in registers over a part of the depth that
is bounded by the cache of instructions alone. So large blocks are best: as many rows as there are registers, shared out
evenly. The constants are fits to measured kernels, as those of `sparsec.schedules.rules.prices`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import gcd, hypot, prod

import numpy as np

from sparsec.ir.instruction import INSTRUCTIONS, Instruction
from sparsec.ir.layout import Layout
from sparsec.ir.product import Product
from sparsec.ir.spelled_nest import FARTHEST
from sparsec.ir.spelled_term import can_be_spelled, split_epilogue
from sparsec.schedules.rules.cuts import LEAST, PARTS, Cut, Panel, in_rows
from sparsec.schedules.rules.prices import Inner, Nest, batch, extent, idle_cores, row_bytes
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Step, Tensorize, Vectorize
from sparsec.targets import L1_SETS, L2_WAYS, LINE, Target

HIDES = 6  # the norm of loads and products: the longer ones hide nearly all of the others
SUMS = 2.5  # cycles for a vector of sums that is started, finished and stored
FINISH = 2.5  # cycles more, where a loop finishes it
FEW = 8  # sets of L1, of which rows of X meet in one where it is few
CROSSING = 0.25  # times as many loads more of a vector of X, where it lies in two lines
MISS = 12.0  # loads more, where it comes from L3
KEPT = 0.75  # of the cache of instructions keeps a fragment
STREAM = 4.3  # bytes of code and values that come from memory in a cycle, of which products hide a part
PRODUCT_BYTES, LOAD_BYTES = 7, 8  # of code, with what keeps addresses near
LEAST_COLUMNS = 16  # of a vector that there is code for
INNER = Inner(step=0.0, sums=SUMS)


@dataclass(frozen=True)
class Costs:
    """What fragments cost on a kind of core.

    Parameters
    ----------
    load : loads that one of a vector of X is worth among products, each of which loads a value
    from_l2 : more, where it comes from L2
    copy : cycles to copy a vector of X
    first : cycles for a vector of X that is read where it is, at the first of the blocks of rows
    few_sets : cycles for one where rows of X meet in few of the sets of L1
    code : cycles for a byte of code or values that comes to L1
    refetch : cycles for a byte of code that does not stay there
    """

    load: float
    from_l2: float
    copy: float
    first: float
    few_sets: float
    code: float
    refetch: float


ONE_LINE = Costs(load=2.35, from_l2=0.4, copy=2.5, first=1.5, few_sets=4.0, code=0.03, refetch=0.08)
TWO_LINES = Costs(load=3.65, from_l2=0.97, copy=9.6, first=10.4, few_sets=15.0, code=0.086, refetch=0.042)
"""By what a core multiplies in a cycle."""


def find_writer(product: Product, target: Target) -> Instruction | None:
    """Return the instruction of a target that the entries of a product's weight can be spelled out with."""
    if _types(product) != {"float32"} or product.values is not None or target.emulated_on or _reaches_far(product):
        return None
    if product.reads or product.writes:
        return None  # code passes over no rows
    able = (one for one in INSTRUCTIONS.values() if one.writer and one.runs_on(target.isa))
    return next((one for one in able if one.extents == (target.lanes(product.sums),)), None)


def spelled_nests(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield blocks of as many rows as registers hold sums of, with parts of the depth of several sizes."""
    instruction = find_writer(panel.product, panel.target)
    lanes = panel.target.lanes(panel.product.sums)
    if instruction is None or not spelled_widths(panel.product, panel.width, lanes) or not weight.entries:
        return
    assert instruction.writer is not None
    for cut in _cuts(weight, panel, instruction.writer.sums):
        opens = cut.parts * -(-weight.rows // cut.r)
        yield Nest(
            "spelled out",
            partial(spelled_layout, cut),
            cut.r,
            weight.blocks(cut.r),
            opens,
            cut.part,
            INNER,
            stage=cut.copy,
            tasks=cut.chunks if cut.parts > 1 or cut.copy else opens,
            entries=weight.entries,
        )


def given_nests(layout: Layout, mask: np.ndarray, product: Product, target: Target) -> Iterator[Nest]:
    """Yield the loops over a layout that a user gives, for nonzeros bool [rows, depth], if it can be spelled out."""
    instruction = find_writer(product, target)
    if instruction is None or not can_be_spelled(layout) or not mask.any():
        return
    (*outside, _, block), level = layout.sizes(mask.shape), len(layout.levels) - 2
    around = layout.levels[:level]
    assert instruction.writer is not None
    if not 1 < block <= instruction.writer.sums:
        return
    columns = layout.pack(mask).arrays[f"level{level}.indices"].size
    part = min((digit.divisor for digit, _ in around if digit.dim == layout.dims[1]), default=mask.shape[1])
    if part < mask.shape[1] and product.y.dtype != product.sums:
        return
    chunks = outside[0] if len(around) > 1 and around[0][0].dim == layout.dims[0] else 1
    for stage in (False, True):
        yield Nest(
            "given", lambda: layout, block, columns, prod(outside), part, INNER, stage=stage, tasks=chunks,
            entries=int(np.count_nonzero(mask)),
        )  # fmt: skip


def _cuts(weight: Weight, panel: Panel, most: int) -> Iterator[Cut]:
    """Yield ways to cut a weight in blocks of at most so many rows, of about as many each."""
    product, channels = panel.product, weight.depth // panel.product.taps
    for parts in PARTS:
        part = -(-channels // parts) * product.taps
        is_even = -(-weight.depth // part) == parts and (parts == 1 or channels // parts >= LEAST)
        if not is_even or (parts > 1 and product.y.dtype != product.sums):  # sums rest in Y
            continue
        for chunk in sorted(panel.chunk_sizes(weight.rows, 1, parts)):
            rows = chunk or weight.rows
            r = -(-rows // -(-rows // most))
            chunk = -(-chunk // r) * r
            for copy in (False, True) if r > 1 else ():
                yield Cut(weight.rows, weight.depth, r, chunk if chunk > r else 0, parts, part, copy)


def not_spelled(weight: Weight, product: Product) -> str | None:
    """Say why no entries of a weight are spelled out."""
    types = _types(product)
    if weight.rows == 1 or not weight.entries:
        return "a single row is no block of rows" if weight.entries else "the weight has no entries"
    if types != {"float32"} or product.values is not None:
        return f"code is written for float32 alone, and not for {' and '.join(sorted(types))}"
    if isinstance(product.columns, str) or product.columns < LEAST_COLUMNS:
        return f"a panel of columns is a vector of them, and there are {product.columns}"
    if _reaches_far(product):
        return f"an image of X or Y has more than the {FARTHEST} bytes that an instruction reaches"
    return "the target has no instruction that multiplies by what it broadcasts from memory"


def _types(product: Product) -> set[str]:
    return {product.weight.dtype, product.x.dtype, product.sums}


def _reaches_far(product: Product) -> bool:
    """Whether an image of X or Y has more bytes than instructions hold distances for."""
    extents = (buffer.shape[1:] for buffer in (product.x, product.y))
    return any(4 * prod(extent(size) for size in sizes) > FARTHEST for sizes in extents)


def spelled_layout(cut: Cut) -> Layout:
    """Return the layout of a weight that is cut.

    >>> str(spelled_layout(Cut(768, 3072, 30, 0, 4, 768)))
    '(i, k) -> (k floordiv 768 : dense, i floordiv 30 : dense, k mod 768 : compressed, i mod 30 : compressed)'
    """
    return in_rows(cut, "dense", "compressed", block="compressed")


def spelled_widths(product: Product, width: int, lanes: int) -> tuple[int, ...]:
    """Return the widths of tiles of so many columns and of what is left; none where that is less than a panel."""
    columns = product.columns
    if isinstance(columns, str) or columns < lanes:
        return ()
    if columns <= width:
        return (columns,)
    left = columns % width
    if not left:
        return (width,)
    return (width, left) if left >= lanes else ()


def spelled_moves(nest: Nest, product: Product, target: Target) -> tuple[Step, ...]:
    """Return the moves that spell entries out, and make vectors of what fragments leave to loops."""
    instruction, lanes = find_writer(product, target), target.lanes(product.sums)
    assert instruction is not None
    by_loops = split_epilogue(product) is None
    starts = nest.stage or (by_loops and nest.part < extent(product.depth))
    return (
        Tensorize("update", instruction.name),
        *((Vectorize("init", lanes),) if starts else ()),
        *((Vectorize("finish", lanes),) if by_loops else ()),
    )


class SpelledPrices:
    """The prices of nests whose entries are spelled out, for one product on one target."""

    def __init__(self, product: Product, target: Target) -> None:
        self.product, self.target = product, target
        self._lanes, self._apart = target.lanes(product.sums), row_bytes(product)
        self._sums = SUMS if split_epilogue(product) else SUMS + FINISH
        self._costs = TWO_LINES if target.multiplies_two_lines else ONE_LINE

    def __call__(self, nest: Nest, widths: tuple[int, ...]) -> float:
        """Return the cycles of one core for the whole product, its columns in tiles of these widths."""
        product, target = self.product, self.target
        code_bytes = PRODUCT_BYTES * nest.entries + LOAD_BYTES * nest.steps
        nbytes = code_bytes + np.dtype(product.weight.dtype).itemsize * nest.entries
        refetched = max(0.0, code_bytes - nest.opens * KEPT * target.code_bytes)  # by each panel but the first
        products = max(nest.entries / target.fma_per_cycle, self._loading(nest))
        sums, brought = nest.opens * nest.rows * self._sums, self._brought(nest)
        total, left = 0.0, extent(product.columns)
        for width in widths:
            count, left = batch(product) * (left // width), left % width
            panels = -(-width // self._lanes)
            loads = nest.steps * self._load(nest, panels) / target.loads_per_cycle
            step = (products**HIDES + loads**HIDES) ** (1 / HIDES)
            panel = step + sums + brought
            code = self._costs.code * nbytes + self._costs.refetch * (panels - 1) * refetched
            total += count * idle_cores(count * nest.tasks, target) * (panels * panel + code)
        read = batch(product) if nbytes > target.l2_bytes else 1
        return hypot(total, read * nbytes / STREAM)

    def _loading(self, nest: Nest) -> float:
        """Return the cycles that units for loads take at least: one of a value for each product, and those of X."""
        at_once = self.target.loads_per_cycle
        values = at_once * self._lanes // self.target.unit_lanes(self.product.sums)
        return nest.entries / values + nest.steps / at_once

    def _load(self, nest: Nest, panels: int) -> float:
        """Return the cycles for a vector of X, of tiles of so many panels."""
        taps, costs = self.product.taps, self._costs
        rows = nest.part / taps
        load = costs.load + costs.from_l2 * max(0.0, 1 - self.target.l1_bytes / (panels * rows * LINE))
        if nest.stage:
            return load
        in_two_lines = 1.0 if self._apart % LINE else 1 - 1 / taps
        return load + costs.load * CROSSING * in_two_lines + MISS * self._outside_l2(rows)

    def _outside_l2(self, rows: float) -> float:
        """Return which share of so many rows of X misses L2, where they are whole lines apart that meet in few sets."""
        lines, apart = self.target.l2_bytes // LINE, self._apart
        kept = lines if apart % LINE else lines // gcd(apart // LINE, lines // L2_WAYS)
        return max(0.0, 1 - kept / rows)

    def _brought(self, nest: Nest) -> float:
        """Return the cycles to come to all vectors of X in a panel for the first time."""
        depth = extent(self.product.depth)
        if nest.stage:
            return depth * self._costs.copy * nest.tasks
        meet = self._apart % LINE == 0 and gcd(self._apart // LINE, L1_SETS) >= FEW
        return depth / self.product.taps * (self._costs.few_sets if meet else self._costs.first)
