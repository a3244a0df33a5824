"""The machine that a measurement was taken on."""

import os
import platform
import re
from dataclasses import dataclass, field

from sparsec.targets.native import caches, read_cpuinfo

_FEATURES = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sme",
)  # fmt: skip
_KINDS = {"Data": "d", "Instruction": "i"}


@dataclass(frozen=True)
class Machine:
    """What decides a CPU's speed.

    Parameters
    ----------
    cpu : str
        Vendor's name, with family and model where the kernel tells them.
    cores : int
        Cores that this process may use.
    caches : dict
        Bytes of each cache of the first core, by level.
    features : tuple
        Vector and matrix instruction sets, in the kernel's words.
    system : str
        Operating system and release.
    """

    cpu: str
    cores: int
    caches: dict[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    system: str = ""

    @property
    def slug(self) -> str:
        """A file name for results: ``amd-epyc-family-26-model-2-2-cores``."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.cpu} {self.cores} cores".lower()).strip("-")

    def __str__(self) -> str:
        caches = ", ".join(f"{name} {size >> 10} KB" for name, size in self.caches.items())
        return f"{self.cpu}, {self.cores} cores" + (f" ({caches})" if caches else "")


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    info = read_cpuinfo()
    cpu = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in info:
        cpu += f" (family {info['cpu family']}, model {info['model']})"
    flags = set((info.get("flags") or info.get("Features") or "").split())
    features = tuple(feature for feature in _FEATURES if feature in flags)
    sizes = {f"L{level}{_KINDS.get(kind, '')}": size for (level, kind), size in caches().items()}
    return Machine(cpu, cores, sizes, features, f"{platform.system()} {platform.release()}")
