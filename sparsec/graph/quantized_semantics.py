"""The meaning in NumPy of the operators on quantised numbers; see `sparsec.graph.quantized`."""

from __future__ import annotations

import numpy as np


def _parameter(value: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A scale or zero, one for the tensor or one for each index of an axis."""
    return value.reshape([-1 if place == axis % rank else 1 for place in range(rank)] if value.size > 1 else ())


def quantize(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int, out_dtype: str) -> np.ndarray:
    """Return the integers of numbers, float32 until they are stored: `clip(round(x / scale) + zero)`."""
    limits = np.iinfo(out_dtype)
    steps = np.round(x.astype(np.float32) / _parameter(scale, axis, x.ndim).astype(np.float32))
    return np.clip(steps + _parameter(zero, axis, x.ndim).astype(np.float32), limits.min, limits.max)


def dequantize(q: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int, out_dtype: str) -> np.ndarray:
    """Return the numbers of integers, float32: `(q − zero) · scale`."""
    steps = q.astype(np.float32) - _parameter(zero, axis, q.ndim).astype(np.float32)
    return steps * _parameter(scale, axis, q.ndim).astype(np.float32)


def flip_sign(q: np.ndarray) -> np.ndarray:
    """Return integers of 8 bits in the other signedness, 128 more or less."""
    return (q ^ q.dtype.type(-128 if q.dtype == np.int8 else 128)).view(np.uint8 if q.dtype == np.int8 else np.int8)
