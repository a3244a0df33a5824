"""Find out what this machine is, from Linux's `/proc` and `/sys`."""

import ctypes
import os
import platform
from dataclasses import replace
from pathlib import Path

from sparsec.errors import TargetError
from sparsec.targets.catalogue import KIB, MIB, TARGETS
from sparsec.targets.features import X86_V2, X86_V3, X86_V4, from_linux
from sparsec.targets.target import Target

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")

_SYS_ARCH_PRCTL, _ARCH_GET_XCOMP_SUPP, _TILE_DATA = 158, 0x1021, 18
"""Linux, Documentation/arch/x86/xstate.rst."""

# (vendor, family) to ranges of models, after LLVM's Host.cpp and the vendors' lists.
_X86_MODELS: dict[tuple[str, int], list[tuple[range, str]]] = {
    ("AuthenticAMD", 0x17): [(range(0x30, 0xB0), "znver2")],
    ("AuthenticAMD", 0x19): [
        (range(0x10, 0x20), "znver4"),
        (range(0x60, 0x80), "znver4"),
        (range(0xA0, 0xB0), "znver4"),
        (range(0x00, 0x100), "znver3"),
    ],
    ("AuthenticAMD", 0x1A): [(range(0x00, 0x100), "znver5")],
    ("GenuineIntel", 6): [
        (range(0x3C, 0x3D), "haswell"),
        (range(0x3F, 0x40), "haswell"),
        (range(0x45, 0x48), "haswell"),
        (range(0x4E, 0x4F), "skylake"),
        (range(0x5E, 0x5F), "skylake"),
        (range(0x8E, 0x8F), "skylake"),
        (range(0x9E, 0x9F), "skylake"),
        (range(0x55, 0x56), "skylake-avx512"),
        (range(0x6A, 0x6B), "icelake-server"),
        (range(0x6C, 0x6D), "icelake-server"),
        (range(0x8F, 0x90), "sapphirerapids"),
        (range(0xCF, 0xD0), "sapphirerapids"),
    ],
}
# Extensions that no older processor of the vendor has. They tell those apart whose numbers are newer than the table, or
# are other processors' numbers, which some virtual machines show.
_X86_MARKS = {
    "GenuineIntel": [("amx-tile", "sapphirerapids")],
    "AuthenticAMD": [("avx512vp2intersect", "znver5"), ("avx512f", "znver4")],
}
_ARM_PARTS = {
    (0x41, 0xD08): "cortex-a72",
    (0x41, 0xD0B): "cortex-a76",
    (0x41, 0xD0C): "neoverse-n1",
    (0x41, 0xD40): "neoverse-v1",
    (0x41, 0xD49): "neoverse-n2",
    (0x41, 0xD4F): "neoverse-v2",
}


def detect() -> Target:
    """The target of the machine that this runs on.

    Where the number of the processor is unknown, the newest one of its vendor that its extensions tell for certain, or
    else the highest x86-64 level (or plain AArch64) with the extensions that it reports.
    Extensions that a processor of this name has, but a virtual machine hides, are taken away.
    """
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if arch not in ("x86_64", "aarch64") or platform.system() != "Linux":
        raise TargetError(
            f"this machine is {platform.system()} on {platform.machine()}; sparsec compiles for Linux on x86_64 and "
            "aarch64, so name a target, such as x86-64-v3"
        )
    cpuinfo = read_cpuinfo()
    isa = from_linux(cpuinfo.get("flags", cpuinfo.get("Features", "")).split(), arch)
    base = TARGETS[_x86_name(cpuinfo, isa) if arch == "x86_64" else _arm_name(cpuinfo)]
    if "amx-tile" in isa and not _keeps_tiles():
        isa = frozenset(name for name in isa if not name.startswith("amx"))
    missing = sorted(base.isa - isa) if isa else []
    # An unknown processor may have more than its level says; a known one is LLVM's to describe.
    extra = sorted(isa - base.isa) if base.name.startswith("x86-64-v") or base.name == "aarch64" else []
    changed = base.with_features(*(f"-{name}" for name in missing), *(f"+{name}" for name in extra))
    sizes = {level: size for (level, kind), size in caches().items() if kind != "Instruction" and size}
    return replace(
        changed,
        name=base.name if not (missing or extra) else changed.name,
        l1_bytes=sizes.get(1, base.l1_bytes),
        l2_bytes=sizes.get(2, base.l2_bytes),
        l3_bytes=sizes.get(3, base.l3_bytes),
        cores=physical_cores(),
    )


def cores() -> list[list[int]]:
    """The processors that this process may use, those of one physical core together."""
    shared: dict[str, list[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            siblings = (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        shared.setdefault(siblings, []).append(cpu)
    return list(shared.values())


def physical_cores() -> int:
    """Physical cores among the processors that this process may use."""
    return len(cores())


def read_cpuinfo() -> dict[str, str]:
    """The fields of the first processor in `/proc/cpuinfo`; empty if it cannot be read."""
    try:
        block = _CPUINFO.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _x86_name(cpuinfo: dict[str, str], isa: frozenset[str]) -> str:
    if "model" in cpuinfo and "cpu family" in cpuinfo:
        key = (cpuinfo.get("vendor_id", ""), int(cpuinfo["cpu family"]))
        model = int(cpuinfo["model"])
        for models, name in _X86_MODELS.get(key, []):
            if model in models:
                is_cascade_lake = name == "skylake-avx512" and "avx512vnni" in isa
                return "cascadelake" if is_cascade_lake else name
    for mark, name in _X86_MARKS.get(cpuinfo.get("vendor_id", ""), []):
        if mark in isa and TARGETS[name].isa <= isa:
            return name
    for level, name in ((X86_V4, "x86-64-v4"), (X86_V3, "x86-64-v3"), (X86_V2, "x86-64-v2")):
        if level <= isa:
            return name
    return "x86-64-v2"


def _keeps_tiles() -> bool:
    """Whether the system keeps the registers of AMX for processes that ask for it, as Linux does since 5.16."""
    supported = ctypes.c_uint64()
    done = ctypes.CDLL(None).syscall(_SYS_ARCH_PRCTL, _ARCH_GET_XCOMP_SUPP, ctypes.byref(supported))
    return not done and bool(supported.value >> _TILE_DATA & 1)


def _arm_name(cpuinfo: dict[str, str]) -> str:
    part = (int(cpuinfo.get("CPU implementer", "0"), 0), int(cpuinfo.get("CPU part", "0"), 0))
    return _ARM_PARTS.get(part, "aarch64")


def caches() -> dict[tuple[int, str], int]:
    """Bytes of the caches of processor 0, by level and kind (Data, Instruction or Unified); without those not told."""
    found = {}
    for index in sorted(_CPUS.glob("cpu0/cache/index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            found[int(level), kind] = int(size.rstrip("KM")) * {"K": KIB, "M": MIB}.get(size[-1:], 1)
        except (OSError, ValueError):
            continue
    return found
