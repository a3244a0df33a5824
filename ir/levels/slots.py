"""Slots: the entries of several fibers side by side, as many as the fullest of them has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.dense import Dense
from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Index, Level, Load, Loop, Stored, Visit


@dataclass(frozen=True)
class Slots(Level):
    """Each coordinate is repeated, once for each entry that the fullest fiber of a slice has there.

    A slice is what the dense level that follows spans, and the slots of coordinate c of parent p, of n coordinates, are
    `slot_ptr[p * n + c]` to `slot_ptr[p * n + c + 1]`. The j-th of them holds the j-th entry of each fiber, whose
    coordinate the singleton level behind tells; fibers with fewer entries store zeros in what is left. With one
    coordinate this is SELL: Kreutzer et al., "A Unified Sparse Matrix Data Format for Efficient General Sparse
    Matrix-Vector Multiplication on Modern Processors with Wide SIMD Units", SIAM J. Sci. Comput. 36(5), 2014.
    """

    name: ClassVar[str] = "slots"
    shares_lanes: ClassVar[bool] = True

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        return None if isinstance(below, Dense) else "must be followed by a dense level, whose fibers share its slots"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"slot_ptr": axis.positions}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        owner, owners = entries.parent * axis.size + entries.coordinate, entries.parents * axis.size
        _, fiber, counts = np.unique(
            np.stack((owner, entries.below)), axis=1, return_inverse=True, return_counts=True
        )
        nth = np.empty_like(owner)
        nth[np.argsort(fiber, kind="stable")] = np.arange(len(fiber)) - np.repeat(np.cumsum(counts) - counts, counts)
        lengths = np.zeros(owners, dtype=np.int64)
        np.maximum.at(lengths, owner, nth + 1)
        pointer = np.append(0, np.cumsum(lengths))
        return Stored(pointer[owner] + nth, int(pointer[-1]), {"slot_ptr": pointer})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        coordinate: Index = 0
        if axis.size > 1:
            coordinate = yield Loop("dense", axis.size)
        place = parent.position * axis.size + coordinate
        start = load("slot_ptr", place)
        position = start + (yield Loop("sparse", load("slot_ptr", place + 1) - start))
        return Cursor(position, coordinate)
