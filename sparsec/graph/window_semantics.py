"""The meaning in NumPy of convolutions and pooling over windows of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.ir.types import is_float, sums

Array = np.ndarray


def in_sums(x: Array) -> Array:
    """Return factors in the type in which their products are added up."""
    return x.astype(sums(x.dtype.name), copy=False)


def _windows(
    x: Array, size: Sequence[int], strides: Any, padding: Any, dilation: Any, fill: float, ceil_mode: bool = False
) -> Array:
    """Every window of an image [N, C, H, W], as [N, C, H', W', kernel height, kernel width]."""
    top, left, bottom, right = padding if len(padding) == 4 else (*padding, *padding)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    if ceil_mode:
        bottom += _ragged(x.shape[2] + top, bottom, reach[0], strides[0])
        right += _ragged(x.shape[3] + left, right, reach[1], strides[1])
    x = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1], :: dilation[0], :: dilation[1]]


def _ragged(extent: int, padding: int, reach: int, stride: int) -> int:
    """The padding more that lets a last window count that is not full, if it starts inside the image."""
    missing = -(extent + padding - reach) % stride
    return missing if extent + padding + missing - reach < extent else 0


def conv2d(
    x: Array,
    w: Array,
    strides: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
    blank: int = 0,
    **_: Any,
) -> Array:
    """Convolve images [N, C, H, W] with weights [O, C / groups, r, s]; around them stands `blank`."""
    x, w = in_sums(x), in_sums(w)
    windows = _windows(x, w.shape[2:], strides, padding, dilation, blank)
    inputs, weights = np.split(windows, groups, axis=1), np.split(w, groups)
    return np.concatenate(
        [np.einsum("nchwrs,ocrs->nohw", i, k, optimize=True) for i, k in zip(inputs, weights, strict=True)], axis=1
    )


def conv1d(
    x: Array,
    w: Array,
    strides: Any = (1,),
    padding: Any = (0, 0),
    dilation: Any = (1,),
    groups: int = 1,
    blank: int = 0,
    **_: Any,
) -> Array:
    """Convolve signals [N, C, W] with weights [O, C / groups, s]; around them stands `blank`."""
    padding = (0, padding[0], 0, padding[-1])
    return conv2d(x[:, :, None], w[:, :, None], (1, *strides), padding, (1, *dilation), groups, blank)[:, :, 0]


def max_pool2d(
    x: Array, pool_size: Any, strides: Any, padding: Any, dilation: Any = (1, 1), ceil_mode: bool = False, **_: Any
) -> Array:
    """Return the maximum of each window of images [N, C, H, W]."""
    lowest = -np.inf if is_float(x.dtype) else np.iinfo(x.dtype).min
    return _windows(x, pool_size, strides, padding, dilation, lowest, ceil_mode).max(axis=(4, 5))


def avg_pool2d(
    x: Array,
    pool_size: Any,
    strides: Any,
    padding: Any,
    dilation: Any = (1, 1),
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    **_: Any,
) -> Array:
    """Return the mean of each window of images [N, C, H, W], with or without what is outside of them."""
    total = _windows(x, pool_size, strides, padding, dilation, 0, ceil_mode).sum(axis=(4, 5))
    if count_include_pad:
        return total / np.prod(pool_size)
    return total / _windows(np.ones_like(x), pool_size, strides, padding, dilation, 0, ceil_mode).sum(axis=(4, 5))


def adaptive_avg_pool2d(x: Array, output_size: Any = None, **_: Any) -> Array:
    """Return the means of so many parts of the height and the width of images [N, C, H, W]."""
    height, width = output_size or x.shape[2:]
    rows = [slice(i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height)) for i in range(height)]
    columns = [slice(j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width)) for j in range(width)]
    return np.stack([np.stack([x[:, :, r, c].mean((2, 3)) for c in columns], -1) for r in rows], -2)
