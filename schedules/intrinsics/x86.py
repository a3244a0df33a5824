"""Instructions of x86 processors that add up products, in vectors and in tiles.

Intel, *Intrinsics Guide*, and *Software Developer's Manual*, volume 2; AMD, *APM*, volumes 4 and 5. LLVM's names are in
its IntrinsicsX86.td.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.ir.instruction import instruction
from sparsec.ir.tiles import Rows, TileUnit
from sparsec.schedules.intrinsics.bfloat16 import call_of_bfloat16

DOT = """
kernel {name}(a: {a}[{lanes}, {depth}], b: {b}[{lanes}, {depth}]) -> c: {c}[{lanes}]:
    for i in range(0, {lanes}), j in range(0, {depth}):
        c[i] += a[i, j] * b[i, j]
"""

BITS = """
kernel {name}(a: int32[{lanes}], b: int32[{lanes}]) -> c: int32[{lanes}]:
    for i in range(0, {lanes}):
        c[i] += popcount(a[i] {operator} b[i])
"""

TILES = """
kernel {name}(a: {a}[16, 16, {depth}], b: {b}[16, 16, {depth}]) -> c: {c}[16, 16]:
    for i in range(0, 16), j in range(0, 16), k in range(0, 16), l in range(0, {depth}):
        c[i, j] += a[i, k, l] * b[k, j, l]
"""


def _call(dtype: str, name: str, *operands: Any) -> Any:
    return tirx.call_llvm_pure_intrin(dtype, f"llvm.x86.{name}", *operands)


# -- AVX512-VNNI and AVX-VNNI --------------------------------------------------------------------------------------

VNNI = {"vpdpbusd": ("uint8", "int8", 4), "vpdpwssd": ("int16", "int16", 2)}
VNNI_FEATURES = {256: ("avxvnni|avx512vnni",), 512: ("avx512vnni",)}


def _vnni(name: str, bits: int, a: Any, b: Any, c: Any) -> Any:
    return _call(f"int32x{bits // 32}", f"avx512.{name}.{bits}", c, a, b)


for _name, (_a, _b, _depth) in VNNI.items():
    for _bits, _features in VNNI_FEATURES.items():
        instruction(
            DOT.format(name=_name, a=_a, b=_b, c="int32", lanes=_bits // 32, depth=_depth),
            name=f"x86.{_name}.{_bits}",
            features=_features,
            bits=_bits,
        )(partial(_vnni, _name, _bits))


# -- AVX2 and AVX512-BW --------------------------------------------------------------------------------------------
# Words take bytes as well, exactly, while `vpmaddubsw` would bring sums of bytes in a word's range.

MADD = {256: ("avx2", "avx2.pmadd.wd"), 512: ("avx512bw", "avx512.pmaddw.d.512")}


def _vpmaddwd(bits: int, name: str, a: Any, b: Any, c: Any) -> Any:
    return c + _call(f"int32x{bits // 32}", name, a, b)


for _bits, (_feature, _madd) in MADD.items():
    instruction(
        DOT.format(name="vpmaddwd", a="int16", b="int16", c="int32", lanes=_bits // 32, depth=2),
        name=f"x86.vpmaddwd.{_bits}",
        features=(_feature,),
        bits=_bits,
    )(partial(_vpmaddwd, _bits, _madd))


# -- AVX512-BF16 ---------------------------------------------------------------------------------------------------


def _bf16(bits: int, a: Any, b: Any, c: Any) -> Any:
    return call_of_bfloat16(f"float32x{bits // 32}", f"llvm.x86.avx512bf16.dpbf16ps.{bits}", c, a, b)


for _bits in (128, 256, 512):
    instruction(
        DOT.format(name="vdpbf16ps", a="bfloat16", b="bfloat16", c="float32", lanes=_bits // 32, depth=2),
        name=f"x86.vdpbf16ps.{_bits}",
        features=("avx512bf16",) if _bits == 512 else ("avx512bf16", "avx512vl"),
        bits=_bits,
    )(partial(_bf16, _bits))


# -- AVX512-VPOPCNTDQ ----------------------------------------------------------------------------------------------


def _popcount(operator: Any, a: Any, b: Any, c: Any) -> Any:
    return c + tirx.popcount(operator(a, b))


for _name, _operator, _function in (("and", "&", tirx.bitwise_and), ("xor", "^", tirx.bitwise_xor)):
    for _bits in (256, 512):
        instruction(
            BITS.format(name="vpopcntd", operator=_operator, lanes=_bits // 32),
            name=f"x86.vpopcntd_{_name}.{_bits}",
            features=("avx512vpopcntdq",) if _bits == 512 else ("avx512vl", "avx512vpopcntdq"),
            bits=_bits,
        )(partial(_popcount, _function))


# -- AMX -----------------------------------------------------------------------------------------------------------

TILE_REGISTERS = 8


def _execute(name: str, *operands: Any) -> None:
    T.evaluate(tirx.call_llvm_intrin("void", f"llvm.x86.{name}", *operands))


def _configure() -> None:
    """Let all tiles have 16 rows of 64 bytes."""
    memory = T.sblock_alloc_buffer((64,), "uint8", scope="local")
    palette, column_bytes, rows, tiles = 0, 16, 48, range(TILE_REGISTERS)
    content = {palette: 1} | {column_bytes + 2 * tile: 64 for tile in tiles} | {rows + tile: 16 for tile in tiles}
    for place in range(64):
        T.buffer_store(memory, tirx.const(content.get(place, 0), "uint8"), [place])
    _execute("ldtilecfg", tirx.address_of(memory[0]))


def _move(name: str, tile: int, rows: Rows) -> None:
    address, pitch = rows
    _execute(name, tirx.const(tile, "int8"), address, tirx.const(pitch, "int64"))


def _on_tiles(name: str, *tiles: int) -> None:
    _execute(name, *(tirx.const(tile, "int8") for tile in tiles))


AMX = TileUnit(
    TILE_REGISTERS,
    configure=_configure,
    release=partial(_execute, "tilerelease"),
    clear=partial(_on_tiles, "tilezero"),
    load=partial(_move, "tileloadd64"),
    store=partial(_move, "tilestored64"),
)

for _name, _a, _b, _c, _depth, _feature in (
    ("tdpbsud", "int8", "uint8", "int32", 4, "amx-int8"),
    ("tdpbusd", "uint8", "int8", "int32", 4, "amx-int8"),
    ("tdpbssd", "int8", "int8", "int32", 4, "amx-int8"),
    ("tdpbf16ps", "bfloat16", "bfloat16", "float32", 2, "amx-bf16"),
):
    instruction(
        TILES.format(name=_name, a=_a, b=_b, c=_c, depth=_depth),
        name=f"x86.{_name}.m16n16k{16 * _depth}",
        features=("amx-tile", _feature),
        tiles=AMX,
    )(partial(_on_tiles, _name))
