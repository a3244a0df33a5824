"""Bucketed levels: dense ones, sorted by the length of the fibers below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.bitmap import Bitmap
from sparsec.ir.levels.compressed import Compressed
from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Index, Level, Load, Loop, Stored, Visit, pointers, runs_of


@dataclass(frozen=True)
class Bucketed(Level):
    """Every coordinate has a position, and those with equally long fibers below stand together, shortest first.

    Position s holds coordinate `coords[s]`. Parent p owns the buckets `bucket_ptr[p]` to `bucket_ptr[p + 1]`; bucket b
    owns the positions `row_ptr[b]` to `row_ptr[b + 1]`, and each of those has exactly `lengths[b]` consecutive
    entries in the compressed level or bitmap below, the first row's from `start[b]` on. Loop exits are so predictable,
    and a compressed level below needs no `indptr`. Within a bucket the coordinates ascend; empty fibers are a bucket of
    length 0.
    """

    name: ClassVar[str] = "bucketed"
    pads: ClassVar[bool] = True
    gives_fibers: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = True

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if isinstance(below, Bitmap) or (isinstance(below, Compressed) and not below.nonunique):
            return None
        return "must be followed by a compressed level or a bitmap, whose fibers it sorts by length"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {
            "coords": axis.size - 1,
            "bucket_ptr": axis.positions,
            "row_ptr": axis.positions,
            "lengths": axis.child,
            "start": axis.positions * axis.child,
        }

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        rows = entries.parents * axis.size
        row = entries.parent * axis.size + entries.coordinate
        counts = np.bincount(row[entries.opens_below], minlength=rows).reshape(entries.parents, axis.size)
        by_row = runs_of(counts, axis.below)
        coords = np.argsort(by_row, axis=1, kind="stable")
        by_place = np.take_along_axis(by_row, coords, axis=1)
        first_of_bucket = np.ones_like(by_place, dtype=bool)
        first_of_bucket[:, 1:] = by_place[:, 1:] != by_place[:, :-1]
        buckets = np.flatnonzero(first_of_bucket)
        lengths = by_place.ravel()

        position_of_row = np.empty(rows, dtype=np.int64)
        position_of_row[(coords + np.arange(entries.parents)[:, None] * axis.size).ravel()] = np.arange(rows)
        arrays = {
            "coords": coords.ravel(),
            "bucket_ptr": pointers(buckets // axis.size, entries.parents),
            "row_ptr": np.append(buckets, rows),
            "lengths": lengths[buckets],
            "start": (np.cumsum(lengths) - lengths)[buckets],
        }
        return Stored(position_of_row[row], rows, arrays)

    def coordinate_at(self, position: Index, load: Load) -> Index:
        return load("coords", position)

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        first = load("bucket_ptr", parent.position)
        bucket = first + (yield Loop("bucket", load("bucket_ptr", parent.position + 1) - first))
        row = load("row_ptr", bucket)
        nth = yield Loop("row", load("row_ptr", bucket + 1) - row)
        length = load("lengths", bucket)
        return Cursor(row + nth, load("coords", row + nth), (load("start", bucket) + nth * length, length))
