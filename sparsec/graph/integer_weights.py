"""Weights as integers and scales: `W[n, k] ≈ scale · integer`, a scale for each row or for groups of its depths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

GREATEST = {"int4": 7, "int8": 127}
"""The largest magnitude that a weight is rounded to; the type has one more below zero, which is left out."""


@dataclass(frozen=True)
class IntegerWeight:
    """A weight whose elements are integers times scales.

    Parameters
    ----------
    integers : int8 or int4, of the shape of the weight, outputs first
    scales : float32 `[rows, groups]`
    group : how many consecutive elements of a row share a scale; 0 where all of them do
    """

    integers: np.ndarray
    scales: np.ndarray
    group: int = 0

    def dense(self) -> np.ndarray:
        """Return the weight that this stands for, float32."""
        rows = len(self.integers)
        matrix = self.integers.reshape(rows, -1).astype(np.float32)
        scales = self.scales if self.group == 0 else np.repeat(self.scales, self.group, axis=1)[:, : matrix.shape[1]]
        return (matrix * scales).reshape(self.integers.shape)


def round_to_integers(weight: np.ndarray, dtype: str, group: int = 0) -> IntegerWeight:
    """Round a weight to integers, so that none is off by more than half of its scale.

    The scale of a row, or of a group in it, is its largest magnitude over 127 or 7. Zeros stay zeros.

    >>> round_to_integers(np.array([[1.0, -0.5, 0.0, 127.0]], np.float32), "int8").integers.tolist()
    [[1, 0, 0, 127]]

    Parameters
    ----------
    weight : floats without NaN and infinities, outputs first
    dtype : {"int8", "int4"}
    group : as in `IntegerWeight`
    """
    blocks, greatest = in_groups(weight.astype(np.float64), group), GREATEST[dtype]
    scales = (np.abs(blocks).max(axis=2) / greatest).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = blocks / scales.astype(np.float64)[..., None]
    nearest = np.rint(np.clip(np.where(np.isfinite(steps), steps, 0), -greatest, greatest))
    return IntegerWeight(out_of_groups(nearest, weight.shape).astype(np.int8).astype(dtype), scales, group)


def in_groups(weight: np.ndarray, group: int) -> np.ndarray:
    """Return the groups of each row, `[rows, groups, elements]`, the last one filled up with zeros."""
    rows, depth = len(weight), weight[0].size
    width = group or depth
    padded = np.zeros((rows, -(-depth // width), width), weight.dtype)
    padded.reshape(rows, -1)[:, :depth] = weight.reshape(rows, -1)
    return padded


def out_of_groups(groups: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weight of which `in_groups` made groups."""
    return groups.reshape(shape[0], -1)[:, : math.prod(shape[1:])].reshape(shape)


def relative_error(weight: np.ndarray, stored: np.ndarray) -> float:
    """Return by how much stored weights are off: the norm of the difference over that of the weight, 0 for zeros.

    Only finite weights count.
    """
    finite = np.isfinite(weight)
    exact = weight[finite].astype(np.float64)
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(exact - stored[finite].astype(np.float64))) / size if size else 0.0
