"""Instruction-set extensions: how LLVM, Linux and the processor itself name them.

An extension is identified by its LLVM name. An artifact carries one `Probe` for each extension that its code may use,
and checks them when a context is created, before any generated code runs.
"""

from dataclasses import dataclass

from sparsec.errors import TargetError


@dataclass(frozen=True)
class Probe:
    """Where a processor reports one extension.

    On x86 it is bit `bit` of register `register` (0 to 3: eax, ebx, ecx, edx) of CPUID leaf `leaf`, subleaf `subleaf`;
    `state` is the part of XCR0 that the system must have set, as it then keeps the extension's registers.
    On AArch64 it is bit `bit` of the auxiliary vector entry `leaf` (16: AT_HWCAP, 26: AT_HWCAP2).
    """

    leaf: int
    subleaf: int
    register: int
    bit: int
    state: int = 0


_EAX, _EBX, _ECX, _EDX = range(4)
_HWCAP, _HWCAP2 = 16, 26

_X86 = {
    # Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
    (1, 0, _ECX): {
        "sse3": 0, "pclmul": 1, "ssse3": 9, "fma": 12, "cx16": 13, "sse4.1": 19, "sse4.2": 20, "movbe": 22,
        "popcnt": 23, "aes": 25, "avx": 28, "f16c": 29,
    },
    (7, 0, _EBX): {
        "bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "adx": 19, "avx512ifma": 21, "avx512cd": 28,
        "sha": 29, "avx512bw": 30, "avx512vl": 31,
    },
    (7, 0, _ECX): {
        "avx512vbmi": 1, "avx512vbmi2": 6, "gfni": 8, "vaes": 9, "vpclmulqdq": 10, "avx512vnni": 11,
        "avx512bitalg": 12, "avx512vpopcntdq": 14,
    },
    (7, 0, _EDX): {"avx512vp2intersect": 8, "amx-bf16": 22, "avx512fp16": 23, "amx-tile": 24, "amx-int8": 25},
    (7, 1, _EAX): {"avxvnni": 4, "avx512bf16": 5, "amx-fp16": 21},
    (0x80000001, 0, _ECX): {"lzcnt": 5, "sse4a": 6},
}  # fmt: skip

_ARM = {
    # Linux, Documentation/arch/arm64/elf_hwcaps.rst.
    _HWCAP: {"neon": 1, "crc": 7, "lse": 8, "fullfp16": 10, "rdm": 12, "dotprod": 20, "sve": 22},
    _HWCAP2: {"sve2": 1, "i8mm": 13, "bf16": 14},
}

# Intel SDM volume 1, section 13.1: which registers XSAVE keeps.
_YMM, _ZMM, _TILES = 0x6, 0xE6, 0x60000


def _state(feature: str) -> int:
    if feature.startswith("amx"):
        return _TILES
    if feature.startswith("avx512"):
        return _ZMM
    return _YMM if feature.startswith("avx") or feature in ("f16c", "fma", "vaes", "vpclmulqdq") else 0


PROBES: dict[str, dict[str, Probe]] = {
    "x86_64": {name: Probe(*where, bit, _state(name)) for where, names in _X86.items() for name, bit in names.items()},
    "aarch64": {name: Probe(leaf, 0, 0, bit) for leaf, names in _ARM.items() for name, bit in names.items()},
    "nvptx64": {},
}
"""Every extension that sparsec knows, by architecture and LLVM name."""

# What each x86 vector extension builds on.
_BASES = {name: "avx512f" for name in PROBES["x86_64"] if name.startswith("avx512")}
_BASES |= {"avx512f": "avx2", "avx2": "avx", "avxvnni": "avx2", "f16c": "avx", "fma": "avx", "vaes": "avx"}
_BASES |= {"vpclmulqdq": "avx", "avx": "sse4.2", "amx-bf16": "amx-tile", "amx-fp16": "amx-tile", "amx-int8": "amx-tile"}

# The levels of the x86-64 psABI, section 3.1.1.
X86_V2 = frozenset({"cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"})
X86_V3 = X86_V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
X86_V4 = X86_V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

# Linux writes most names as LLVM does, but for underscores; these are the others.
_LINUX_NAMES = {
    "abm": "lzcnt", "amx_bf16": "amx-bf16", "amx_fp16": "amx-fp16", "amx_int8": "amx-int8", "amx_tile": "amx-tile",
    "asimd": "neon", "asimddp": "dotprod", "asimdhp": "fullfp16", "asimdrdm": "rdm", "atomics": "lse", "bmi1": "bmi",
    "crc32": "crc", "pclmulqdq": "pclmul", "pni": "sse3", "sha_ni": "sha", "sse4_1": "sse4.1", "sse4_2": "sse4.2",
}  # fmt: skip


def implied_by(feature: str, arch: str) -> frozenset[str]:
    """The extension and all that it builds on, as LLVM has it: who uses one uses the others."""
    chain = {feature}
    while (feature := _BASES.get(feature, "")) and arch == "x86_64":
        chain.add(feature)
    return frozenset(chain)


def from_linux(flags: list[str], arch: str) -> frozenset[str]:
    """LLVM names of the known extensions among the flags of `/proc/cpuinfo`."""
    names = {_LINUX_NAMES.get(flag, flag.replace("_", "")) for flag in flags}
    return frozenset(names & PROBES[arch].keys())


def probe(feature: str, arch: str) -> Probe:
    """Where a processor reports `feature`.

    Raises
    ------
    TargetError
        If sparsec does not know the extension on this architecture.
    """
    try:
        return PROBES[arch][feature]
    except KeyError:
        known = ", ".join(sorted(PROBES[arch]))
        raise TargetError(f"unknown {arch} extension {feature!r}; the known ones are {known}") from None
