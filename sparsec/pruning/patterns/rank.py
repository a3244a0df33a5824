"""Which units go: the lowest scores of several matrices together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns.base import Mask, Scores


def weights_in(scores: Sequence[Scores]) -> int:
    """The number of weights of all matrices."""
    return sum(each.values.size for each in scores)


def lowest(scores: Sequence[NDArray[np.float64]], sizes: Sequence[NDArray[np.int64]], dropped: int) -> list[Mask]:
    """Choose the units with the lowest scores, as many as hold `dropped` weights at most.

    Parameters
    ----------
    scores : an array of units for each matrix, of any shape
    sizes : the number of weights in each unit, of the same shapes
    dropped : weights that may go

    Returns
    -------
    list of bool arrays of the same shapes
        True where a unit goes. Of equal units the last go first: the last matrix, and in it the last row.
    """
    flat = np.concatenate([each.ravel() for each in scores])[::-1]
    counts = np.concatenate([each.ravel() for each in sizes])[::-1]
    order = np.argsort(flat, kind="stable")
    gone = np.searchsorted(np.cumsum(counts[order]), dropped, side="right")
    chosen = np.zeros(len(flat), bool)
    chosen[order[:gone]] = True
    ends = np.cumsum([each.size for each in scores])[:-1]
    return [part.reshape(each.shape) for part, each in zip(np.split(chosen[::-1], ends), scores, strict=True)]


def block_scores(values: NDArray[np.float64], r: int, c: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Root mean square of each block of r rows and c columns, and its size; at the edges blocks are smaller."""
    rows, columns = (np.arange(0, extent, step) for extent, step in zip(values.shape, (r, c), strict=True))
    squares = np.add.reduceat(np.add.reduceat(np.square(values), rows, axis=0), columns, axis=1)
    heights, widths = (
        np.diff(starts, append=extent) for starts, extent in zip((rows, columns), values.shape, strict=True)
    )
    sizes = np.outer(heights, widths)
    return np.sqrt(squares / sizes), sizes


def spread(blocks: Mask, r: int, c: int, shape: tuple[int, ...]) -> Mask:
    """Give every weight of a matrix what was decided for its block."""
    return np.repeat(np.repeat(blocks, r, axis=0)[: shape[0]], c, axis=1)[:, : shape[1]]


def best_of_each(values: NDArray[np.float64], count: int) -> Mask:
    """Choose the `count` largest along the last axis, of equal ones the first."""
    chosen = np.zeros(values.shape, bool)
    np.put_along_axis(chosen, np.argsort(-values, axis=-1, kind="stable")[..., :count], True, axis=-1)
    return chosen
