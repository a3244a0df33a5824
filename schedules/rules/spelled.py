"""Weights whose entries are spelled out as code: which ways to cut them are worth trying, and what they cost.

Code reads a vector of X once for all rows of a block, and keeps their sums in registers over a part of the depth that
is bounded by the cache of instructions alone. So large blocks are best: as many rows as there are registers, shared out
evenly. The constants are fits to measured kernels, as those of `sparsec.schedules.rules.prices`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import gcd, hypot

import numpy as np

from sparsec.ir.fragment_ends import split_epilogue
from sparsec.ir.image import VECTOR
from sparsec.ir.instruction import INSTRUCTIONS, Instruction
from sparsec.ir.layout import Layout
from sparsec.ir.product import Product
from sparsec.schedules.rules.cuts import PARTS, Cut, Panel, in_rows
from sparsec.schedules.rules.prices import SETS, Inner, Nest, batch, extent, idle_cores, row_bytes
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Step, Tensorize, Vectorize
from sparsec.targets import LINE, Target

LOAD = 2.35  # cycles for a vector of X
FROM_L2 = 0.4  # cycles more, where it comes from L2
HIDES = 6  # the norm of loads and products: the longer ones hide nearly all of the others
SUMS = 2.5  # cycles for a vector of sums that is started, finished and stored
FINISH = 2.5  # cycles more, where a loop finishes it
COPY = 2.5  # cycles to copy a vector of X
FIRST = 1.5  # cycles for a vector of X that is read where it is, at the first of the blocks of rows
FEW_SETS = 4.0  # cycles for one where rows of X meet in few of the sets of L1
FEW = 8  # of which they meet in one
CROSSING = 0.25  # more, where it lies in two lines
MISS = 12.0  # cycles more, where it comes from L3
WAYS = 8  # of L2, on most processors
CODE = 0.03  # cycles for a byte of code or values that comes to L1
KEPT = 0.75  # of the cache of instructions, taken to be as large as L1, keeps a fragment
REFETCH = 0.08  # cycles for a byte of code that does not stay there
STREAM = 4.3  # bytes of them that come from memory in a cycle, of which products hide a part
PRODUCT_BYTES, LOAD_BYTES = 7, 8  # of code
LONGEST = 6000  # products in a fragment; the code of more is far from staying in L1
INNER = Inner(step=0.0, sums=SUMS)


def find_writer(product: Product, target: Target) -> Instruction | None:
    """Return the instruction of a target that the entries of a product's weight can be spelled out with."""
    types = {product.weight.dtype, product.x.dtype, product.sums}
    if types != {"float32"} or product.values is not None:
        return None
    able = (one for one in INSTRUCTIONS.values() if one.writer and one.runs_on(target.isa))
    return next((one for one in able if one.extents == (target.lanes(product.sums),)), None)


