"""Structured levels: the same number of positions in every fiber."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit


@dataclass(frozen=True)
class Structured(Level):
    """Every fiber has `n` of the `m` coordinates: fiber p holds `indices[p * n:(p + 1) * n]`, ascending.

    A slot without an entry repeats the last coordinate of its fiber that has one, or 0, so that it leads inside the
    tensor, and stores zeros. `m` is the size of the digit, and left out for the leading digit of a dim (ELLPACK).
    """

    n: int
    m: int = 0
    name: ClassVar[str] = "structured"
    slots: ClassVar[bool] = True
    coordinates: ClassVar[tuple[str, ...]] = ("indices",)

    def over(self, size: int | None) -> Level:
        return replace(self, m=size) if size and not self.m else self

    def misfit(self, size: int | None, above: int | None) -> str | None:
        if self.m and size != self.m:
            return f"chooses from {self.m} coordinates, but its digit has {size or 'no bound'}"
        if self.m and self.n > self.m:
            return f"cannot hold {self.n} of {self.m} coordinates"
        return None

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"indices": axis.size - 1}

    @property
    def limit(self) -> str:
        return f"holds {self.n} in each fiber"

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        return entries.nth < self.n

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        slots = self._slots(axis)
        indices = np.zeros((entries.parents, slots), dtype=np.int64)
        indices[entries.parent, entries.nth] = entries.coordinate
        position = entries.parent * slots + entries.nth
        return Stored(position, indices.size, {"indices": repeat_last(indices, entries.per_parent).ravel()})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        slots = self._slots(axis)
        position = parent.position * slots + (yield Loop("dense", slots))
        return Cursor(position, load("indices", position))

    def _slots(self, axis: Axis) -> int:
        return min(self.n, axis.size)


def repeat_last(rows: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Fill rows, of which the first `used` places hold a value, with the last of these; int64 [n, places]."""
    column = np.minimum(np.arange(rows.shape[1]), np.maximum(used - 1, 0)[:, None])
    return np.take_along_axis(rows, column, axis=1)
