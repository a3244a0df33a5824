"""The rate at which one core multiplies bytes when nothing holds it up: what measured layers are held against."""

import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
ROUNDS = 200_000
OPERATIONS = ROUNDS * 12 * 128  # instructions of a round; multiplications and additions of 64 bytes


def byte_peak(folder: Path) -> Callable[[], float]:
    """Compile a loop of products of bytes; each call of what is returned runs it for a while, and gives operations/s.

    The loop needs AVX512-VNNI.
    """
    library = folder / "peak.so"
    flags = ["-O2", "-shared", "-fPIC", "-mavx512f", "-mavx512vnni"]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags, str(SOURCE), "-o", str(library)], check=True)
    loop = ctypes.CDLL(str(library)).chains
    loop.argtypes = [ctypes.c_long]

    def rate() -> float:
        start = time.perf_counter()
        loop(ROUNDS)
        return OPERATIONS / (time.perf_counter() - start)

    return rate
