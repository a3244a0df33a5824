"""How the layout and the tiles of a group's product are chosen, in `compile` and `inspect` alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsec.errors import LayoutError
from sparsec.graph.fuse import Group
from sparsec.graph.given_layouts import GivenLayouts
from sparsec.ir.product import Product
from sparsec.schedules.rules.given import propose_given
from sparsec.schedules.rules.product import Proposal
from sparsec.schedules.rules.sparse_activations import propose_skipping
from sparsec.targets import Target

Choose = Callable[[Product, np.ndarray | None, Target], Proposal]


@dataclass(frozen=True)
class Chooser:
    """Proposes for groups.

    Parameters
    ----------
    target : the processor
    choose : what proposes for a weight whose layout is free
    given : layouts that are not to be chosen
    """

    target: Target
    choose: Choose
    given: GivenLayouts

    def __call__(self, group: Group, matrix: np.ndarray | None) -> Proposal:
        """Propose for the product of a group, whose constant weight is float32 [rows, depth]; None for an activation.

        Raises
        ------
        LayoutError : if a given layout cannot hold the weight without loss
        """
        layout = None if matrix is None else self.given(group.label)
        skips = group.nodes[0].attrs.get("sparse_activations")
        try:
            if matrix is not None and skips:
                return propose_skipping(group.product, matrix, layout, self.target)
            if matrix is None or layout is None:
                return self.choose(group.product, matrix, self.target)
            return propose_given(group.product, matrix, layout, self.target)
        except LayoutError as error:
            where = "; give it for some layers only, as LAYER=LAYOUT (in Python layouts={LAYER: LAYOUT})"
            for_all = layout is not None and self.given.for_all(group.label)
            raise LayoutError(f"{group.label}: {error}{where if for_all else ''}") from None
