"""How fast this machine's memory is."""

from __future__ import annotations

from time import perf_counter

import numpy as np

LEAST_BYTES = 64_000_000
RUNS = 5


def memory_bandwidth(l3_bytes: int) -> float:
    """Bytes a second that one core moves from and to memory, by the fastest of a few copies that no cache holds."""
    source = np.ones(max(LEAST_BYTES, 2 * l3_bytes) // 8)
    copy = np.ones_like(source)  # touched, so that no copy waits for the system to find pages
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        np.copyto(copy, source)
        times.append(perf_counter() - start)
    return 2 * source.nbytes / min(times)
