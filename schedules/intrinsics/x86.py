"""Instructions of x86 processors.

Intel, Intrinsics Guide; AMD, APM volumes 4 and 5. LLVM's names are in its IntrinsicsX86.td.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from sparsec.ir.instruction import instruction


def _call(dtype: str, name: str, *operands: Any) -> Any:
    return tirx.call_llvm_pure_intrin(dtype, f"llvm.x86.{name}", *operands)


# -- four products of bytes, added to an int32 ---------------------------------------------------------------------


@instruction(
    """
    kernel vpdpbusd(a: uint8[16, 4], b: int8[16, 4]) -> c: int32[16]:
        for i in range(0, 16), j in range(0, 4):
            c[i] += a[i, j] * b[i, j]
    """,
    name="x86.vpdpbusd.512",
    features=("avx512vnni",),
)
def vpdpbusd_512(a: Any, b: Any, c: Any) -> Any:
    return _call("int32x16", "avx512.vpdpbusd.512", c, a, b)


@instruction(
    """
    kernel vpdpbusd(a: uint8[8, 4], b: int8[8, 4]) -> c: int32[8]:
        for i in range(0, 8), j in range(0, 4):
            c[i] += a[i, j] * b[i, j]
    """,
    name="x86.vpdpbusd.256",
    features=("avx512vl", "avx512vnni"),
    bits=256,
)
def vpdpbusd_256(a: Any, b: Any, c: Any) -> Any:
    return _call("int32x8", "avx512.vpdpbusd.256", c, a, b)
