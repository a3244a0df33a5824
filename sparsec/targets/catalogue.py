"""Processors that sparsec knows: their extensions and the facts that schedule rules reason with.

Sources: Agner Fog's *Microarchitecture* and *Instruction tables*, Intel's *Optimization Reference Manual*, AMD's
*Software Optimization Guides* for families 17h, 19h and 1Ah, Arm's *Software Optimization Guides*, NVIDIA's white
papers on the A100, Ada and H100, and its *CUDA C++ Programming Guide*, table of compute capabilities.
"""

from sparsec.targets.features import X86_V2, X86_V3, X86_V4
from sparsec.targets.target import Target

KIB, MIB = 1024, 1024 * 1024

X86_TRIPLE = "x86_64-linux-gnu"
ARM_TRIPLE = "aarch64-linux-gnu"
GPU_TRIPLE = "nvptx64-nvidia-cuda"

_X86_CRYPTO = frozenset({"adx", "aes", "pclmul"})
_SKYLAKE_X = X86_V4 | _X86_CRYPTO
_ICELAKE = _SKYLAKE_X | {
    "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512vpopcntdq", "gfni", "sha", "vaes",
    "vpclmulqdq",
}  # fmt: skip
_SAPPHIRE = _ICELAKE | {"amx-bf16", "amx-int8", "amx-tile", "avx512bf16", "avx512fp16", "avxvnni"}
_ZEN2 = X86_V3 | _X86_CRYPTO | {"sha", "sse4a"}
_ZEN3 = _ZEN2 | {"vaes", "vpclmulqdq"}
_ZEN4 = _ICELAKE | {"avx512bf16", "sse4a"}
_NEOVERSE_N1 = frozenset({"crc", "dotprod", "fullfp16", "lse", "neon", "rdm"})
# The Arm architecture reference manual, section A2.12, as far as it is mandatory.
_ARMV8_6 = frozenset({"bf16", "crc", "dotprod", "i8mm", "lse", "neon", "rdm"})
_NEOVERSE_V1 = _NEOVERSE_N1 | {"bf16", "i8mm", "sve"}

# LLVM splits 512-bit vectors in two on some unless told otherwise; sparsec's kernels choose their own width.
_FULL_WIDTH = ("-prefer-256-bit",)


def _x86(
    name: str,
    isa: frozenset[str],
    l1: int,
    l2: int,
    l3: int,
    *,
    fma: float,
    loads: float,
    ghz: float,
    prefers_256: bool = False,
    unit: int = 0,
) -> Target:
    return Target(
        name=name,
        triple=X86_TRIPLE,
        mcpu=name,
        isa=isa,
        l1_bytes=l1 * KIB,
        l2_bytes=l2 * KIB,
        l3_bytes=l3 * KIB,
        fma_per_cycle=fma,
        loads_per_cycle=loads,
        ghz=ghz,
        features=_FULL_WIDTH if prefers_256 else (),
        unit_bits=unit,
    )


def _arm(
    name: str,
    isa: frozenset[str],
    l1: int,
    l2: int,
    l3: int,
    *,
    fma: float,
    loads: float,
    ghz: float,
    mcpu: str = "",
) -> Target:
    """A processor, or with `mcpu="generic"` an architecture, whose extensions LLVM must be told."""
    return Target(
        name=name,
        triple=ARM_TRIPLE,
        mcpu=mcpu or name,
        isa=isa,
        l1_bytes=l1 * KIB,
        l2_bytes=l2 * KIB,
        l3_bytes=l3 * KIB,
        fma_per_cycle=fma,
        loads_per_cycle=loads,
        ghz=ghz,
        features=tuple(f"+{feature}" for feature in sorted(isa)) if mcpu else (),
    )


def _gpu(name: str, isa: frozenset[str], shared: int, l2: int, *, fma: float, ghz: float) -> Target:
    """One multiprocessor as a core, whose vectors are warps and whose L1 is what a block can have of shared memory."""
    return Target(
        name=name,
        triple=GPU_TRIPLE,
        mcpu=name,
        isa=isa,
        l1_bytes=shared * KIB,
        l2_bytes=l2 * KIB,
        l3_bytes=0,
        fma_per_cycle=fma,
        loads_per_cycle=1,
        ghz=ghz,
    )


