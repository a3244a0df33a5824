"""Diagonal levels: blocks with one diagonal, shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.dense import Dense
from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Stored, Visit


@dataclass(frozen=True)
class Diagonal(Level):
    """Row r of a square block has one coordinate, `(r + shift[block]) mod p`, and shares its position with it.

    The rows are the dense level above, of the same size p. This is the block-permuted diagonal matrix of Deng et al.,
    "PermDNN", MICRO 2018, whose only index is one shift a block.
    """

    name: ClassVar[str] = "diagonal"
    pads: ClassVar[bool] = True

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        return None if isinstance(above, Dense) else "must follow a dense level, the rows of its blocks"

    def misfit(self, size: int | None, above: int | None) -> str | None:
        if size is None or above is None or size == above:
            return None
        return f"must be as large as the dense level above, but has {size} coordinates for its {above}"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"shift": axis.size - 1}

    @property
    def limit(self) -> str:
        return "holds one diagonal of each block"

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        block, shift = self._shifts(axis, entries)
        return shift == self._chosen(axis, entries)[block]

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        return Stored(entries.parent, entries.parents, {"shift": self._chosen(axis, entries)})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        shift = load("shift", parent.position // axis.size)
        return Cursor(parent.position, (parent.coordinate + shift) % axis.size)
        yield  # no loop, but a generator like the others

    def _shifts(self, axis: Axis, entries: Entries) -> tuple[np.ndarray, np.ndarray]:
        """Return the block and the diagonal of each entry."""
        row = entries.parent % axis.size
        return entries.parent // axis.size, (entries.coordinate - row) % axis.size

    def _chosen(self, axis: Axis, entries: Entries) -> np.ndarray:
        """Return for each block the diagonal with the most entries."""
        block, shift = self._shifts(axis, entries)
        shape = entries.parents // axis.size, axis.size
        counts = np.bincount(block * axis.size + shift, minlength=shape[0] * shape[1])
        return np.argmax(counts.reshape(shape), axis=1)