def spelled_nests(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield blocks of as many rows as registers hold sums of, with parts of the depth of several sizes."""
    product, target = panel.product, panel.target
    instruction = find_writer(product, target)
    if instruction is None or not spelled_widths(product, panel.width) or not weight.entries or weight.rows == 1:
        return
    assert instruction.writer is not None
    most = instruction.writer.sums
    for parts in PARTS:
        channels = weight.depth // product.taps
        part = -(-channels // parts) * product.taps
        if -(-weight.depth // part) != parts or (parts > 1 and (part == 1 or product.y.dtype != product.sums)):
            continue
        for chunk in sorted(panel.chunk_sizes(weight.rows, 1, parts)):
            rows = chunk or weight.rows
            r = -(-rows // -(-rows // most))
            chunk = -(-chunk // r) * r
            if weight.entries * r * part > LONGEST * weight.mask.size and parts < PARTS[-1] and part > product.taps:
                continue
            for copy in (False, True):
                cut = Cut(weight.rows, weight.depth, r, chunk, parts, part if parts > 1 else weight.depth, copy)
                opens = parts * -(-weight.rows // r)
                tasks = cut.chunks if parts > 1 else 1 if copy else opens  # all blocks of rows read the same copy
                layout = partial(spelled_layout, cut)
                yield Nest(
                    "spelled out",
                    layout,
                    r,
                    weight.blocks(r),
                    opens,
                    cut.part,
                    INNER,
                    stage=copy,
                    tasks=tasks,
                    spelled=weight.entries,
                )


def not_spelled(weight: Weight, product: Product) -> str | None:
    """Say why no entries of a weight are spelled out."""
    types = {product.weight.dtype, product.x.dtype, product.sums}
    if not weight.entries:
        return "the weight has no entries"
    if weight.rows == 1:
        return "a single row is no block of rows"
    if types != {"float32"}:
        return f"code is written for float32 alone, and not for {' and '.join(sorted(types))}"
    if not spelled_widths(product, VECTOR):
        return f"{product.columns} columns are not known to be a vector of {VECTOR}"
    return "the target has no instruction that multiplies by what it broadcasts from memory"


def spelled_layout(cut: Cut) -> Layout:
    """Return the layout of a weight that is cut.

    >>> str(spelled_layout(Cut(768, 3072, 30, 0, 4, 768)))
    '(i, k) -> (k floordiv 768 : dense, i floordiv 30 : dense, k mod 768 : compressed, i mod 30 : compressed)'
    """
    return in_rows(cut, "dense", "compressed", block="compressed")


def spelled_widths(product: Product, width: int) -> tuple[int, ...]:
    """Return the widths of tiles of about so many columns, each at least a panel; none where that is not possible."""
    columns, lanes = product.columns, VECTOR
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


def spelled_cycles(nest: Nest, widths: tuple[int, ...], product: Product, target: Target) -> float:
    """Return the cycles of one core for the whole product."""
    depth, lanes = extent(product.depth), target.lanes(product.sums)
    finishing = SUMS + (FINISH if split_epilogue(product) is None else 0.0)
    apart = row_bytes(product)
    crossing = 0.0 if nest.stage or (apart % LINE == 0 and product.taps == 1) else 1.0
    meet = apart % LINE == 0 and gcd(apart // LINE, SETS) >= FEW
    first = FEW_SETS if meet else FIRST
    missed = 0.0 if nest.stage else _outside_l2(apart, nest.part // product.taps, target)
    code_bytes = PRODUCT_BYTES * nest.spelled + LOAD_BYTES * nest.steps
    nbytes = code_bytes + np.dtype(product.weight.dtype).itemsize * nest.spelled
    refetched = max(0.0, code_bytes - nest.opens * KEPT * target.l1_bytes)  # by each panel but the first
    total, left = 0.0, extent(product.columns)
    for width in widths:
        count, left = (left // width, left % width)
        panels = -(-width // lanes)
        outside = max(0.0, 1 - target.l1_bytes / (panels * nest.part / product.taps * LINE))
        loads = (LOAD * (1 + CROSSING * crossing) + FROM_L2 * outside + MISS * missed) * nest.steps
        products = (nest.spelled**HIDES + loads**HIDES) ** (1 / HIDES) / target.fma_per_cycle
        sums = nest.opens * nest.rows * finishing
        x = depth * COPY * nest.tasks if nest.stage else depth / product.taps * first
        code = CODE * nbytes + REFETCH * (panels - 1) * refetched
        cycles = panels * (products + sums + x) + code
        total += count * batch(product) * idle_cores(count * batch(product) * nest.tasks, target) * cycles
    return hypot(total, batch(product) * nbytes / STREAM)


def _outside_l2(apart: int, rows: int, target: Target) -> float:
    """Return which share of so many rows misses L2 for rows that are a power of two apart, which meet in few sets."""
    lines = target.l2_bytes // LINE
    if apart % LINE:
        return 0.0
    kept = lines // gcd(apart // LINE, lines // WAYS)
    return max(0.0, 1 - kept / rows)
