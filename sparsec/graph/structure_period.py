"""After how many rows and columns the structure of a pruned weight repeats.

Layouts such as 2:4, blocks and tiles count coordinates from the start of the matrix. A channel that is removed moves
all that follow, and the structure is lost to the layout, unless whole periods are removed.
"""

from __future__ import annotations

import math

import numpy as np

from sparsec.ir.structures import find_structures


def find_periods(weight: np.ndarray) -> tuple[int, int]:
    """The periods along the first two axes, 1 where the zeros have no structure.

    >>> find_periods(np.kron([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [1, 0, 0, 1, 0]], np.ones((4, 1))))
    (4, 1)

    Parameters
    ----------
    weight : of a linear layer or convolution, ``[outputs, inputs, ...]``
    """
    taps = math.prod(weight.shape[2:])
    found = [each.period for each in find_structures(weight.reshape(len(weight), -1) != 0, taps)]
    return math.lcm(*(rows for rows, _ in found)), math.lcm(taps, *(columns for _, columns in found)) // taps
