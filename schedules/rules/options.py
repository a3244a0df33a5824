"""What could be chosen for a weight: every family of layouts, what it would take, and why it cannot where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from sparsec.ir.lower import MIN_INDEX_BITS
from sparsec.ir.product import Product
from sparsec.schedules.rules.families import FAMILIES
from sparsec.schedules.rules.product import contenders, propose
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target


@dataclass(frozen=True)
class Option:
    """One family of layouts for one weight.

    Parameters
    ----------
    name : of the family, such as ``2:4``
    layout : its cheapest member for this weight, in the notation; empty where none can hold it
    refusal : why no member can hold the weight without loss; None where one can
    nbytes : of the weight in this layout; 0 where there is none
    seconds : predicted for one core, with the tiles that are cheapest for it; infinite where there are none
    chosen : whether it is what `propose` takes
    """

    name: str
    layout: str
    refusal: str | None
    nbytes: int
    seconds: float
    chosen: bool


def options(product: Product, matrix: np.ndarray, target: Target) -> list[Option]:
    """Return an option for every family, the quickest first and those that cannot hold the weight at the end.

    Parameters
    ----------
    product : whose weight has no layout yet
    matrix : float32 [rows, depth], the constant weight
    target : whose caches and vector units the model prices for
    """
    chosen = propose(product, matrix, target).product.layout
    weight, found = Weight(matrix), []
    able = contenders(product, matrix, target, every=True)
    for name, (proposal,) in able.items():
        layout = proposal.product.layout
        assert layout is not None
        nbytes = layout.nbytes(matrix, matrix.dtype, MIN_INDEX_BITS)
        found.append(Option(name, str(layout), None, nbytes, proposal.seconds, layout == chosen))
    refusals = {family.name: family.refusal(weight, product) for family in FAMILIES if family.name not in able}
    return found + [Option(name, "", refusal, 0, inf, False) for name, refusal in refusals.items() if refusal]
