"""How the layout and the tiles of a group's product are chosen, in `compile` and `inspect` alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsec.errors import LayoutError
from sparsec.graph.fuse import Group
from sparsec.graph.given_layouts import GivenLayouts
from sparsec.ir.named import DENSE
from sparsec.ir.product import Product
from sparsec.schedules.rules.families import holds_groups_alone
from sparsec.schedules.rules.given import propose_given
from sparsec.schedules.rules.product import Proposal, propose
from sparsec.schedules.rules.sparse_activations import propose_skipping
from sparsec.targets import Target

Choose = Callable[[Product, np.ndarray | None, Target, bool], Proposal]
"""Of a product, its constant weight if it has one, the target, and whether only dense layouts are to be thought of."""


@dataclass(frozen=True)
class Chooser:
    """Proposes for groups.

    Parameters
    ----------
    target : the processor
    choose : what proposes for a weight whose layout is free
    given : layouts that are not to be chosen; of grouped convolutions ``dense`` is the best dense layout of their
        groups, and leaves the weight free where integers have none
    dense : whether weights that are free take the best dense layout, but for grouped convolutions of integers, which
        have none of their groups alone
    """

    target: Target
    choose: Choose
    given: GivenLayouts
    dense: bool = False

    def __call__(self, group: Group, matrix: np.ndarray | None) -> Proposal:
        """Propose for the product of a group, whose constant weight is float32 [rows, depth]; None for an activation.

        Raises
        ------
        LayoutError : if a given layout cannot hold the weight without loss
        """
        assert group.anchor is not None
        if matrix is not None and not group.anchor.is_layer:
            return propose(group.product, matrix, self.target, only_dense=True)
        layout = None if matrix is None else self.given(group.label)
        only_dense, whole = self.dense, group.product.groups == 1
        if layout == DENSE and not whole:
            layout, only_dense = None, True
        skips = group.nodes[0].attrs.get("sparse_activations")
        try:
            if matrix is not None and skips:
                return propose_skipping(group.product, matrix, layout, self.target)
            if matrix is None or layout is None:
                has_dense = matrix is not None and (whole or holds_groups_alone(group.product))
                return self.choose(group.product, matrix, self.target, only_dense and has_dense)
            return propose_given(group.product, matrix, layout, self.target)
        except LayoutError as error:
            where = "; give it for some layers only, as LAYER=LAYOUT (in Python layouts={LAYER: LAYOUT})"
            for_all = layout is not None and self.given.for_all(group.label)
            raise LayoutError(f"{group.label}: {error}{where if for_all else ''}") from None
