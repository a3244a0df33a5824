"""What the operators of expressions compute, in NumPy: numbers, or arrays [lanes]."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsec.ir.types import is_float

INDEX = np.dtype(np.int64)
"""The type of indices, of which single ones are Python's integers."""

NUMPY = (np.ndarray, np.generic)


def convert(value: Any, dtype: np.dtype) -> Any:
    """Return a number or an array in `dtype`; integers wrap around."""
    if isinstance(value, NUMPY):
        return value if value.dtype == dtype else value.astype(dtype)
    return value if dtype is INDEX else np.int64(value).astype(dtype)


def saturated(value: Any, dtype: np.dtype) -> Any:
    """Return numbers rounded to nearest even, as the nearest integers of a type; NaN is the lowest one."""
    if not is_float(value.dtype):
        return value
    limits = np.iinfo(dtype)
    return np.clip(np.where(np.isnan(value), limits.min, np.rint(value)), limits.min, limits.max).astype(dtype)


def uninitialised(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return an array that shows where it was not written."""
    kind = np.dtype(dtype)
    return np.full(shape, np.nan if is_float(kind) else np.iinfo(kind).max, dtype=kind)


def _popcount(x: Any) -> Any:
    octets = np.array(x)[..., None].view(np.uint8)
    return np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=np.asarray(x).dtype)


def _erf(x: Any) -> Any:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=x.dtype)[()]


def _sigmoid(x: Any) -> Any:
    one = x.dtype.type(1)
    return one / (one + np.exp(-x))


def _rsqrt(x: Any) -> Any:
    return x.dtype.type(1) / np.sqrt(x)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "^": operator.xor,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "and": operator.and_,
    "abs": np.abs,
    "erf": _erf,
    "exp": np.exp,
    "log": np.log,
    "max": np.maximum,
    "min": np.minimum,
    "popcount": _popcount,
    "pow": np.power,
    "round": np.rint,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