# name, extensions, L1, L2, L3 in KiB
_ALL = [
    _x86("x86-64-v2", X86_V2, 32, 256, 8192, fma=1, loads=2, ghz=3.0),
    _x86("x86-64-v3", X86_V3, 32, 512, 16384, fma=2, loads=2, ghz=3.0),
    _x86("x86-64-v4", X86_V4, 32, 1024, 32768, fma=1, loads=2, ghz=3.0, prefers_256=True),
    _x86("haswell", X86_V3 | {"pclmul"}, 32, 256, 8192, fma=2, loads=2, ghz=3.2),
    _x86("skylake", X86_V3 | _X86_CRYPTO, 32, 256, 8192, fma=2, loads=2, ghz=3.5),
    _x86("skylake-avx512", _SKYLAKE_X, 32, 1024, 22528, fma=2, loads=2, ghz=2.7, prefers_256=True),
    _x86("cascadelake", _SKYLAKE_X | {"avx512vnni"}, 32, 1024, 28160, fma=2, loads=2, ghz=2.8, prefers_256=True),
    _x86("icelake-server", _ICELAKE, 48, 1280, 49152, fma=2, loads=2, ghz=2.9, prefers_256=True),
    _x86("sapphirerapids", _SAPPHIRE, 48, 2048, 76800, fma=2, loads=2, ghz=3.0, prefers_256=True),
    _x86("znver2", _ZEN2, 32, 512, 16384, fma=2, loads=2, ghz=3.3),
    _x86("znver3", _ZEN3, 32, 512, 32768, fma=2, loads=2, ghz=3.5),
    _x86("znver4", _ZEN4, 32, 1024, 32768, fma=1, loads=1, ghz=3.6, unit=256),
    _x86("znver5", _ZEN4 | {"avx512vp2intersect", "avxvnni"}, 48, 1024, 32768, fma=2, loads=2, ghz=4.0),
    _arm("aarch64", frozenset({"neon"}), 32, 512, 4096, fma=2, loads=2, ghz=2.5, mcpu="generic"),
    _arm("armv8.6", _ARMV8_6, 64, 1024, 32768, fma=2, loads=2, ghz=2.5, mcpu="generic"),
    _arm("cortex-a72", frozenset({"crc", "neon"}), 32, 1024, 0, fma=2, loads=1, ghz=1.8),
    _arm("cortex-a76", _NEOVERSE_N1, 64, 512, 2048, fma=2, loads=2, ghz=2.4),
    _arm("neoverse-n1", _NEOVERSE_N1, 64, 1024, 32768, fma=2, loads=2, ghz=2.6),
    _arm("neoverse-v1", _NEOVERSE_V1, 64, 1024, 32768, fma=4, loads=3, ghz=2.6),
    _arm("neoverse-n2", _NEOVERSE_V1 | {"sve2"}, 64, 1024, 32768, fma=2, loads=3, ghz=2.7),
    _arm("neoverse-v2", _NEOVERSE_V1 | {"sve2"}, 64, 2048, 36864, fma=4, loads=3, ghz=2.8),
]

TARGETS = {target.name: target for target in _ALL}
"""What code is generated for."""

# name, instruction sets (those of lower versions are among them), shared memory of a block, L2 in KiB
_GPUS = [
    _gpu("sm_80", frozenset({"sm_80"}), 163, 40960, fma=2, ghz=1.4),
    _gpu("sm_89", frozenset({"sm_80", "sm_89"}), 99, 73728, fma=4, ghz=2.2),
    _gpu("sm_90", frozenset({"sm_80", "sm_89", "sm_90"}), 227, 51200, fma=4, ghz=1.7),
]

GPUS = {target.name: target for target in _GPUS}
"""What can only be emulated."""

ALIASES = {"x86_64": "x86-64-v2", X86_TRIPLE: "x86-64-v2", ARM_TRIPLE: "aarch64"}
