"""Instructions of AArch64 processors, of registers of 128 bits.

Arm, *Architecture Reference Manual for A-profile*, section C7.2. LLVM's names are in its IntrinsicsAArch64.td.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from sparsec.ir.instruction import instruction
from sparsec.schedules.intrinsics.bfloat16 import call_of_bfloat16
from sparsec.schedules.intrinsics.interleave import interleave, interleaving

# -- sums of products ----------------------------------------------------------------------------------------------

DOT = """
kernel {name}(a: {a}[4, {depth}], b: {b}[4, {depth}]) -> c: {c}[4]:
    for i in range(0, 4), j in range(0, {depth}):
        c[i] += a[i, j] * b[i, j]
"""

MATRIX = """
kernel {name}(a: {a}[2, {depth}], b: {b}[2, {depth}]) -> c: {c}[2, 2]:
    for i in range(0, 2), j in range(0, 2), k in range(0, {depth}):
        c[i, j] += a[i, k] * b[j, k]
"""

PRODUCTS = (
    ("sdot", DOT, "int8", "int8", 4, "dotprod"),
    ("udot", DOT, "uint8", "uint8", 4, "dotprod"),
    ("usdot", DOT, "uint8", "int8", 4, "i8mm"),
    ("smmla", MATRIX, "int8", "int8", 8, "i8mm"),
    ("ummla", MATRIX, "uint8", "uint8", 8, "i8mm"),
    ("usmmla", MATRIX, "uint8", "int8", 8, "i8mm"),
    ("bfdot", DOT, "bfloat16", "bfloat16", 2, "bf16"),
    ("bfmmla", MATRIX, "bfloat16", "bfloat16", 4, "bf16"),
)
"""Name, what is computed, types of the factors, how many products make one sum, extension."""


def _of_bytes(name: str, a: Any, b: Any, c: Any) -> Any:
    return tirx.call_llvm_pure_intrin("int32x4", f"llvm.aarch64.neon.{name}", c, a, b)


def _of_bfloat16(name: str, a: Any, b: Any, c: Any) -> Any:
    """The two products of a pair are added first, that and the sum rounded to odd, and subnormal numbers are zeros."""
    overload = ".v4f32.v8bf16" if name == "bfdot" else ""
    return call_of_bfloat16("float32x4", f"llvm.aarch64.neon.{name}{overload}", c, a, b)


for _name, _semantics, _a, _b, _depth, _feature in PRODUCTS:
    _sums, _emit = ("float32", _of_bfloat16) if _a == "bfloat16" else ("int32", _of_bytes)
    instruction(
        _semantics.format(name=_name, a=_a, b=_b, c=_sums, depth=_depth),
        name=f"arm.{_name}.128",
        features=(_feature,),
        bits=128,
    )(partial(_emit, _name))


# -- columns of a few rows side by side, as the products take them -------------------------------------------------

INTERLEAVED = (("int8", 4), ("uint8", 4), ("int8", 8), ("uint8", 8), ("bfloat16", 2), ("bfloat16", 4))
"""Types, and numbers of rows."""

for _dtype, _rows in INTERLEAVED:
    instruction(
        interleaving(_dtype, _rows, 128 // (8 * np.dtype(_dtype).itemsize)),
        name=f"arm.interleave{_rows}_{_dtype}.128",
        features=("neon",),
        bits=128,
    )(partial(interleave, _dtype, 128))
