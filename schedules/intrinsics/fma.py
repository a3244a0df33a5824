"""The vector fused multiply-add, `c[0:n] += a * x[0:n]`, for any element type and number of lanes.

Every vector instruction set has it: `vfmadd231ps` with a broadcast on x86, `fmla` by element on ARM. LLVM contracts the
multiply and the add.
"""

from __future__ import annotations

from functools import cache

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T


@cache
def fma(lanes: int, dtype: str) -> str:
    """Declare the instruction for `lanes` elements of `dtype` to TVM, once, and return its name."""
    name = f"sparsec.fma.{dtype}x{lanes}"
    TensorIntrin.register(name, _semantics(lanes, dtype), _emission(lanes, dtype))
    return name


def _semantics(lanes: int, dtype: str) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def semantics(a: T.handle, x: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (1,), dtype, offset_factor=1)
        X = T.match_buffer(x, (lanes,), dtype, offset_factor=1)
        C = T.match_buffer(c, (lanes,), dtype, offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:1], X[0:lanes])
            T.writes(C[0:lanes])
            for v in range(lanes):
                with T.sblock("lane"):
                    vv = T.axis.spatial(lanes, v)
                    C[vv] = C[vv] + A[0] * X[vv]

    return semantics


def _emission(lanes: int, dtype: str) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def emission(a: T.handle, x: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (1,), dtype, offset_factor=1)
        X = T.match_buffer(x, (lanes,), dtype, offset_factor=1)
        C = T.match_buffer(c, (lanes,), dtype, offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:1], X[0:lanes])
            T.writes(C[0:lanes])
            C[T.ramp(0, 1, lanes)] = C[T.ramp(0, 1, lanes)] + T.broadcast(A[0], lanes) * X[T.ramp(0, 1, lanes)]

    return emission
