"""Instructions of NVIDIA's tensor cores, which the 32 lanes of a warp carry out together.

NVIDIA, *PTX ISA* 8.5, sections 9.7.14.5 (`ldmatrix` and `mma`) and 9.7.14.6 (`mma.sp`), which also say what lies in
which lane. A register is that of a whole warp, 32 lanes of 32 bits. No code is generated for GPUs yet: `emit` takes the
names of a lane's registers, a list for each operand, those of the output last, and returns the text of PTX that writes
these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sparsec.ir.instruction import instruction

WARP_BITS = 32 * 32

# -- products ------------------------------------------------------------------------------------------------------

TYPES = (
    ("f16", "float16", "f16", "float16", "f16", 16, "sm_80"),
    ("bf16", "bfloat16", "bf16", "bfloat16", "bf16", 16, "sm_80"),
    ("tf32", "float32", "tf32", "float32", "tf32", 8, "sm_80"),
    ("s8", "int8", "s8", "int8", "s8", 32, "sm_80"),
    ("u8", "uint8", "u8", "uint8", "u8", 32, "sm_80"),
    ("u8s8", "uint8", "u8", "int8", "s8", 32, "sm_80"),
    ("s8u8", "int8", "s8", "uint8", "u8", 32, "sm_80"),
    ("e4m3", "float8_e4m3fn", "e4m3", "float8_e4m3fn", "e4m3", 32, "sm_89"),
    ("e5m2", "float8_e5m2", "e5m2", "float8_e5m2", "e5m2", 32, "sm_89"),
)
"""Name; the types of a and b, ours and PTX's; how many products make a sum; architecture.

tf32 has the 10 bits of the fraction that float32 has first; the processor ignores the others. So targets have it only
where they say so.
"""

PRODUCT = """
kernel mma_{name}(a: {a}[16, {depth}], b: {b}[8, {depth}]) -> c: {c}[16, 8]:
    for i in range(0, 16), j in range(0, 8), k in range(0, {depth}):
        c[i, j] += a[i, k] * b[j, k]
"""

# Of each group of four depths two are stored, in their order, of tf32 one of two; e says which.
SPARSE_PRODUCT = """
kernel mma_sp_{name}(a: {a}[16, {groups}, {n}], e: uint8[16, {groups}, {n}], b: {b}[8, {groups}, {m}]) -> c: {c}[16, 8]:
    for i in range(0, 16), j in range(0, 8), k in range(0, {groups}), l in range(0, {n}):
        c[i, j] += a[i, k, l] * b[j, k, e[i, k, l]]
"""


def _mma(form: str, a: Sequence[str], b: Sequence[str], c: Sequence[str]) -> str:
    return f"mma.sync.aligned.{form} {_list(c)}, {_list(a)}, {_list(b)}, {_list(c)};"


def _mma_sp(form: str, a: Sequence[str], e: Sequence[str], b: Sequence[str], c: Sequence[str]) -> str:
    """The indices e of all elements are two bits each, in one register; selector 0 takes those of the first lanes."""
    operands = ", ".join((_list(c), _list(a), _list(b), _list(c), *e))
    return f"mma.sp::ordered_metadata.sync.aligned.{form} {operands}, 0;"


def _list(registers: Sequence[str]) -> str:
    return f"{{{', '.join(registers)}}}"


for _name, _a, _ptx_a, _b, _ptx_b, _depth, _architecture in TYPES:
    _c, _ptx_c = ("int32", "s32") if "int8" in _a else ("float32", "f32")
    _n, _m = (1, 2) if _name == "tf32" else (2, 4)
    _features = (_architecture, "tf32") if _name == "tf32" else (_architecture,)
    _form = f"row.col.{_ptx_c}.{_ptx_a}.{_ptx_b}.{_ptx_c}"
    instruction(
        PRODUCT.format(name=_name, a=_a, b=_b, c=_c, depth=_depth),
        name=f"cuda.mma_{_name}.m16n8k{_depth}",
        features=_features,
        bits=WARP_BITS,
    )(partial(_mma, f"m16n8k{_depth}.{_form}"))
    instruction(
        SPARSE_PRODUCT.format(name=_name, a=_a, b=_b, c=_c, groups=_depth // _n, n=_n, m=_m),
        name=f"cuda.mma_sp_{_name}.m16n8k{2 * _depth}",
        features=_features,
        bits=WARP_BITS,
    )(partial(_mma_sp, f"m16n8k{2 * _depth}.{_form}"))


# -- rows of 32 bytes from shared memory to the registers of the products -------------------------------------------

LOAD = """
kernel ldmatrix(x: {dtype}[{rows}, {columns}]) -> a: {dtype}[{rows}, {columns}]:
    for i in range(0, {rows}), k in range(0, {columns}):
        a[i, k] = x[i, k]
"""

TRANSPOSED_LOAD = """
kernel ldmatrix_trans(x: {dtype}[16, 8]) -> b: {dtype}[8, 16]:
    for j in range(0, 8), k in range(0, 16):
        b[j, k] = x[k, j]
"""

LOADED = (
    ("f16", "float16", 16),
    ("bf16", "bfloat16", 16),
    ("tf32", "float32", 8),
    ("s8", "int8", 32),
    ("u8", "uint8", 32),
    ("e4m3", "float8_e4m3fn", 32),
    ("e5m2", "float8_e5m2", 32),
)
"""Name, type, elements in 32 bytes."""


def _ldmatrix(form: str, address: Sequence[str], registers: Sequence[str]) -> str:
    """Lane n has the address of row n of the matrices of 8 rows of 16 bytes that are loaded, one after another."""
    return f"ldmatrix.sync.aligned.m8n8.{form}.shared.b16 {_list(registers)}, [{address[0]}];"


for _name, _dtype, _columns in LOADED:
    for _rows, _form in ((16, "x4"), (8, "x2")):
        instruction(
            LOAD.format(dtype=_dtype, rows=_rows, columns=_columns),
            name=f"cuda.ldmatrix_{_name}.{_form}",
            features=("sm_80",),
            bits=WARP_BITS,
        )(partial(_ldmatrix, _form))
    if _columns == 16:  # what it transposes are elements of 16 bits
        instruction(
            TRANSPOSED_LOAD.format(dtype=_dtype),
            name=f"cuda.ldmatrix_trans_{_name}.x2",
            features=("sm_80",),
            bits=WARP_BITS,
        )(partial(_ldmatrix, "x2.trans"))
