"""After how many rows and columns the structure of a pruned weight repeats.

Layouts such as 2:4, blocks and tiles count coordinates from the start of the matrix. A channel that is removed moves
all that follow, and the structure is lost to the layout, unless whole periods are removed.
"""

from __future__ import annotations

import math

import numpy as np

FULL = 0.95
"""The part of a structure's elements that must be nonzero for the structure to describe the zeros."""

TILES = (256, 128, 64, 32, 16, 8, 4, 2)
"""Rows that may share their columns, as in blocks and tiles."""

GROUPS = (*range(2, 17), 32, 64)
"""Columns of which each row may keep so many, as in N:M, and permuted diagonals."""


SAMPLE = 64
"""Rows or columns that are looked at."""


def find_periods(weight: np.ndarray) -> tuple[int, int]:
    """The periods along the first two axes, 1 where the zeros have no structure.

    >>> find_periods(np.kron([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [1, 0, 0, 1, 0]], np.ones((4, 1))))
    (4, 1)

    Parameters
    ----------
    weight : of a linear layer or convolution, ``[outputs, inputs, ...]``
    """
    mask = weight.reshape(len(weight), -1) != 0
    taps = math.prod(weight.shape[2:])
    rows, columns = mask[_sample(mask.any(axis=1))], mask[:, _sample(mask.any(axis=0))]
    if not rows.size or rows[:, rows.any(axis=0)].mean() >= FULL:
        return 1, 1
    along_columns = math.lcm(_period(rows), _tile(rows.T))
    return math.lcm(_period(columns.T), _tile(columns)), math.lcm(along_columns, taps) // taps


def _sample(live: np.ndarray) -> np.ndarray:
    """The places of some that are live, all over the range."""
    places = np.flatnonzero(live)
    return places[np.linspace(0, len(places) - 1, min(SAMPLE, len(places))).astype(int)] if len(places) else places


def _tile(mask: np.ndarray) -> int:
    """How many rows share their columns; rows of zeros do not count."""
    rows = len(mask)
    for tile in TILES:
        if tile < rows:
            padded = np.pad(mask, ((0, -rows % tile), (0, 0))).reshape(-1, tile, mask.shape[1])
            area = (padded.any(axis=1).sum(axis=1) * padded.any(axis=2).sum(axis=1)).sum()
            if mask.sum() >= FULL * area:
                return tile
    return 1


def _period(mask: np.ndarray) -> int:
    """The length of runs of columns of which every row keeps the same number; dead ones do not count."""
    for length in GROUPS:
        whole = mask.shape[1] // length * length
        counts = mask[:, :whole].reshape(len(mask), -1, length).sum(axis=2)
        counts = counts[:, counts.any(axis=0)]
        if whole > length and counts.size and counts.max() < length and (counts == counts.max()).mean() >= FULL:
            return length
    return 1
