"""Orders: permutations of a logical dimension, before it is cut into digits."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels import Attribute


class Order(Attribute):
    """A way to permute a dimension. A new one is a frozen dataclass with this method and a line in `ORDERS`."""

    def order(self, pattern: np.ndarray) -> np.ndarray:
        """Return the coordinate that stands at each place, int64 [extent].

        Parameters
        ----------
        pattern : bool [extent, others], where each coordinate has entries among the coordinates of all other dims
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Balance(Order):
    """An order of a logical dimension that splits it into equal chunks with nearly equal numbers of entries.

    Coordinates move in groups, so that a block of the layout stays whole. All chunks have ceil(groups / chunks) groups,
    but for the last ones where that does not divide. Groups go, heaviest first, to the lightest chunk with room (LPT:
    Graham, "Bounds on Multiprocessing Timing Anomalies", 1969), and ascend within a chunk. A ragged last group stays
    last, so that padding does.
    """

    chunks: int
    group: int = 1
    name: ClassVar[str] = "balance"

    def order(self, pattern: np.ndarray) -> np.ndarray:
        weights = np.count_nonzero(pattern, axis=1)
        extent = len(weights)
        groups = -(-extent // self.group)
        room = -(-groups // self.chunks)
        free = [min(room, groups - first) for first in range(0, groups, room)]
        members: list[list[int]] = [[] for _ in free]
        carried = [0] * len(free)
        weight = np.add.reduceat(weights, np.arange(0, extent, self.group)).tolist()

        whole = extent // self.group
        if whole < groups:
            members[-1].append(groups - 1)
            carried[-1], free[-1] = weight[-1], free[-1] - 1
        lightest = [(carried[chunk], chunk) for chunk in range(len(free)) if free[chunk]]
        heapq.heapify(lightest)
        for group in sorted(range(whole), key=lambda group: -weight[group]):
            _, chunk = heapq.heappop(lightest)
            members[chunk].append(group)
            carried[chunk], free[chunk] = carried[chunk] + weight[group], free[chunk] - 1
            if free[chunk]:
                heapq.heappush(lightest, (carried[chunk], chunk))
        placed = np.concatenate([np.sort(chunk) for chunk in members])
        coordinates = placed[:, None] * self.group + np.arange(self.group)
        return coordinates.ravel()[:extent]


ORDERS: dict[str, type[Order]] = {order.name: order for order in (Balance,)}
