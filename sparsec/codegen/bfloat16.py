"""Convert to and from bfloat16.

TVM's own conversion rounds by adding half a unit to the bits of a float32, which in some NaN carries out of the
mantissa and makes a zero or an infinity of them. It does not look for conversions inside a reinterpretation either, so
all of them are written out here.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.tirx import Cast

_INFINITY, _QUIET = 0x7F800000, 0x40


def write_out_bfloat16(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Write each conversion to or from bfloat16 as arithmetic on bits.

    Parameters
    ----------
    function : not vectorised yet
    """

    def expand(cast: Any) -> Any:
        source, target = str(cast.value.ty.dtype), str(cast.ty.dtype)
        if source == "bfloat16":
            return _as(_widened(cast.value), target)
        return _rounded(_as(cast.value, "float32")) if target == "bfloat16" else cast

    return function.with_body(tvm_ffi.structural_map(function.body, (Cast, expand), order="post"))


def _widened(value: Any) -> Any:
    bits = Cast("uint32", tirx.reinterpret("uint16", value))
    return tirx.reinterpret("float32", bits << _u32(16))


def _rounded(value: Any) -> Any:
    """Round to nearest even, and let NaN be NaN."""
    bits = tirx.Var("bits", "uint32")
    upper = bits >> _u32(16)
    rounded = (bits + (upper & _u32(1)) + _u32(0x7FFF)) >> _u32(16)
    is_nan = (bits & _u32(0x7FFFFFFF)) > _u32(_INFINITY)
    half = Cast("uint16", tirx.Select(is_nan, upper | _u32(_QUIET), rounded))
    return tirx.Let(bits, tirx.reinterpret("uint32", value), tirx.reinterpret("bfloat16", half))


def _as(value: Any, dtype: str) -> Any:
    return value if str(value.ty.dtype) == dtype else Cast(dtype, value)


def _u32(value: int) -> Any:
    return tirx.const(value, "uint32")
