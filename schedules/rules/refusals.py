"""Why a family of layouts has no member for a weight, in words that follow "it cannot: "."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

from sparsec.ir.layout import Layout
from sparsec.ir.named import combined_columns, n_of_m, permuted_diagonal
from sparsec.ir.product import Product
from sparsec.ir.structures import SHAPES, TAPS
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.prices import extent
from sparsec.schedules.rules.weight import Weight

SPARSE = 0.75  # of the columns of a group, at most, for N:M to be worth its name
WASTE = 1.5  # places of N:M for each entry, at most
GROUP = 8  # columns that are combined to one
GATHERED = 8  # columns; of as many, vectors are loaded, and elements gathered of fewer

Refusal = Callable[[Weight, Product], str | None]


def first_of(*refusals: Refusal) -> Refusal:
    """Return the first that has a reason."""
    return lambda weight, product: next(filter(None, (refusal(weight, product) for refusal in refusals)), None)


def cannot_hold(layout: Layout | Sum) -> Refusal:
    """Take what a typical member says."""
    return lambda weight, product: weight.refusal(layout)


def none_kept(weight: Weight, product: Product) -> str | None:
    """Refuse a weight of zeros alone."""
    return None if weight.entries else "the weight has no entries"


def ragged_rows(r: int) -> Refusal:
    """Refuse rows that are no whole blocks."""
    return lambda weight, product: f"{weight.rows} rows are not a multiple of {r}" if weight.rows % r else None


def ragged_columns(c: int) -> Refusal:
    """Refuse columns that are no whole groups."""
    return lambda weight, product: f"{weight.depth} columns are not a multiple of {c}" if weight.depth % c else None


def cut_taps(c: int) -> Refusal:
    """Refuse kernels that groups of columns would cut."""

    def refusal(weight: Weight, product: Product) -> str | None:
        cut = c > 1 and lcm(c, product.taps) > c
        return f"groups of {c} columns would cut kernels of {product.taps} taps" if cut else None

    return refusal


def other_taps(c: int) -> Refusal:
    """Refuse kernels that have not so many taps."""

    def refusal(weight: Weight, product: Product) -> str | None:
        has = f"{product.taps} tap{'s' * (product.taps > 1)}"
        return None if product.taps == c else f"kernels have {has}, not {c}"

    return refusal


def few_to_slice(r: int, weight: Weight, product: Product) -> str | None:
    """Refuse what is no slice of r rows of few columns."""
    if weight.rows < r:
        return f"{weight.rows} rows are less than a slice of {r}"
    types = {product.weight.dtype, product.x.dtype, product.sums}
    if types != {"float32"}:
        return f"vectors are gathered of float32 alone, and not of {' and '.join(sorted(types))}"
    columns = extent(product.columns)
    return f"{columns} columns are a vector by themselves" if columns >= GATHERED else None


def no_n_of_m(weight: Weight, product: Product) -> str | None:
    """Refuse weights that no N of M is worth its name for."""
    m = next((m for m in (4, 2) if weight.depth % m == 0), 0)
    n = weight.most_of(m) if m else 0
    if n > SPARSE * m:
        return weight.refusal(n_of_m(m // 2, m))
    places = weight.mask.size / m * n / weight.entries
    return f"{n}:{m} would store {places:.1f} places for each entry" if places > WASTE else None


def no_full_blocks(r: int, weight: Weight, product: Product) -> str | None:
    """Refuse weights without blocks of r rows that are full, or with nothing beside them."""
    full, rest = weight.full_blocks(r)
    if full and rest:
        return None
    return f"{'all' if full else 'no'} blocks of {r} rows that have an entry are at least half full"


def no_patterns(weight: Weight, product: Product) -> str | None:
    """Refuse kernels that are of no few shapes."""
    if product.taps == 1:
        return "there are no kernels of several taps"
    if weight.patterns(product.taps)[1]:
        return None
    if product.taps > TAPS:
        return f"kernels have {product.taps} taps, and shapes at most {TAPS}"
    return f"kernels keep more than half of {product.taps} taps, or in more shapes than {SHAPES}"


def no_diagonals(weight: Weight, product: Product) -> str | None:
    """Refuse blocks that hold more than a diagonal."""
    p = next(p for p in (8, 4, 2) if weight.depth % p == 0)
    if weight.most_of(p) > 1:
        return f"a row has {weight.most_of(p)} entries in {p} columns, and a diagonal of {p}×{p} holds one"
    return weight.refusal(permuted_diagonal(p))


def too_many_to_combine(weight: Weight, product: Product) -> str | None:
    """Refuse rows that have more entries than combined columns hold."""
    columns = -(-weight.depth // GROUP)
    if weight.most_in_row > columns:
        return f"a row has {weight.most_in_row} entries, and {weight.depth} columns, {GROUP} to one, hold {columns}"
    return weight.refusal(combined_columns(GROUP))
