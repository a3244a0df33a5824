"""Masks whose zeros lie as each way of pruning leaves them, which random weights are pruned to."""

from collections.abc import Callable

import numpy as np

from sparsec.pruning.patterns import Mask, Scores, parse_pattern

Make = Callable[[np.random.Generator, int, int, float], Mask]
"""Chooses what to keep of a random matrix [rows, depth], outputs first, by the share that is meant to stay."""

CONNECTIVITY = 3.6  # kernels for each that is kept, of whose 3×3 taps 4 are


def pruned(pattern: str, taps: int = 1) -> Make:
    """Prune to a pattern, in whose text ``{size}`` is how many weights there are for each that stays."""

    def make(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
        chosen = parse_pattern(pattern.format(size=round(1 / kept)))
        (mask,) = chosen.keep([Scores(rng.random((rows, depth)), taps)], 1 - kept)
        return mask

    return make


STRUCTURES: dict[str, tuple[Make, tuple[float, ...]]] = {
    "unstructured": (pruned("unstructured"), (0.5, 0.2, 0.1, 0.05)),
    "4x1 blocks": (pruned("block:4x1"), (0.25, 0.1)),
    "8x1 blocks": (pruned("block:8x1"), (0.25,)),
    "4x4 blocks": (pruned("block:4x4"), (0.2,)),
    "tile-wise": (pruned("tile-wise:128"), (0.25,)),
    "tile-wise two-sided": (pruned("tile-wise:128,two-sided"), (0.25,)),
    "tile-element-wise": (pruned("tew:128,0.01"), (0.25,)),
    "tile-vector-wise": (pruned("tvw:128"), (0.25,)),
    "2:4": (pruned("2:4"), (0.5,)),
    "1:4": (pruned("1:4"), (0.25,)),
    "16:2:8": (pruned("16:2:8"), (0.25,)),
    "patterns": (pruned(f"fkw:4,8,{CONNECTIVITY}", taps=9), (4 / 9 / CONNECTIVITY,)),
    "diagonals": (pruned("diagonal:{size}"), (0.25, 0.125)),
    "combined columns": (pruned("combine:{size}"), (0.125,)),
}
"""Each way of pruning, and the shares that it is measured at."""
