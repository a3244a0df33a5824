"""What every pattern has in common: text, bounds of its sparsity, and a choice of what to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsec.errors import PruningError

Mask = NDArray[np.bool_]
"""True where a weight is kept."""


@dataclass(frozen=True, eq=False)
class Scores:
    """How much each weight of a matrix matters; the least are pruned first.

    Parameters
    ----------
    values : float64 [rows, depth], at least 0
        A row for each output. The depth of a convolution is its input channels and taps, the taps innermost.
    taps : int
        Spatial positions of a kernel, 1 where there are none.
    """

    values: NDArray[np.float64]
    taps: int = 1


class Pattern(ABC):
    """A structure of zeros. Subclasses are frozen dataclasses, and their fields the options.

    A pattern reads and prints itself as `syntax` says, a regular expression whose groups are named after the fields.

    >>> from sparsec.pruning import NM, parse_pattern
    >>> parse_pattern("2:4"), str(NM(2, 4))
    (NM(n=2, m=4), '2:4')
    """

    syntax: ClassVar[str]
    example: ClassVar[str]

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest sparsity that the pattern can have; equal where its options fix it."""
        return 0.0, 1.0

    @property
    def drops_rows(self) -> bool:
        """Whether whole outputs go, which must not happen to the outputs of a model."""
        return False

    @property
    def takes_inputs(self) -> bool:
        """Whether the inputs of other layers go that were outputs which are gone, and what is added to these."""
        return False

    def objection(self, shape: tuple[int, int], taps: int) -> str:
        """Why a matrix of this shape cannot take the pattern, in words that follow its name; empty where it can."""
        return ""

    @abstractmethod
    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        """Choose what to keep of some matrices, which are ranked together.

        Parameters
        ----------
        scores : of each matrix
        sparsity : the part of all their weights that is to go, within `bounds`

        Returns
        -------
        list of bool [rows, depth]
            True where a weight stays. Among equal scores those that come first stay.
        """

    def _check(self, holds: bool, what: str) -> None:
        """Refuse options, from `__post_init__`."""
        if not holds:
            raise PruningError(f"{self} is no pattern: {what}")
