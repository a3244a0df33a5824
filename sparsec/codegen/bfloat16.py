"""What TVM lacks for bfloat16: NaN that stay NaN, and instructions of processors.

TVM rounds by adding half a unit to the bits of a float32, which in some NaN carries out of the mantissa and makes a
zero or an infinity of them. And it has no vectors of bfloat16 for LLVM, only of the uint16 that hold their bits.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, StringImm
from tvm.ir.prim.expr import RShift
from tvm.tirx import Cast
from tvm.tirx.stmt import AttrStmt

_INFINITY, _QUIET = 0x7F800000, 0x40
_INTRINSIC = "bfloat16.llvm."
_LLVM = {"float32": "float", "uint16": "bfloat"}


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


def define_intrinsics(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Define the external functions `bfloat16.llvm.…` that a lowered function calls, for LLVM to inline.

    Each is the intrinsic `llvm.…`, with bits of bfloat16, in vectors of uint16, for its operands of bfloat16.
    """
    called: dict[str, Any] = {}

    def visit(call: Any) -> None:
        if getattr(call.op, "name", "") == "tirx.call_pure_extern" and call.args[0].value.startswith(_INTRINSIC):
            called[call.args[0].value] = call

    tvm_ffi.structural_walk(function.body, (Call, visit))
    for name, call in called.items():
        text = StringImm(_wrapper(name, str(call.ty.dtype), [str(arg.ty.dtype) for arg in call.args[1:]]))
        function = function.with_body(AttrStmt(StringImm(name), "pragma_import_llvm", text, function.body))
    return function


def _wrapper(name: str, result: str, operands: list[str]) -> str:
    """The function in LLVM's language."""
    given = [_llvm_type(operand).replace("bfloat", "i16") for operand in operands]
    taken = [_llvm_type(operand) for operand in operands]
    numbers = range(len(operands))
    intrinsic = f"{_llvm_type(result)} @{name.removeprefix('bfloat16.')}"
    return "\n".join(
        [
            f"declare {intrinsic}({', '.join(taken)})",
            f"define internal {_llvm_type(result)} @{name}({_list(given, 'a', numbers)}) alwaysinline {{",
            *(f"  %b{n} = bitcast {given[n]} %a{n} to {taken[n]}" for n in numbers),
            f"  %c = call {intrinsic}({_list(taken, 'b', numbers)})",
            f"  ret {_llvm_type(result)} %c",
            "}",
        ]
    )


def _list(types: list[str], name: str, numbers: range) -> str:
    return ", ".join(f"{types[n]} %{name}{n}" for n in numbers)


def _llvm_type(dtype: str) -> str:
    element, lanes = dtype.split("x")
    return f"<{lanes} x {_LLVM[element]}>"
