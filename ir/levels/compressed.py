"""Compressed levels: only coordinates with entries, found by pointers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Index, Level, Load, Loop, Stored, Visit, runs_of


@dataclass(frozen=True)
class Compressed(Level):
    """Only coordinates with entries have positions: fiber p holds `indices[indptr[p]:indptr[p + 1]]`, ascending.

    With a `run` of several coordinates, they are stored in runs of so many, which the values of what is below follow:
    all of a run's for its first element, then all for the next one. The last run of a fiber is filled up with its last
    coordinate, where zeros are stored, and fibers and pointers count runs.

    With `nonunique` a coordinate is repeated for each coordinate of the singleton levels that follow (COO). Under a
    level that knows the bounds of the fibers there is no `indptr`.
    """

    run: int = 1
    nonunique: bool = False
    name: ClassVar[str] = "compressed"
    coordinates: ClassVar[tuple[str, ...]] = ("indices",)
    consecutive: ClassVar[str] = "indices"

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if self.nonunique and not (below and below.shares_positions):
            return "must be followed by a singleton level, which tells its repeated coordinates apart"
        if self.run < 1 or (self.run > 1 and self.nonunique):
            return "must have runs of at least 1, and none of repeated coordinates"
        return None

    @property
    def together(self) -> int:
        return self.run

    def arrays(self, axis: Axis) -> dict[str, int]:
        bounds = {} if axis.bounded else {"indptr": axis.positions}
        return bounds | {"indices": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        runs = runs_of(entries.per_parent, self)
        first = np.cumsum(runs) - runs
        position = first[entries.parent] * self.run + entries.nth
        owner = np.repeat(np.arange(entries.parents), runs * self.run)
        slots = np.arange(len(owner)) - first[owner] * self.run
        last = np.minimum(slots, entries.per_parent[owner] - 1)
        started = np.cumsum(entries.per_parent) - entries.per_parent
        indices = entries.coordinate[entries.opens][started[owner] + last]
        bounds = {} if axis.bounded else {"indptr": np.append(first, runs.sum())}
        return Stored(position, len(indices), bounds | {"indices": indices})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        if parent.fiber is None:
            start = load("indptr", parent.position)
            length = load("indptr", parent.position + 1) - start
        else:
            start, length = parent.fiber
        position = start + (yield Loop("sparse", length))
        if self.run == 1:
            return Cursor(position, load("indices", position))
        return self.in_run(position, (yield Loop("dense", self.run)), load)

    def in_run(self, position: Index, lane: Index, load: Load) -> Cursor:
        return Cursor(position, load("indices", position * self.run + lane), lane=lane)
