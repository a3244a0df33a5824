"""Singleton levels: one coordinate for each position above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.compressed import Compressed
from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Stored, Visit
from sparsec.ir.levels.slots import Slots


@dataclass(frozen=True)
class Singleton(Level):
    """Each parent has exactly one coordinate, `indices[p]`, and shares its position with it."""

    name: ClassVar[str] = "singleton"
    coordinates: ClassVar[tuple[str, ...]] = ("indices",)
    shares_positions: ClassVar[bool] = True

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if isinstance(above, Singleton | Slots) or (isinstance(above, Compressed) and above.nonunique):
            return None
        return "must follow compressed(nonunique) or another singleton, or share slots, so that parents have one each"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"indices": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        indices = np.zeros(entries.parents, dtype=np.int64)
        indices[entries.parent] = entries.coordinate
        return Stored(entries.parent, entries.parents, {"indices": indices})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        return Cursor(parent.position, load("indices", parent.position))
        yield  # no loop, but a generator like the others
