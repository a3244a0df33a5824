"""The vector fused multiply-add, `c[v] += a[v] * x[v]`, for any element types and number of lanes.

Every vector instruction set has it: `vfmadd231ps` with a broadcast on x86, `fmla` by element on ARM. LLVM contracts the
multiply and the add. Factors of another type than the sum are converted to that of the sum first.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm import tirx

from sparsec.ir.instruction import FAMILIES, Instruction, parse_semantics
from sparsec.ir.standing import convert


@cache
def fma(lanes: int, *types: str) -> Instruction:
    """Return the instruction for so many lanes.

    >>> print(fma(16, "bfloat16", "float32", "float32").semantics)
    kernel fma(a: bfloat16[16], x: float32[16]) -> c: float32[16]:
        for v in range(0, 16):
            c[v] += a[v] * x[v]

    Parameters
    ----------
    types : of a, x and c; what has another number of operands is no such product, and only its last type counts
    """
    a_dtype, x_dtype, dtype = types if len(types) == 3 else types[-1:] * 3
    semantics = parse_semantics(
        f"""
        kernel fma(a: {a_dtype}[{lanes}], x: {x_dtype}[{lanes}]) -> c: {dtype}[{lanes}]:
            for v in range(0, {lanes}):
                c[v] += a[v] * x[v]
        """
    )

    def emit(a: Any, x: Any, c: Any) -> Any:
        return c + _converted(a, lanes, dtype) * _converted(x, lanes, dtype)

    return Instruction(f"fma.{lanes}", semantics, (), emit, bits=64 * lanes)  # a register, whatever the types


def _converted(value: Any, lanes: int, dtype: str) -> Any:
    """Return a vector in the type of the sum.

    A bfloat16 is broadcast to both halves of each element, of which the lower one is cleared: that takes a load and one
    operation on a vector, while a number that was shifted among integers must come over to the vectors.
    """
    if not isinstance(value, tirx.Broadcast):
        return convert(value, f"{dtype}x{lanes}")
    if str(value.value.ty.dtype) != "bfloat16" or dtype != "float32":
        return tirx.Broadcast(convert(value.value, dtype), lanes)
    halves = tirx.Broadcast(tirx.reinterpret("uint16", value.value), 2 * lanes)
    upper = tirx.Broadcast(tirx.const(0xFFFF0000, "uint32"), lanes)
    return tirx.reinterpret(f"float32x{lanes}", tirx.reinterpret(f"uint32x{lanes}", halves) & upper)


FAMILIES["fma"] = fma
