"""What TVM lacks for bfloat16: NaN that stay NaN, bits that stay bits, and vectors of one number.

TVM rounds by adding half a unit to the bits of a float32, which in some NaN carries out of the mantissa and makes a
zero or an infinity of them.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, TensorLoad
from tvm.ir.prim.expr import RShift
from tvm.tirx import Cast

from sparsec.codegen.registers import hide_buffers, restore_buffers

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


def legalize_bfloat16() -> list[Any]:
    """Return the passes that compute in float32, and round what is stored as bfloat16.

    TVM keeps what a kernel allocates in float32 too; here an instruction may take its bits, and then it stays bfloat16:

        tile = alloc((64,), "bfloat16"); f(reinterpret("uint16x8", tile[0:8]))
    """
    hidden: list[Any] = []

    def hide(function: tirx.PrimFunc, module: tvm.IRModule, context: Any) -> tirx.PrimFunc:
        function = function.with_body(tvm_ffi.structural_map(function.body, (Call, _once), order="post"))
        read: set[Any] = set()

        def find(call: Any) -> None:
            if _is_reinterpret(call) and isinstance(call.args[0], TensorLoad):
                read.add(call.args[0].source)

        tvm_ffi.structural_walk(function.body, (Call, find))
        return hide_buffers(function, lambda b: str(b.dtype) == "bfloat16" and b in read, hidden)

    def restore(function: tirx.PrimFunc, module: tvm.IRModule, context: Any) -> tirx.PrimFunc:
        return restore_buffers(function, hidden)

    def as_pass(transform: Any) -> Any:
        return tirx.transform.prim_func_pass(transform, opt_level=0, name=transform.__name__)

    return [as_pass(hide), tirx.transform.BF16ComputeLegalize(), as_pass(restore), keep_nan()]


def _is_reinterpret(node: Any) -> bool:
    return isinstance(node, Call) and getattr(node.op, "name", "") == "tirx.reinterpret"


def _once(call: Any) -> Any:
    """Take bits as another type once instead of twice."""
    if not _is_reinterpret(call) or not _is_reinterpret(call.args[0]):
        return call
    inner, dtype = call.args[0].args[0], str(call.ty.dtype)
    return inner if str(inner.ty.dtype) == dtype else tirx.reinterpret(dtype, inner)


def spread_bits() -> Any:
    """Return the pass that follows vectorisation, since TVM's next ones keep the type of what is spread to all lanes.

    Before:  `Broadcast(x, 8)` of a bfloat16 x
    After:   `reinterpret("bfloat16x8", Broadcast(reinterpret("uint16", x), 8))`
    """

    def spread(node: Any) -> Any:
        if str(node.value.ty.dtype) != "bfloat16":
            return node
        bits = tirx.reinterpret("uint16", node.value)
        return tirx.reinterpret(str(node.ty.dtype), tirx.Broadcast(bits, node.lanes))

    def transform(function: tirx.PrimFunc, module: tvm.IRModule, context: Any) -> tirx.PrimFunc:
        return function.with_body(tvm_ffi.structural_map(function.body, (tirx.Broadcast, spread), order="post"))

    return tirx.transform.prim_func_pass(transform, opt_level=0, name="SpreadBits")


def _rounded(call: Any) -> Any:
    """Return the bits of the float32 that a call rounds to bfloat16; None for any other call."""
    if getattr(call.op, "name", "") != "tirx.reinterpret" or str(call.ty.dtype) != "bfloat16":
        return None
    shifted = getattr(call.args[0], "value", None)
    total = shifted.a if isinstance(shifted, RShift) else None
    return total.a if isinstance(total, tirx.Add) else None


def _u32(value: int) -> Any:
    return tirx.const(value, "uint32")
