"""Keep register tiles on the stack, where LLVM finds and promotes them.

TVM turns every local buffer into a workspace that the runtime is asked for. Its address escapes into those calls, so
LLVM must store the sums of a tile to it, row after row, although nothing reads them there. So local buffers of constant
size are hidden from that pass, and put back for LLVM code generation, which makes stack slots of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call
from tvm.tirx.stmt import AllocBuffer, Evaluate

MARK = "sparsec_local_buffer"
MAX_BYTES = 4096


def hide_registers(function: tirx.PrimFunc, hidden: list[Any]) -> tirx.PrimFunc:
    """Replace the allocations of small local buffers by marks, and append them to `hidden`."""
    return hide_buffers(function, lambda buffer: buffer.ty.storage_scope == "local" and _is_small(buffer), hidden)


def hide_buffers(function: tirx.PrimFunc, wanted: Callable[[Any], bool], hidden: list[Any]) -> tirx.PrimFunc:
    """Replace the allocations of the buffers that are `wanted` by marks, and append them to `hidden`."""

    def hide(stmt: Any) -> Any:
        if not wanted(stmt.buffer):
            return stmt
        hidden.append(stmt)
        return Evaluate(tirx.call_extern("int32", MARK, len(hidden) - 1))

    return function.with_body(tvm_ffi.structural_map(function.body, (AllocBuffer, hide), order="post"))


def restore_buffers(function: tirx.PrimFunc, hidden: list[Any]) -> tirx.PrimFunc:
    """Put back what `hide_registers` or `hide_buffers` took."""

    def restore(stmt: Any) -> Any:
        call = stmt.value
        if isinstance(call, Call) and call.op.name == "tirx.call_extern" and call.args[0].value == MARK:
            return hidden[int(call.args[1].value)]
        return stmt

    return function.with_body(tvm_ffi.structural_map(function.body, (Evaluate, restore), order="post"))


def _is_small(buffer: Any) -> bool:
    nbytes = (buffer.dtype.bits * buffer.dtype.lanes + 7) // 8
    for extent in buffer.shape:
        if not isinstance(extent, tirx.IntImm):
            return False
        nbytes *= int(extent.value)
    return nbytes <= MAX_BYTES
