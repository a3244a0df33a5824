"""The rates at which one core adds up products when nothing holds it up: what measured layers are held against."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sparsec.codegen.zig import zig_cc
from sparsec.errors import SparsecError
from sparsec.targets import Target

SOURCE = Path(__file__).with_suffix(".c")
ROUNDS = 20_000  # some 50 µs to 200 µs
TURNS = 20

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-nostdlib")


@dataclass(frozen=True)
class Loop:
    """A loop of `peak.c`.

    Parameters
    ----------
    instruction : that it carries out, as `intrinsics` and the steps of a profile name it
    function : its name there
    products : that one of its steps adds up, each two operations; of bits one is an AND, a POPCOUNT and an addition
    feature : the extension that a processor needs for it, by LLVM's name; empty where all of the architecture can
    """

    instruction: str
    function: str
    products: int
    feature: str = ""


LOOPS: dict[str, tuple[Loop, ...]] = {
    "x86_64": (
        Loop("fma.4", "mulps_addps_128", 4),
        Loop("fma.8", "fma_256", 8, "fma"),
        Loop("fma.16", "fma_512", 16, "avx512f"),
        Loop("x86.vpmaddwd.256", "vpmaddwd_256", 16, "avx2"),
        Loop("x86.vpmaddwd.512", "vpmaddwd_512", 32, "avx512bw"),
        Loop("x86.vpdpbusd.256", "vpdpbusd_256", 32, "avx512vnni"),
        Loop("x86.vpdpbusd.256", "vex_vpdpbusd_256", 32, "avxvnni"),
        Loop("x86.vpdpbusd.512", "vpdpbusd_512", 64, "avx512vnni"),
        Loop("x86.vdpbf16ps.256", "vdpbf16ps_256", 16, "avx512bf16"),
        Loop("x86.vdpbf16ps.512", "vdpbf16ps_512", 32, "avx512bf16"),
        Loop("x86.vpopcntd_and.512", "vpopcntd_512", 512, "avx512vpopcntdq"),
        Loop("x86.tdpbsud.m16n16k64", "tdpbsud", 16384, "amx-int8"),
        Loop("x86.tdpbssd.m16n16k64", "tdpbssd", 16384, "amx-int8"),
    ),
    "aarch64": (
        Loop("fma.4", "fmla_128", 4),
        Loop("arm.sdot.128", "sdot_128", 16, "dotprod"),
        Loop("arm.udot.128", "udot_128", 16, "dotprod"),
        Loop("arm.usdot.128", "usdot_128", 16, "i8mm"),
        Loop("arm.smmla.128", "smmla_128", 32, "i8mm"),
        Loop("arm.ummla.128", "ummla_128", 32, "i8mm"),
        Loop("arm.usmmla.128", "usmmla_128", 32, "i8mm"),
        Loop("arm.bfdot.128", "bfdot_128", 8, "bf16"),
        Loop("arm.bfmmla.128", "bfmmla_128", 16, "bf16"),
    ),
}
"""By architecture."""


def find_peak(instruction: str) -> Callable[[], float] | None:
    """Return what measures the rate of an instruction on one core, or None where this machine or `peak.c` lacks it.

    >>> measure = find_peak("fma.8")                                              # doctest: +SKIP
    >>> measure()                                                                 # doctest: +SKIP
    1.03e11

    Returns
    -------
    Operations a second, a multiply-add being two: the fastest of some turns, which take some milliseconds together.

    Raises
    ------
    SparsecError
        The loops do not compile.
    """
    native = Target.parse("native")
    loops = (loop for loop in LOOPS[native.arch] if loop.instruction == instruction)
    loop = next((loop for loop in loops if not loop.feature or native.has(loop.feature)), None)
    if loop is None:
        return None
    library = _library(native.arch)
    run = library[loop.function]
    run.argtypes, run.restype = [ctypes.c_long], None
    operations = 2 * loop.products * ctypes.c_int.in_dll(library, "sums").value * ROUNDS

    def rate() -> float:
        times = []
        for _ in range(TURNS):
            start = time.thread_time()  # what others take of the core is no part of it, as in profiles
            run(ROUNDS)
            times.append(time.thread_time() - start)
        return operations / min(times)

    return rate


@cache
def _library(arch: str) -> ctypes.CDLL:
    """The loops, which stay loaded."""
    with tempfile.TemporaryDirectory(prefix="sparsec-peak-") as folder:
        library = Path(folder) / "peak.so"
        compile_loops(arch, library)
        return ctypes.CDLL(str(library))


def compile_loops(arch: str, library: Path) -> None:
    """Compile the loops of an architecture into a library, working in its folder.

    Raises
    ------
    SparsecError
        The compiler fails.
    """
    arguments = [*_FLAGS, str(SOURCE), "-o", str(library)]
    done = zig_cc(f"{arch}-linux-gnu", arguments, library.parent)
    if done.returncode:
        raise SparsecError(f"the loops that measure the peak of a core do not compile: {done.stderr.strip()}")
