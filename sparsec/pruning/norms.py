"""How large the inputs of a layer are: sums of squares over all that a weight is multiplied by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray


def linear_squares(x: NDArray[np.floating], axis: int = -1) -> NDArray[np.float64]:
    """Sum of squares at each coordinate of an axis, over all others."""
    squares = np.square(np.moveaxis(x, axis, -1).astype(np.float64))
    return squares.reshape(-1, squares.shape[-1]).sum(axis=0)


def conv_squares(
    x: NDArray[np.floating],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
) -> NDArray[np.float64]:
    """Sum of squares of what each tap of a convolution meets, over all positions.

    Parameters
    ----------
    x : [n, channels, spatial …]
    kernel, strides, pads, dilations : an entry for each spatial axis; pads before and after

    Returns
    -------
    float64 [channels * taps]
        The taps innermost, as in a weight.
    """
    squares = np.pad(np.square(x.astype(np.float64)).sum(axis=0), [(0, 0), *pads])
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    extents = [size - far for size, far in zip(squares.shape[1:], reach, strict=True)]
    sums = []
    for tap in product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        met = [slice(s, s + e, step) for s, e, step in zip(starts, extents, strides, strict=True)]
        sums.append(squares[tuple([slice(None), *met])].reshape(len(squares), -1).sum(axis=1))
    return np.stack(sums, axis=1).reshape(-1)
