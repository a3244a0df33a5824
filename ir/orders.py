"""Orders: permutations of a logical dimension, before it is cut into digits."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels import Attribute

WINDOW = 4096  # coordinates that are compared with each other
CANDIDATES = 256  # coordinates that are considered for a run


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


@dataclass(frozen=True)
class Alike(Order):
    """Coordinates with nearly as many entries stand together, in runs of `group`, so that slices of them are full.

    The runs are dealt to equal chunks, forth and back, so that these have nearly as many entries, and ascend in each.
    Where `group` does not divide the extent, those with the fewest entries are the last run, beside padding.
    """

    group: int
    chunks: int = 1
    name: ClassVar[str] = "alike"

    def order(self, pattern: np.ndarray) -> np.ndarray:
        by_weight = np.argsort(np.count_nonzero(pattern, axis=1), kind="stable")
        ragged = len(by_weight) % self.group
        runs = by_weight[ragged:].reshape(-1, self.group)
        nth = np.arange(len(runs)) % (2 * self.chunks)
        chunk = np.minimum(nth, 2 * self.chunks - 1 - nth)
        return np.concatenate((runs[np.argsort(chunk, kind="stable")].ravel(), by_weight[:ragged]))


@dataclass(frozen=True)
class Condense(Order):
    """Coordinates with entries come first, the empty ones last, both as they were.

    Tiles of what is left are then full: the two-sided tile-wise sparsity of Guo et al., "Accelerating Sparse DNN Models
    without Hardware-Support via Tile-Wise Sparsity", SC 2020, section IV.
    """

    name: ClassVar[str] = "condense"

    def order(self, pattern: np.ndarray) -> np.ndarray:
        return np.argsort(~pattern.any(axis=1), kind="stable")


@dataclass(frozen=True)
class Similar(Order):
    """Coordinates with many entries in common stand together, in runs of `group`, so that blocks of them are full.

    Each run starts with the heaviest coordinate that is left, and takes those nearest to it by the Jaccard index
    (entries in common ÷ entries of either), summed over the run. Where there are many coordinates, only those of a
    window of similar weights are compared.
    """

    group: int
    name: ClassVar[str] = "similar"

    def order(self, pattern: np.ndarray) -> np.ndarray:
        heaviest = np.argsort(-np.count_nonzero(pattern, axis=1), kind="stable")
        window = -(-WINDOW // self.group) * self.group
        windows = (heaviest[first : first + window] for first in range(0, len(heaviest), window))
        return np.concatenate([members[self._runs(pattern[members])] for members in windows])

    def _runs(self, pattern: np.ndarray) -> np.ndarray:
        """Return an order of coordinates that are sorted by weight."""
        entries = pattern.astype(np.float32)
        common = entries @ entries.T
        weight = common.diagonal()
        alike = common / np.maximum(weight + weight[:, None] - common, 1)
        left = np.ones(len(pattern), dtype=bool)
        places = []
        while left.any():
            run = [int(np.argmax(left))]
            near = np.where(left, alike[run[0]], -1)
            near[run] = -1
            while len(run) < self.group and near.max() >= 0:
                run.append(int(np.argmax(near)))
                near += alike[run[-1]] * (near >= 0)
                near[run] = -1
            left[run] = False
            places += sorted(run)
        return np.array(places)


@dataclass(frozen=True)
class Combine(Order):
    """Coordinates stand together in runs of `group` of which no two have an entry in common, if that can be.

    A structured[1, group] level then stores each run as one coordinate. This is the column combining of Kung, McDanel
    and Zhang, "Packing Sparse Convolutional Neural Networks for Efficient Systolic Array Implementations", ASPLOS 2019,
    section 3. To partition a graph into cliques is hard; the runs grow greedily, each from the coordinate with the most
    conflicts, by those that are compatible with few others. So they are found again where a tensor was pruned to them;
    where they are not, nothing moves.
    """

    group: int
    name: ClassVar[str] = "combine"

    def order(self, pattern: np.ndarray) -> np.ndarray:
        extent = len(pattern)
        firsts = np.arange(0, extent, self.group)
        fits = np.add.reduceat(pattern, firsts, axis=0, dtype=np.int64).max() <= 1
        if fits or np.count_nonzero(pattern, axis=0).max() > len(firsts):  # or no order can
            return np.arange(extent)
        empty = np.flatnonzero(~pattern.any(axis=1)).tolist()
        spare = len(firsts) * self.group - extent + len(empty)
        runs = []
        for run in self._runs(pattern):
            runs.append(run)
            spare -= self.group - len(run)
            if spare < -extent // 8:  # hopeless: what is left conflicts with each of these runs
                return np.arange(extent)
        runs.sort(key=lambda run: (-len(run), run))
        rooms = np.minimum(self.group, extent - firsts).tolist()
        if not self._dissolve(runs, rooms, pattern):
            return np.arange(extent)
        for run, room in zip(runs, rooms, strict=True):
            while len(run) < room:
                run.append(empty.pop(0))
        whole = sorted(sorted(run) for run in runs[:-1])
        return np.array([coordinate for run in [*whole, sorted(runs[-1])] for coordinate in run])

    def _dissolve(self, runs: list[list[int]], rooms: list[int], pattern: np.ndarray) -> bool:
        """Leave a run for each room, the longest first, and say whether these can take what is in the others."""
        runs += [[] for _ in rooms[len(runs) :]]
        surplus = [coordinate for run in runs[len(rooms) :] for coordinate in run] + runs[len(rooms) - 1][rooms[-1] :]
        del runs[len(rooms) :], runs[-1][rooms[-1] :]
        taken = np.array([pattern[run].any(axis=0) for run in runs])
        for coordinate in surplus:
            free = ~(taken & pattern[coordinate]).any(axis=1) & (np.array([*map(len, runs)]) < rooms)
            if not free.any():
                return False
            best = int(np.argmax(free))
            runs[best].append(coordinate)
            taken[best] |= pattern[coordinate]
        return True

    def _runs(self, pattern: np.ndarray) -> Iterator[list[int]]:
        """Yield runs of at most `group` coordinates that have entries, without conflicts."""
        entries = pattern.astype(np.float32)
        compatible = entries @ entries.T == 0
        np.fill_diagonal(compatible, False)
        left: np.ndarray = np.count_nonzero(pattern, axis=1) > 0
        compatible[:, ~left] = False
        partners = np.count_nonzero(compatible, axis=1)
        while left.any():
            run = [int(np.argmin(np.where(left, partners, len(pattern))))]
            while len(run) < self.group and (candidates := np.flatnonzero(compatible[run].all(axis=0))).size:
                candidates = candidates[np.argsort(partners[candidates], kind="stable")[:CANDIDATES]]
                near = compatible[np.ix_(candidates, candidates)]
                free = np.ones(len(candidates), dtype=bool)
                while len(run) < self.group and free.any():
                    # One whose other partners are partners of the run, too, would not be missed elsewhere.
                    own = (np.count_nonzero(near[:, free], axis=1) + 1) / partners[candidates]
                    best = int(np.argmax(np.where(free, own, -1)))
                    run.append(int(candidates[best]))
                    free = free & near[best]
            partners = partners - np.count_nonzero(compatible[:, run], axis=1)
            compatible[:, run] = False
            left[run] = False
            yield run


ORDERS: dict[str, type[Order]] = {order.name: order for order in (Balance, Alike, Condense, Similar, Combine)}
