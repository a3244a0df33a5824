"""Why a family of layouts has no member for a weight, in words that follow "it cannot: "."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

from sparsec.ir.layout import Layout
from sparsec.ir.product import Product
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.weight import Weight

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
