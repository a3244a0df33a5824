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
from tvm.tirx.stmt import AllocBuffer

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


def keep_bits() -> Any:
    """Return the pass that goes before `BF16ComputeLegalize`, for instructions that take bits of bfloat16 from a tile.

    TVM would keep the tile in float32.

    Before:  `tile = alloc((64,), "bfloat16"); tile[0:8] = x; f(reinterpret("uint16x8", tile[0:8]))`
    After:   `tile = alloc((64,), "uint16"); tile[0:8] = reinterpret("uint16x8", x); f(tile[0:8])`
    """

    def transform(function: tirx.PrimFunc, module: tvm.IRModule, context: Any) -> tirx.PrimFunc:
        tiles = _Tiles(tvm_ffi.structural_map(function.body, (Call, _once), order="post"))
        return function.with_body(tiles.of_bits())

    return tirx.transform.prim_func_pass(transform, opt_level=0, name="KeepBits")


class _Tiles:
    """The buffers that a body allocates and takes bits of bfloat16 from, each with one of uint16 in its place."""

    def __init__(self, body: Any) -> None:
        self.body = body
        self.allocated: set[Any] = set()
        self.bits: dict[Any, Any] = {}
        tvm_ffi.structural_walk(body, (AllocBuffer, lambda stmt: self.allocated.add(stmt.buffer)))
        tvm_ffi.structural_walk(body, (Call, self.find))

    def find(self, call: Any) -> None:
        load = call.args[0] if _is_reinterpret(call) and str(call.ty.dtype).startswith("uint16") else None
        if isinstance(load, TensorLoad) and load.source in self.allocated and str(load.source.dtype) == "bfloat16":
            buffer = load.source
            self.bits[buffer] = tirx.decl_buffer(buffer.shape, "uint16", buffer.name, scope=buffer.ty.storage_scope)

    def of_bits(self) -> Any:
        body = self.body
        changes = (TensorLoad, self.load), (tirx.BufferStore, self.store), (AllocBuffer, self.allocate), (Call, _once)
        for change in changes:
            body = tvm_ffi.structural_map(body, change, order="post")
        return body

    def load(self, load: Any) -> Any:
        if load.source not in self.bits:
            return load
        return tirx.reinterpret(str(load.ty.dtype), tirx.BufferLoad(self.bits[load.source], load.indices))

    def store(self, stmt: Any) -> Any:
        if stmt.buffer not in self.bits:
            return stmt
        bits = tirx.reinterpret(str(stmt.value.ty.dtype).replace("bfloat16", "uint16"), stmt.value)
        return tirx.BufferStore(self.bits[stmt.buffer], bits, stmt.indices)

    def allocate(self, stmt: Any) -> Any:
        return AllocBuffer(self.bits[stmt.buffer], stmt.annotations) if stmt.buffer in self.bits else stmt


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
