"""What could be chosen for a weight: every family of layouts, what it would take, and why it cannot where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from sparsec.ir.product import Product
from sparsec.schedules.rules.dots import find_dot, why_not
from sparsec.schedules.rules.families import FAMILIES
from sparsec.schedules.rules.product import Proposal, contenders
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target

NO_TILES = "no tiles of it are known for a weight of this shape"


@dataclass(frozen=True)
class Option:
    """A kind of layouts for one weight.

    Parameters
    ----------
    family : the kind, such as ``N:M``
    name : of what is meant of it, such as ``2:4``; the family's where there is nothing more to say
    layout : its cheapest member for this weight, in the notation; empty where none can hold it
    refusal : why no member can hold the weight without loss; None where one can
    nbytes : of the weight in this layout, as the kernel reads it; 0 where there is none
    seconds : predicted for one core, with the tiles that are cheapest for it; infinite where there are none
    chosen : whether the weight is stored so
    weighed : whether its family is among those that a choice is made from for such a weight (`Family.worth`)
    """

    family: str
    name: str
    layout: str
    refusal: str | None
    nbytes: int
    seconds: float
    chosen: bool
    weighed: bool = True


def options(product: Product, matrix: np.ndarray, target: Target, chosen: Proposal) -> list[Option]:
    """Return an option or more for every family, the quickest first and those that cannot hold the weight at the end.

    Parameters
    ----------
    product : whose weight has no layout yet
    matrix : float32 [rows, depth], the constant weight
    target : whose caches and vector units the model prices for
    chosen : how the weight is stored; an option of its own where it is no family's
    """
    weight, proposals = Weight(matrix), contenders(product, matrix, target, every=True)
    able = [proposal for (proposal,) in proposals.values()]
    if not any(proposal.product.layout == chosen.product.layout for proposal in able):
        able = [*(proposal for proposal in able if proposal.name != chosen.name), chosen]
    families = {name for proposal in able for name in (proposal.family, proposal.name)}
    refused = [family for family in FAMILIES if family.name not in families]
    dot = find_dot(product, target)
    refusals = [
        (
            family.name,
            family.refusal(weight, product) or (why_not(dot, family.name, weight, target) if dot else NO_TILES),
        )
        for family in refused
    ]
    unweighed = {family.name for family in FAMILIES if not family.worth(weight, product)}
    found = [_able(proposal, weight.mask, chosen, proposal.family not in unweighed) for proposal in able]
    found += [Option(name, name, "", refusal, 0, inf, False) for name, refusal in refusals]
    return sorted(found, key=lambda option: option.seconds)


def _able(proposal: Proposal, mask: np.ndarray, chosen: Proposal, weighed: bool) -> Option:
    layout, name = proposal.product.layout, proposal.name
    same = layout == chosen.product.layout
    seconds = chosen.seconds if same else proposal.seconds
    return Option(proposal.family, name, str(layout), None, proposal.nbytes(mask), seconds, same, weighed)
