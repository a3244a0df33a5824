"""A constant weight and what families of layouts ask of its zeros, each counted once."""

from __future__ import annotations

from functools import cached_property

import numpy as np


class Weight:
    """A weight of which only the zeros matter.

    Parameters
    ----------
    matrix : [rows, depth]
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.mask = matrix != 0
        self.rows, self.depth = self.mask.shape
        self._blocks: dict[tuple[int, int], int] = {}

    @cached_property
    def entries(self) -> int:
        """How many elements are not zero."""
        return int(np.count_nonzero(self.mask))

    def blocks(self, r: int, c: int = 1) -> int:
        """Return how many r × c blocks hold an entry, ragged ones among them."""
        if (r, c) == (1, 1):
            return self.entries
        if (r, c) not in self._blocks:
            mask = self.mask
            if mask.shape[0] % r or mask.shape[1] % c:
                mask = np.pad(mask, [(0, -mask.shape[0] % r), (0, -mask.shape[1] % c)])
            rows = np.logical_or.reduceat(mask, np.arange(0, len(mask), r), axis=0)
            blocks = np.logical_or.reduceat(rows, np.arange(0, rows.shape[1], c), axis=1) if c > 1 else rows
            self._blocks[r, c] = int(np.count_nonzero(blocks))
        return self._blocks[r, c]
