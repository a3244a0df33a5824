"""Intrinsics of LLVM with vectors of bfloat16, for which TVM has uint16 only, written in LLVM's own language."""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, StringImm
from tvm.tirx.stmt import AttrStmt

_INTRINSIC = "bfloat16.llvm."
_LLVM = {"float32": "float", "uint16": "bfloat"}


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
