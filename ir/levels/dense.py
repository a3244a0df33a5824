"""Dense levels: every coordinate is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit


@dataclass(frozen=True)
class Dense(Level):
    """Every coordinate has a position; nothing is stored."""

    name: ClassVar[str] = "dense"
    pads: ClassVar[bool] = True

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        return Stored(entries.parent * axis.size + entries.coordinate, entries.parents * axis.size, {})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        coordinate = yield Loop("dense", axis.size)
        return Cursor(parent.position * axis.size + coordinate, coordinate)
