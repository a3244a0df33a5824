"""Compressed levels: only coordinates with entries, found by pointers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit, pointers


@dataclass(frozen=True)
class Compressed(Level):
    """Only coordinates with entries have positions: fiber p holds `indices[indptr[p]:indptr[p + 1]]`, ascending.

    With `nonunique` a coordinate is repeated for each coordinate of the singleton levels that follow (COO). Under a
    level that knows the bounds of the fibers there is no `indptr`.
    """

    nonunique: bool = False
    name: ClassVar[str] = "compressed"
    coordinates: ClassVar[tuple[str, ...]] = ("indices",)
    consecutive: ClassVar[str] = "indices"

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if self.nonunique and not (below and below.shares_positions):
            return "must be followed by a singleton level, which tells its repeated coordinates apart"
        return None

    def arrays(self, axis: Axis) -> dict[str, int]:
        bounds = {} if axis.bounded else {"indptr": axis.positions}
        return bounds | {"indices": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        indices = entries.coordinate[entries.opens]
        bounds = {} if axis.bounded else {"indptr": pointers(entries.parent[entries.opens], entries.parents)}
        return Stored(np.cumsum(entries.opens) - 1, len(indices), bounds | {"indices": indices})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        if parent.fiber is None:
            start = load("indptr", parent.position)
            length = load("indptr", parent.position + 1) - start
        else:
            start, length = parent.fiber
        position = start + (yield Loop("sparse", length))
        return Cursor(position, load("indices", position))
