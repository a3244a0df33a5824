"""Which units go: the lowest scores of several matrices together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns.base import Mask, Scores


def weights_in(scores: Sequence[Scores]) -> int:
    """The number of weights of all matrices."""
    return sum(each.values.size for each in scores)


def lowest(scores: Sequence[NDArray[np.float64]], count: int) -> list[Mask]:
    """Choose the lowest scores of several arrays together.

    Parameters
    ----------
    scores : arrays of any shape
    count : how many to choose

    Returns
    -------
    list of bool arrays of the same shapes
        Of equal scores the last are chosen: of the last array, and in it of the last row.
    """
    flat = np.concatenate([each.ravel() for each in scores])
    chosen = np.zeros(len(flat), bool)
    if count > 0:
        limit = np.partition(flat, count - 1)[count - 1]
        chosen = flat < limit
        equal = np.flatnonzero(flat == limit)
        chosen[equal[len(equal) - (count - np.count_nonzero(chosen)) :]] = True
    return _split(chosen, scores)


def lowest_units(scores: Sequence[NDArray[np.float64]], sizes: Sequence[NDArray[np.int64]], dropped: int) -> list[Mask]:
    """Choose the units with the lowest scores, as many as hold `dropped` weights at most; otherwise as `lowest`.

    Parameters
    ----------
    scores : an array of units for each matrix, of any shape
    sizes : the number of weights in each unit, of the same shapes
    dropped : weights that may go
    """
    flat = np.concatenate([each.ravel() for each in scores])[::-1]
    counts = np.concatenate([each.ravel() for each in sizes])[::-1]
    order = np.argsort(flat, kind="stable")
    chosen = np.zeros(len(flat), bool)
    chosen[order[: np.searchsorted(np.cumsum(counts[order]), dropped, side="right")]] = True
    return _split(chosen[::-1], scores)


def _split(chosen: Mask, scores: Sequence[NDArray[np.float64]]) -> list[Mask]:
    """Give each array its part of a decision on all of them."""
    parts = np.split(chosen, np.cumsum([each.size for each in scores])[:-1])
    return [part.reshape(each.shape) for part, each in zip(parts, scores, strict=True)]


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
