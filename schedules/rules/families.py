"""Families of layouts: for each, which members are worth trying for a weight, and how often their loops run.

A family has a function of a weight and of a panel of columns that yields a `Nest` for each member. To add one, write
such a function and give it a line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

from sparsec.ir.decoded import DECODED
from sparsec.ir.emission import QUAD
from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import TILE_ROWS
from sparsec.ir.named import (
    combined_columns,
    dense_blocks,
    fkw_by_channel,
    grouped_blocks,
    permuted_diagonal,
    sell,
    tvw,
    v_n_m,
)
from sparsec.ir.product import Product
from sparsec.ir.sums import Sum
from sparsec.ir.types import NARROW
from sparsec.schedules.rules.cuts import PARTS, Cut, Panel, find_cuts, in_rows
from sparsec.schedules.rules.fits import (
    BITS,
    BLOCKS,
    GROUPS,
    KERNELS,
    SLICES,
    STRUCTURED,
    of_entries,
    of_filters,
    of_panels,
)
from sparsec.schedules.rules.prices import Inner, Nest, extent
from sparsec.schedules.rules.refusals import (
    GATHERED,
    GROUP,
    SPARSE,
    WASTE,
    Refusal,
    cannot_hold,
    cut_taps,
    few_to_slice,
    first_of,
    no_diagonals,
    no_full_blocks,
    no_n_of_m,
    no_patterns,
    none_kept,
    other_taps,
    ragged_columns,
    ragged_rows,
    too_many_to_combine,
)
from sparsec.schedules.rules.spelled import not_spelled, spelled_nests
from sparsec.schedules.rules.weight import Weight

FULL = 0.95  # of a weight, from which on it is taken as dense
FILLED = 1.15  # columns of blocks for each that has entries, at most
WORD = 64  # bits


def dense(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield panels of r rows; of integers some depths are decoded together, unless the rows are the vectors."""
    product, few = panel.product, panel.has_few_columns
    decoded = product.weight.dtype in NARROW
    if holds_groups_alone(product):
        yield from _grouped_panels(weight, panel)
        return
    for r in (*range(1, TILE_ROWS + 1), *(2 * TILE_ROWS, 4 * TILE_ROWS)):
        if r > weight.rows or not (panel.holds_by_rows(r) if few else panel.holds(r)):
            continue
        if decoded and r & (r - 1):
            continue  # no vectors of stored integers
        panels = -(-weight.rows // r)
        together = 1 if few or not decoded else _decoded_together(product, weight.depth, r)
        layout = partial(dense_blocks, r, product.taps, together)
        steps, inner = panels * weight.depth, of_panels(panel.target)
        yield Nest("dense", layout, r, steps, panels, weight.depth, inner, tasks=panels, together=together > 1)
    if not (few or decoded or product.reads or product.writes):
        yield from _staged_panels(weight, panel)


def holds_groups_alone(product: Product) -> bool:
    """Say whether dense layouts hold nothing between groups of channels; integers are decoded by whole rows."""
    return product.groups > 1 and product.weight.dtype not in NARROW


def _grouped_panels(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield panels of r rows of each group, which meet the depths of their group alone."""
    product, groups, few = panel.product, panel.product.groups, panel.has_few_columns
    rows, depth = weight.rows // groups, weight.depth // groups
    for r in range(1, TILE_ROWS + 1):
        if rows % r or not (panel.holds_by_rows(r) if few else panel.holds(r)):
            continue
        for parts in PARTS:
            part = depth // product.taps // parts * product.taps
            if part * parts != depth:
                continue
            panels, layout = weight.rows // r, partial(grouped_blocks, rows, depth, r, part, product.taps)
            steps, opens, inner = panels * depth, parts * panels, of_panels(panel.target)
            for stage in (False, True) if panel.fits_l1(r, part) and not few else (False,):
                yield Nest("dense", layout, r, steps, opens, part, inner, stage=stage, tasks=groups)


def _staged_panels(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield panels of r rows of a part of the depth, whose part of X is copied to where it stays in L1.

    Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", TOMS 2008, pack both operands so.
    """
    for r in range(1, TILE_ROWS + 1):
        for cut in find_cuts(weight, panel, r, copies=True, ragged=True):
            if cut.copy and panel.fits_l1(r, cut.part):
                layout = partial(in_rows, cut, "dense", "dense")
                panels = cut.chunks * (cut.chunk or -(-cut.rows // r) * r) // r
                steps, opens, inner = panels * weight.depth, cut.parts * panels, of_panels(panel.target)
                yield Nest("dense", layout, r, steps, opens, cut.part, inner, stage=True, tasks=cut.chunks)


def _decoded_together(product: Product, depth: int, r: int) -> int:
    """Return how many channels of r rows are decoded at once: they divide all of them, and those with one scale."""
    channels, most = depth // product.taps, DECODED // (product.taps * r)
    if product.group and product.taps == 1:
        channels = gcd(channels, product.group)
    return max(n for n in range(1, max(1, most) + 1) if channels % n == 0)


def row_vectors(r: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield compressed rows jammed in blocks of r."""
    name = f"{r}x1 blocks" if r > 1 else "bucketed rows"
    inner = of_entries(panel.target, r, load=1 / QUAD if r == 1 else 1.0)
    for cut in find_cuts(weight, panel, r, copies=True, shares=True):
        layout = partial(in_rows, cut, "bucketed", "compressed")
        yield _nest(name, layout, cut, weight.blocks(r), inner)


def slices(r: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield slices of r rows of few columns, whose vectors are of entries that have a row of X each."""
    if panel.keeps_few_columns and panel.holds_by_rows(r) and few_to_slice(r, weight, panel.product) is None:
        count, slots = -(-weight.rows // r), weight.slots(r)
        layout = partial(sell, r, weight.depth, min(panel.target.cores, count))
        yield Nest(f"SELL:{r}", layout, r, slots, count, weight.depth, SLICES, tasks=count, gathers=True)


def condensed(r: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield blocks of r rows of those that have entries."""
    inner = of_entries(panel.target, r)
    for cut in find_cuts(weight.condensed, panel, r, copies=True, shares=True):
        layout = partial(in_rows, cut, "bucketed", "compressed", order="condense")
        yield _nest("tile-wise, two-sided", layout, cut, weight.condensed.blocks(r), inner)


def blocks(r: int, c: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield compressed blocks of r × c; c is 4, or all taps of a kernel."""
    if c not in (4, panel.product.taps):
        return
    count, inner = weight.blocks(r, c), of_entries(panel.target, r, **(BLOCKS if c == 4 else KERNELS))
    for cut in find_cuts(weight, panel, r, c):
        layout = partial(in_rows, cut, "bucketed", "compressed", c, "dense")
        yield _nest(f"{r}x{c} blocks", layout, cut, count * c, inner, groups=count)


def structured(m: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield n:m, the smallest n that holds the weight; loops over it have no exits to predict."""
    n = weight.most_of(m)
    if 0 < n <= SPARSE * m and n * weight.mask.size <= WASTE * m * weight.entries:
        for cut in find_cuts(weight, panel, 1, m, copies=True, whole=True):
            layout = partial(in_rows, cut, "dense", "dense", m, f"structured[{n}]")
            inner = of_entries(panel.target, **STRUCTURED)
            yield _nest(f"{n}:{m}", layout, cut, weight.rows * weight.depth // m * n, inner)


def compressed_structured(m: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield n:m of those groups of m columns that have an entry in a row."""
    n = weight.most_of(m)
    if 0 < n <= m // 2:
        count = weight.blocks(1, m)
        for cut in find_cuts(weight, panel, 1, m):
            layout = partial(in_rows, cut, "bucketed", "compressed", m, f"structured[{n}]")
            yield _nest("TVW", layout, cut, count * n, of_entries(panel.target, **GROUPS), groups=count)


def bitmap(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield bitmaps, whose words are few where most weights are kept; a part of one word needs no other loop."""
    inner = of_entries(panel.target, **BITS)
    for cut in find_cuts(weight, panel, 1, copies=True, more_parts=(-(-weight.depth // WORD),)):
        words = weight.rows * cut.parts * -(-cut.part // WORD)
        layout = partial(in_rows, cut, "bucketed", "bitmap")
        yield _nest("bitmap", layout, cut, weight.entries, inner, groups=words)


def vectors_n_m(v: int, m: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield n:m that runs of v rows choose from 4 columns of m."""
    n = weight.most_of(m)
    if 0 < n <= 4 and weight.rows % v == 0 and weight.jammed(v).most_of(m) <= 4:
        steps, opens = weight.rows * weight.depth // m * n, weight.rows * weight.depth // m
        inner = of_entries(panel.target, **STRUCTURED)
        yield Nest("V:N:M", partial(v_n_m, v, n, m), 1, steps, opens, weight.depth, inner)


def diagonals(p: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield a shifted diagonal of each p × p block."""
    layout = permuted_diagonal(p)
    if weight.most_of(p) == 1 and weight.refusal(layout) is None:
        steps = weight.rows * weight.depth // p
        inner = of_entries(panel.target, **STRUCTURED)
        yield Nest("permuted diagonal", partial(permuted_diagonal, p), 1, steps, steps, weight.depth, inner)


def patterns(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield kernels of a few shapes, the filters of each shape jammed: they share what they read of a channel."""
    taps = panel.product.taps
    n, shapes = weight.patterns(taps)
    if not shapes or not panel.holds(n):
        return
    kernels = weight.blocks(1, taps)
    for tiles in (1, 2, 4, 8):
        chunk = weight.rows // tiles
        if weight.rows % tiles or chunk == 1:
            continue
        opens = tiles * weight.depth // taps * shapes
        layout = partial(fkw_by_channel, chunk, n, taps, shapes)
        inner = of_filters(panel.target)
        yield Nest("FKW by channel", layout, n, kernels, opens, chunk, inner, scatter=True, tasks=tiles)


def combined(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield columns combined some to one."""
    if weight.depth % GROUP == 0 and too_many_to_combine(weight, panel.product) is None:
        steps = weight.rows * weight.depth // GROUP
        layout = partial(combined_columns, GROUP)
        inner = of_entries(panel.target, **STRUCTURED)
        yield Nest("combined columns", layout, 1, steps, weight.rows, weight.depth, inner)


def tile_element_wise(r: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield blocks of r rows that are at least half full, and the rest as compressed rows."""
    full, rest = weight.full_blocks(r) if weight.rows % r == 0 else (0, 0)
    if not full or not rest:
        return
    for cut in find_cuts(weight, panel, r):
        single = replace(cut, r=1)
        terms = [partial(in_rows, one, "bucketed", "compressed") for one in (cut, single)]
        others = _nest("bucketed rows", terms[1], single, rest, of_entries(panel.target, load=1 / QUAD))
        yield replace(_nest("TEW", partial(_sum, *terms), cut, full, of_entries(panel.target, r)), rest=others)


def _nest(name: str, layout: Callable[[], Layout | Sum], cut: Cut, steps: int, inner: Inner, groups: int = 0) -> Nest:
    """Return the loops over a weight that is cut."""
    opens = cut.parts * cut.rows / cut.r
    return Nest(
        name, layout, cut.r, steps, opens, cut.part, inner, groups, cut.copy, tasks=cut.chunks, stretch=cut.stretch
    )


def _sum(*terms: Callable[[], Layout]) -> Sum:
    return Sum(tuple(term() for term in terms))


# -- the families --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A kind of layouts.

    Parameters
    ----------
    name : of all members
    nests : yields the loops over each member that can hold a weight; a `Nest` has a name that may say more
    refusal : says why there is no member for it, or returns None; asked for only where there is none
    worth : whether a member may be quicker than those of other families, so that `propose` is to price them
    """

    name: str
    nests: Callable[[Weight, Panel], Iterator[Nest]]
    refusal: Refusal = lambda weight, product: None
    worth: Callable[[Weight, Product], bool] = lambda weight, product: True


def _has_zeros(weight: Weight, product: Product) -> bool:
    return weight.entries * (product.groups if holds_groups_alone(product) else 1) <= FULL * weight.mask.size


def _has_few(weight: Weight, product: Product) -> bool:
    return _has_zeros(weight, product) and extent(product.columns) < GATHERED


def _has_blocks(r: int, c: int, weight: Weight, product: Product) -> bool:
    """Whether the columns of blocks of r rows stand in groups of c."""
    grouped = c in (4, product.taps) and weight.blocks(r, c) * c <= FILLED * weight.blocks(r)
    return grouped and _has_zeros(weight, product)


def _has_words(weight: Weight, product: Product) -> bool:
    """Whether words of bits are well filled."""
    return weight.mask.size < 4 * weight.entries <= 4 * FULL * weight.mask.size


def _mostly_full(r: int, weight: Weight, product: Product) -> bool:
    """Whether blocks of r rows hold most entries, but not all."""
    if weight.rows % r:
        return False
    _, rest = weight.full_blocks(r)
    return 0 < rest < weight.entries / 2


def _never(weight: Weight, product: Product) -> bool:
    return False


FAMILIES: list[Family] = [
    Family("dense", dense),
    Family("bucketed rows", partial(row_vectors, 1), worth=_has_zeros),
    Family("spelled out", spelled_nests, not_spelled, _has_zeros),
    *(Family(f"{r}x1 blocks", partial(row_vectors, r), ragged_rows(r), _has_zeros) for r in (2, 4, 8)),
    *(Family(f"SELL:{r}", partial(slices, r), partial(few_to_slice, r), _has_few) for r in (8, 16, 32)),
    *(
        Family(
            f"{r}x4 blocks",
            partial(blocks, r, 4),
            first_of(ragged_rows(r), cut_taps(4), ragged_columns(4)),
            partial(_has_blocks, r, 4),
        )
        for r in (1, 4, 8)
    ),
    *(
        Family(
            f"{r}x9 blocks",
            partial(blocks, r, 9),
            first_of(ragged_rows(r), other_taps(9)),
            partial(_has_blocks, r, 9),
        )
        for r in (1, 4, 8)
    ),
    Family(
        "tile-wise, two-sided",
        lambda weight, panel: (nest for r in (4, 8) for nest in condensed(r, weight, panel)),
        ragged_rows(4),
        lambda weight, product: weight.empty_rows > 0,
    ),
    Family(
        "TEW",
        lambda weight, panel: (nest for r in (4, 8) for nest in tile_element_wise(r, weight, panel)),
        first_of(none_kept, ragged_rows(4), partial(no_full_blocks, 4)),
        lambda weight, product: _mostly_full(4, weight, product) or _mostly_full(8, weight, product),
    ),
    Family(
        "N:M",
        lambda weight, panel: (nest for m in (2, 4, 8, 16) for nest in structured(m, weight, panel)),
        first_of(none_kept, ragged_columns(2), no_n_of_m, cut_taps(4)),
    ),
    Family(
        "TVW",
        partial(compressed_structured, 4),
        first_of(none_kept, ragged_columns(4), cannot_hold(tvw()), cut_taps(4)),
        lambda weight, product: weight.most_of(4) <= 2 and 6 * weight.blocks(1, 4) < weight.mask.size,
    ),
    Family("bitmap", bitmap, worth=_has_words),
    Family("FKW by channel", patterns, first_of(none_kept, no_patterns)),
    Family(
        "V:N:M",
        partial(vectors_n_m, 16, 8),
        first_of(none_kept, ragged_rows(16), ragged_columns(8), cannot_hold(v_n_m(16, 4, 8))),
        _never,
    ),
    Family(
        "permuted diagonal",
        lambda weight, panel: (nest for p in (2, 4, 8, 16) for nest in diagonals(p, weight, panel)),
        first_of(none_kept, ragged_columns(2), no_diagonals),
        _never,
    ),
    Family("combined columns", combined, first_of(ragged_columns(GROUP), too_many_to_combine), _never),
]
