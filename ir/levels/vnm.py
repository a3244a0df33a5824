"""V:N:M levels: a choice of coordinates for several fibers, and of these a few for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.dense import Dense
from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit
from sparsec.ir.levels.structured import repeat_last


@dataclass(frozen=True)
class Vnm(Level):
    """Runs of `v` fibers share `s` coordinates, `columns[run * s:(run + 1) * s]`; each fiber has `n` of these.

    `indices[p * n:(p + 1) * n]` says which. Slots without an entry repeat the last one of their fiber, so that they
    lead inside the tensor, and store zeros. The format is V:N:M of Castro et al., "VENOM", SC 2023, where s is 4 and n
    is 2, so that what is left of a block is 2:4.
    """

    n: int
    s: int
    v: int
    name: ClassVar[str] = "vnm"
    slots: ClassVar[bool] = True
    coordinates: ClassVar[tuple[str, ...]] = ("columns",)

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if self.n > self.s:
            return f"cannot hold {self.n} of {self.s} columns"
        return None if isinstance(above, Dense) else "must follow a dense level, the rows of its blocks"

    def misfit(self, size: int | None, above: int | None) -> str | None:
        if size is not None and self.s > size:
            return f"cannot choose {self.s} of {size} coordinates"
        if above is not None and above % self.v:
            return f"shares its columns among {self.v} positions of the level above, which do not divide its {above}"
        return None

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"columns": axis.size - 1, "indices": self.s - 1}

    @property
    def limit(self) -> str:
        return f"holds {self.n} in each fiber, of {self.s} columns for {self.v} fibers"

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        """Keep the `s` coordinates with the most entries in each run, and the first `n` of these in each fiber."""
        run = entries.parent // self.v
        per_column = self._per_column(axis, entries)
        ranking = np.argsort(-per_column, axis=1, kind="stable")
        chosen = np.zeros_like(per_column, dtype=bool)
        np.put_along_axis(chosen, ranking[:, : self.s], True, axis=1)
        kept = chosen[run, entries.coordinate]
        kept[kept] = entries.where(kept).nth < self.n
        return kept

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        used = self._per_column(axis, entries) > 0
        rank = np.cumsum(used, axis=1) - 1
        columns = np.zeros((len(used), self.s), dtype=np.int64)
        run, column = np.nonzero(used)
        columns[run, rank[run, column]] = column
        indices = np.zeros((entries.parents, self.n), dtype=np.int64)
        indices[entries.parent, entries.nth] = rank[entries.parent // self.v, entries.coordinate]
        arrays = {
            "columns": repeat_last(columns, used.sum(axis=1)).ravel(),
            "indices": repeat_last(indices, entries.per_parent).ravel(),
        }
        return Stored(entries.parent * self.n + entries.nth, indices.size, arrays)

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        position = parent.position * self.n + (yield Loop("dense", self.n))
        return Cursor(position, load("columns", parent.position // self.v * self.s + load("indices", position)))

    def _per_column(self, axis: Axis, entries: Entries) -> np.ndarray:
        """Return how many fibers of each run have each coordinate, int64 [runs, size]."""
        shape = entries.parents // self.v, axis.size
        opened = (entries.parent // self.v * axis.size + entries.coordinate)[entries.opens]
        return np.bincount(opened, minlength=shape[0] * shape[1]).reshape(shape)
