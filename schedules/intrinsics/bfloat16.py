"""Calls of LLVM's intrinsics with vectors of bfloat16, which TVM does not have for LLVM."""

from __future__ import annotations

from typing import Any

from tvm import tirx


def call_of_bfloat16(dtype: str, intrinsic: str, *operands: Any) -> Any:
    """Call an intrinsic by its whole name, with the bits of those operands that are bfloat16.

    `codegen/intrinsics.py` defines the function of this name, which makes bfloat16 of the bits.
    """
    return tirx.call_pure_extern(dtype, f"bfloat16.{intrinsic}", *map(_bits, operands))


def _bits(operand: Any) -> Any:
    element, _, lanes = str(operand.ty.dtype).partition("x")
    return tirx.reinterpret(f"uint16x{lanes}", operand) if element == "bfloat16" else operand
