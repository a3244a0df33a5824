"""The vector fused multiply-add, `c[0:n] += a * x[0:n]`, for any element types and number of lanes.

Every vector instruction set has it: `vfmadd231ps` with a broadcast on x86, `fmla` by element on ARM. LLVM contracts the
multiply and the add. Factors of another type than the sum are converted to that of the sum first.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from sparsec.ir.standing import convert


@cache
def fma(lanes: int, *types: str) -> str:
    """Declare the instruction for `lanes` elements to TVM, once, and return its name.

    >>> fma(16, "bfloat16", "float32", "float32")
    'sparsec.fma.bfloat16_float32_float32x16'

    Parameters
    ----------
    types : of a, x and c
    """
    name = f"sparsec.fma.{'_'.join(types)}x{lanes}"
    TensorIntrin.register(name, _semantics(lanes, *types), _emission(lanes, *types))
    return name


def _semantics(lanes: int, a_dtype: str, x_dtype: str, dtype: str) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def semantics(a: T.handle, x: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (1,), a_dtype, offset_factor=1)
        X = T.match_buffer(x, (lanes,), x_dtype, offset_factor=1)
        C = T.match_buffer(c, (lanes,), dtype, offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:1], X[0:lanes])
            T.writes(C[0:lanes])
            for v in range(lanes):
                with T.sblock("lane"):
                    vv = T.axis.spatial(lanes, v)
                    C[vv] = C[vv] + convert(A[0], dtype) * convert(X[vv], dtype)

    return semantics


def _broadcast(value: Any, lanes: int, dtype: str) -> Any:
    """Return the vector of a converted number.

    A bfloat16 is broadcast to both halves of each element, of which the lower one is cleared: that takes a load and one
    operation on a vector, while a number that was shifted among integers must come over to the vectors.
    """
    if str(value.ty.dtype) != "bfloat16" or dtype != "float32":
        return T.broadcast(convert(value, dtype), lanes)
    halves = T.broadcast(tirx.reinterpret("uint16", value), 2 * lanes)
    cleared = tirx.reinterpret(f"uint32x{lanes}", halves) & T.broadcast(tirx.const(0xFFFF0000, "uint32"), lanes)
    return tirx.reinterpret(f"float32x{lanes}", cleared)


def _emission(lanes: int, a_dtype: str, x_dtype: str, dtype: str) -> tirx.PrimFunc:
    vector = f"{dtype}x{lanes}" if lanes > 1 else dtype

    @T.prim_func(s_tir=True)
    def emission(a: T.handle, x: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (1,), a_dtype, offset_factor=1)
        X = T.match_buffer(x, (lanes,), x_dtype, offset_factor=1)
        C = T.match_buffer(c, (lanes,), dtype, offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:1], X[0:lanes])
            T.writes(C[0:lanes])
            C[T.ramp(0, 1, lanes)] = C[T.ramp(0, 1, lanes)] + _broadcast(A[0], lanes, dtype) * convert(
                X[T.ramp(0, 1, lanes)], vector
            )

    return emission
