"""Keep NaN in conversions to bfloat16.

TVM rounds by adding half a unit to the bits of a float32, which in some NaN carries out of the mantissa and makes a
zero or an infinity of them.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call
from tvm.ir.prim.expr import RShift
from tvm.tirx import Cast

_INFINITY, _QUIET = 0x7F800000, 0x40


def keep_nan() -> Any:
    """Return the pass that follows `BF16ComputeLegalize`, before vectorisation.

    Before:  `reinterpret("bfloat16", uint16((bits + (bits >> 16 & 1) + 0x7fff) >> 16))`
    After:   the same, but for `bits` of a NaN their upper half, made quiet
    """

    def select(call: Any) -> Any:
        bits = _rounded(call)
        if bits is None:
            return call
        is_nan = (bits & _u32(0x7FFFFFFF)) > _u32(_INFINITY)
        upper = tirx.Select(is_nan, bits >> _u32(16) | _u32(_QUIET), call.args[0].value)
        return tirx.reinterpret("bfloat16", Cast("uint16", upper))

    def transform(function: tirx.PrimFunc, module: tvm.IRModule, context: Any) -> tirx.PrimFunc:
        return function.with_body(tvm_ffi.structural_map(function.body, (Call, select), order="post"))

    return tirx.transform.prim_func_pass(transform, opt_level=0, name="KeepNaN")


def _rounded(call: Any) -> Any:
    """Return the bits of the float32 that a call rounds to bfloat16; None for any other call."""
    if getattr(call.op, "name", "") != "tirx.reinterpret" or str(call.ty.dtype) != "bfloat16":
        return None
    shifted = getattr(call.args[0], "value", None)
    total = shifted.a if isinstance(shifted, RShift) else None
    return total.a if isinstance(total, tirx.Add) else None


def _u32(value: int) -> Any:
    return tirx.const(value, "uint32")
