"""Element types, as NumPy writes them; importing this gives NumPy the name bfloat16."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np

HALVES = ("float16", "bfloat16")
"""Types to store numbers in; arithmetic on them is carried out in float32, and what is stored is rounded once."""

SINGLE_OR_HALF = (*HALVES, "float32")
"""What products are stored in whose sums are float32."""

FLOATS = (*HALVES, "float32", "float64")

FLOATS_OF_8_BITS = ("float8_e4m3fn", "float8_e5m2")
"""What some instructions multiply; nothing else takes them."""

INTEGERS = tuple(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))

NARROW = ("int4", "int8")
"""Signed integers that weights are stored as where activations and sums are floats."""

BYTES = ("int8", "uint8")
"""What quantised numbers are stored in: results are computed in float32, rounded to nearest even, and saturate."""

STORED = (*BYTES, "int32", *SINGLE_OR_HALF)
"""What the operands and results of products are stored in."""


def is_float(dtype: str | np.dtype) -> bool:
    """Whether elements are floating-point numbers; NumPy calls the kind of bfloat16 void."""
    return str(dtype) in FLOATS + FLOATS_OF_8_BITS


def arithmetic(dtype: str) -> str:
    """Return the type in which what is stored as `dtype` is computed.

    >>> arithmetic("bfloat16"), arithmetic("uint8"), arithmetic("int32")
    ('float32', 'float32', 'int32')
    """
    return "float32" if dtype in HALVES + BYTES + FLOATS_OF_8_BITS else dtype


def widest(dtypes: list[str]) -> str | None:
    """Return the widest float of these types, each as arithmetic takes it; None if there is none."""
    floats = [arithmetic(dtype) for dtype in dtypes if is_float(dtype)]
    return max(floats, key=FLOATS.index, default=None)


@cache  # rules ask for every candidate
def sums(dtype: str) -> str:
    """Return the type in which products of `dtype` are added up: no sum of float32 or int32 is kept in less.

    >>> sums("float16"), sums("int8")
    ('float32', 'int32')
    """
    if is_float(dtype):
        return arithmetic(dtype)
    return dtype if np.dtype(dtype).itemsize > 4 else "int32"


def stored_bits(dtype: str) -> int:
    """Return how many bits a stored number takes.

    >>> stored_bits("int4"), stored_bits("float32")
    (4, 32)
    """
    return 4 if dtype == "int4" else 8 * np.dtype(dtype).itemsize


def lowest(dtype: str) -> float:
    """Return the lowest finite number of a type.

    >>> lowest("float16")
    -65504.0
    """
    return float(ml_dtypes.finfo(dtype).min)
