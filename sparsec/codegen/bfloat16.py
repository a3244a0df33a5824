"""Round to bfloat16.

TVM rounds by adding half a unit to the bits of a float32, which in some NaN carries out of the mantissa and makes a
zero or an infinity of them.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.tirx import Cast

_INFINITY, _QUIET = 0x7F800000, 0x40


def round_to_bfloat16(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Write out each conversion of a float32 to bfloat16: to nearest even, and NaN stays NaN.

    Parameters
    ----------
    function : not vectorised yet
    """

    def expand(cast: Any) -> Any:
        if str(cast.ty.dtype) != "bfloat16" or str(cast.value.ty.dtype) != "float32":
            return cast
        bits = tirx.Var("bits", "uint32")
        upper = bits >> _u32(16)
        rounded = (bits + (upper & _u32(1)) + _u32(0x7FFF)) >> _u32(16)
        is_nan = (bits & _u32(0x7FFFFFFF)) > _u32(_INFINITY)
        half = Cast("uint16", tirx.Select(is_nan, upper | _u32(_QUIET), rounded))
        return tirx.Let(bits, tirx.reinterpret("uint32", cast.value), tirx.reinterpret("bfloat16", half))

    return function.with_body(tvm_ffi.structural_map(function.body, (Cast, expand), order="post"))


def _u32(value: int) -> Any:
    return tirx.const(value, "uint32")
