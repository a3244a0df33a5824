"""The rates at which one core multiplies when nothing holds it up: what measured layers are held against."""

import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
ROUNDS = 200_000
CHAINS = 12  # instructions, or short runs of them, of a round
BYTES, BITS = 64, 512  # products of an instruction, each a multiplication and an addition


def byte_peak(folder: Path) -> Callable[[], float]:
    """Compile a loop of products of bytes; each call of what is returned runs it for a while, and gives operations/s.

    The loop needs AVX512-VNNI.
    """
    return _peak(folder, "chains", 2 * BYTES)


def bit_peak(folder: Path) -> Callable[[], float]:
    """Compile a loop of products of bits, as `byte_peak`; one is an AND, a POPCOUNT and an addition.

    The loop needs AVX512-VPOPCNTDQ.
    """
    return _peak(folder, "bits", 2 * BITS)


def _peak(folder: Path, function: str, operations: int) -> Callable[[], float]:
    library = folder / f"{function}.so"
    flags = ["-O2", "-shared", "-fPIC", "-mavx512f", "-mavx512vnni", "-mavx512vpopcntdq"]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags, str(SOURCE), "-o", str(library)], check=True)
    loop = ctypes.CDLL(str(library))[function]
    loop.argtypes = [ctypes.c_long]

    def rate() -> float:
        start = time.perf_counter()
        loop(ROUNDS)
        return ROUNDS * CHAINS * operations / (time.perf_counter() - start)

    return rate
