"""A constant weight and what families of layouts ask of its zeros, each counted once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sparsec.ir.layout import Layout
from sparsec.ir.structures import kernel_shapes
from sparsec.ir.sums import Sum


class Weight:
    """A weight of which only the zeros matter.

    Parameters
    ----------
    matrix : [rows, depth]
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.mask = np.ascontiguousarray(matrix != 0)
        self.rows, self.depth = self.mask.shape
        self._jammed: dict[tuple[int, int], Weight] = {}
        self._most_of: dict[int, int] = {}
        self._patterns: dict[int, tuple[int, int]] = {}
        self._refusals: dict[Layout | Sum, str | None] = {}

    @cached_property
    def entries(self) -> int:
        """How many elements are not zero."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def condensed(self) -> Weight:
        """The weight with its empty rows at the end."""
        return Weight(self.mask[np.argsort(~self.mask.any(axis=1), kind="stable")])

    @cached_property
    def empty_rows(self) -> int:
        """How many rows have no entry."""
        return self.rows - int(np.count_nonzero(self.mask.any(axis=1)))

    @cached_property
    def most_in_row(self) -> int:
        """How many entries the fullest row has."""
        return int(np.count_nonzero(self.mask, axis=1).max())

    def jammed(self, r: int, c: int = 1) -> Weight:
        """Return which r × c blocks hold an entry, ragged ones among them."""
        if (r, c) == (1, 1):
            return self
        if (r, c) not in self._jammed:
            if c in (2, 4, 8) and self.depth % c == 0:  # as one number; the blocks of rows may be known already
                mask = self.jammed(r).mask.view(f"u{c}") != 0
            elif c > 1:
                mask = np.logical_or.reduceat(self.jammed(r).mask, np.arange(0, self.depth, c), axis=1)
            elif self.rows % r:
                mask = np.logical_or.reduceat(self.mask, np.arange(0, self.rows, r), axis=0)
            else:
                mask = self.mask.reshape(-1, r, self.depth).any(axis=1)
            self._jammed[r, c] = Weight(mask)
        return self._jammed[r, c]

    def blocks(self, r: int, c: int = 1) -> int:
        """Return how many r × c blocks hold an entry, ragged ones among them."""
        return self.jammed(r, c).entries

    def slots(self, r: int) -> int:
        """Return how many entries the fullest rows have together, of each slice of r rows of alike length."""
        counts = np.sort(np.count_nonzero(self.mask, axis=1))
        ragged = len(counts) % r
        return int(counts[:ragged].max(initial=0) + counts[ragged + r - 1 :: r].sum())

    def full_blocks(self, r: int) -> tuple[int, int]:
        """Return how many r × 1 blocks are at least half full, and how many entries stand outside of them.

        The rows must be a multiple of r.
        """
        counts = self.mask.reshape(-1, r, self.depth).sum(axis=1, dtype=np.uint8)
        full = 2 * counts >= r
        return int(np.count_nonzero(full)), self.entries - int(counts[full].sum())

    def refusal(self, layout: Layout | Sum) -> str | None:
        """Say why a layout cannot hold the weight, or return None if it can."""
        if layout not in self._refusals:
            self._refusals[layout] = layout.refusal(self.mask)
        return self._refusals[layout]

    def most_of(self, m: int) -> int:
        """Return how many entries the fullest group of m = 2, 4, 8 or 16 columns of a row has; m if it is ragged."""
        if self.depth % m:
            return m
        if m not in self._most_of:
            self._most_of[m] = self._count_most(m)
        return self._most_of[m]

    def _count_most(self, m: int) -> int:
        counts = _MOST[min(m, 8)][np.packbits(self.mask)]
        if m == 16:
            counts = counts[: len(counts) // 2 * 2].reshape(-1, 2).sum(axis=1)
        return int(counts.max())

    def patterns(self, taps: int) -> tuple[int, int]:
        """Return how many of so many taps each kernel keeps, and in how many shapes; zeros where they are not few."""
        if taps not in self._patterns:
            self._patterns[taps] = kernel_shapes(self.mask, taps)
        return self._patterns[taps]


def _most(m: int) -> np.ndarray:
    """Return for each byte how many bits the fullest of its runs of m has, uint8 [256]."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return bits.reshape(256, -1, m).sum(axis=2, dtype=np.uint8).max(axis=1)


_MOST = {m: _most(m) for m in (2, 4, 8)}
