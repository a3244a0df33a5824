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
from sparsec.ir.types import is_float
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
    given : layouts that are not to be chosen; of grouped convolutions, which have zeros between their groups, ``dense``
        leaves the weight free
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
        if matrix is not None and layout == DENSE and not _is_whole(group, matrix):
            layout = None
        skips = group.nodes[0].attrs.get("sparse_activations")
        try:
            if matrix is not None and skips:
                return propose_skipping(group.product, matrix, layout, self.target)
            if matrix is None or layout is None:
                known = matrix is not None and (is_float(group.product.weight.dtype) or _is_whole(group, matrix))
                return self.choose(group.product, matrix, self.target, self.dense and known)
            return propose_given(group.product, matrix, layout, self.target)
        except LayoutError as error:
            where = "; give it for some layers only, as LAYER=LAYOUT (in Python layouts={LAYER: LAYOUT})"
            for_all = layout is not None and self.given.for_all(group.label)
            raise LayoutError(f"{group.label}: {error}{where if for_all else ''}") from None


def _is_whole(group: Group, matrix: np.ndarray) -> bool:
    """Whether the matrix of a product holds nothing but its weight."""
    assert group.anchor is not None and group.anchor.weight.data is not None
    return matrix.size == group.anchor.weight.data.size
