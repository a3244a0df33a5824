"""Levels: how the coordinates of one storage dimension are kept, found again and looped over.

A level turns every position of the level above (its *parent*) into a *fiber*: an ordered run of positions, each with a
coordinate. It answers three questions, and everything that knows about layouts asks only these:

* `arrays`: which index arrays it has, and the largest value each may hold (known before any data is);
* `pack`: what is in those arrays, for given entries;
* `visit`: which loops walk a fiber, and where each iteration stands.

`visit` is written once and run three ways, because it only adds, subtracts, multiplies and loads: over TVM expressions
it is the lowering, over integers the interpreter, over whole NumPy arrays `Packed.unpack`. The formats are the level
formats of Chou, Kjolstad and Amarasinghe, "Format Abstraction for Sparse Tensor Algebra Compilers", OOPSLA 2018.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

Index = Any  # an int, an integer array or a TVM expression
Load = Callable[[str, Index], Index]  # load(name, index) reads an element of one of the level's arrays


@dataclass(frozen=True)
class Loop:
    """One counted loop, `for j in range(extent)`; `kind` is `dense` where the extent is a constant of the layout."""

    kind: str
    extent: Index


@dataclass(frozen=True)
class Cursor:
    """Where one iteration stands: its position, its coordinate, and its fiber below where this level knows that.

    `fiber` is the first position of the next level and how many there are.
    """

    position: Index
    coordinate: Index
    fiber: tuple[Index, Index] | None = None


ROOT = Cursor(0, 0)
Visit = Generator[Loop, Index, Cursor]  # yields loops, outermost first; is sent the index of each; returns the cursor


@dataclass(frozen=True)
class Axis:
    """What a level knows of its place before any data is there.

    Parameters
    ----------
    size : extent of this level's coordinate, padding included
    parents, positions : the most positions that the level above, and this one, can have
    child : the most positions of the next level in one fiber
    bounded : whether the level above gives the bounds of this level's fibers (`Cursor.fiber`)
    """

    size: int
    parents: int
    positions: int
    child: int = 1
    bounded: bool = False


@dataclass(frozen=True)
class Entries:
    """What a level is given to store: n entries, sorted by parent.

    Parameters
    ----------
    parents : number of positions of the level above
    parent, coordinate : int64 [n], position in the level above and coordinate in this one
    opens, opens_below : bool [n], whether the entry is the first of its coordinate in this level, in the next one; the
        coordinate of a level includes those of singletons that follow it
    """

    parents: int
    parent: np.ndarray
    coordinate: np.ndarray
    opens: np.ndarray
    opens_below: np.ndarray


@dataclass(frozen=True)
class Stored:
    """How a level stored its entries: int64 [n] `position` of each, how many `positions` there are, and the arrays."""

    position: np.ndarray
    positions: int
    arrays: dict[str, np.ndarray]


class Attribute:
    """A word of the notation: integer fields print in brackets, boolean ones in parentheses, as `name[1, 2](flag)`.

    Fields at their default are left out; in brackets these are the last ones.
    """

    name: ClassVar[str]

    def __str__(self) -> str:
        values = [(field, getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]
        flags = [field.name for field, value in values if value is True]
        numbers = [(value, field.default) for field, value in values if not isinstance(value, bool)]
        while numbers and numbers[-1][0] == numbers[-1][1]:
            numbers.pop()
        brackets = f"[{', '.join(str(value) for value, _ in numbers)}]" if numbers else ""
        return self.name + brackets + (f"({', '.join(flags)})" if flags else "")


class Level(Attribute):
    """A level type. A new one is a frozen dataclass with these methods and a line in `LEVELS`."""

    gives_fibers: ClassVar[bool] = False  # its cursors carry the bounds of the fibers below

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        """Say why this level cannot stand between these two, or return None if it can."""
        return None

    def arrays(self, axis: Axis) -> dict[str, int]:
        """Return the largest value that each of the level's arrays may hold."""
        return {}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        """Store the entries."""
        raise NotImplementedError

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        """Walk the fiber of `parent`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Dense(Level):
    """Every coordinate has a position; nothing is stored."""

    name: ClassVar[str] = "dense"

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        return Stored(entries.parent * axis.size + entries.coordinate, entries.parents * axis.size, {})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        coordinate = yield Loop("dense", axis.size)
        return Cursor(parent.position * axis.size + coordinate, coordinate)


@dataclass(frozen=True)
class Compressed(Level):
    """Only coordinates with entries have positions: fiber p holds `indices[indptr[p]:indptr[p + 1]]`, ascending.

    With `nonunique` a coordinate is repeated for each coordinate of the singleton levels that follow (COO). Under a
    level that knows the bounds of the fibers there is no `indptr`.
    """

    nonunique: bool = False
    name: ClassVar[str] = "compressed"

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if self.nonunique and not isinstance(below, Singleton):
            return "must be followed by a singleton level, which tells its repeated coordinates apart"
        return None

    def arrays(self, axis: Axis) -> dict[str, int]:
        pointers = {} if axis.bounded else {"indptr": axis.positions}
        return pointers | {"indices": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        indices = entries.coordinate[entries.opens]
        pointers = {} if axis.bounded else {"indptr": _pointers(entries.parent[entries.opens], entries.parents)}
        return Stored(np.cumsum(entries.opens) - 1, len(indices), pointers | {"indices": indices})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        if parent.fiber is None:
            start = load("indptr", parent.position)
            length = load("indptr", parent.position + 1) - start
        else:
            start, length = parent.fiber
        position = start + (yield Loop("sparse", length))
        return Cursor(position, load("indices", position))


@dataclass(frozen=True)
class Singleton(Level):
    """Each parent has exactly one coordinate, `indices[p]`, and shares its position with it."""

    name: ClassVar[str] = "singleton"

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if isinstance(above, Singleton) or (isinstance(above, Compressed) and above.nonunique):
            return None
        return "must follow compressed(nonunique) or another singleton, so that each parent has one coordinate"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"indices": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        indices = np.zeros(entries.parents, dtype=np.int64)
        indices[entries.parent] = entries.coordinate
        return Stored(entries.parent, entries.parents, {"indices": indices})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        return Cursor(parent.position, load("indices", parent.position))
        yield  # no loop, but a generator like the others


@dataclass(frozen=True)
class Bucketed(Level):
    """Every coordinate has a position, and those with equally long fibers below stand together, shortest first.

    Position s holds coordinate `coords[s]`. Parent p owns the buckets `bucket_ptr[p]` to `bucket_ptr[p + 1]`; bucket b
    owns the positions `row_ptr[b]` to `row_ptr[b + 1]`, and each of those has exactly `lengths[b]` consecutive
    entries in the compressed level below, the first row's from `start[b]` on. Loop exits are so predictable, and the
    level below needs no `indptr`. Within a bucket the coordinates ascend; empty fibers are a bucket of length 0.
    """

    name: ClassVar[str] = "bucketed"
    gives_fibers: ClassVar[bool] = True

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if isinstance(below, Compressed) and not below.nonunique:
            return None
        return "must be followed by a compressed level, whose fibers it sorts by length"

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
        by_row = np.bincount(row[entries.opens_below], minlength=rows).reshape(entries.parents, axis.size)
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
            "bucket_ptr": _pointers(buckets // axis.size, entries.parents),
            "row_ptr": np.append(buckets, rows),
            "lengths": lengths[buckets],
            "start": (np.cumsum(lengths) - lengths)[buckets],
        }
        return Stored(position_of_row[row], rows, arrays)

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        first = load("bucket_ptr", parent.position)
        bucket = first + (yield Loop("bucket", load("bucket_ptr", parent.position + 1) - first))
        row = load("row_ptr", bucket)
        nth = yield Loop("row", load("row_ptr", bucket + 1) - row)
        length = load("lengths", bucket)
        return Cursor(row + nth, load("coords", row + nth), (load("start", bucket) + nth * length, length))


@dataclass(frozen=True)
class Balance(Attribute):
    """An order of a logical dimension that splits it into equal chunks with nearly equal numbers of entries.

    Coordinates move in groups, so that a block of the layout stays whole. All chunks have ceil(groups / chunks) groups,
    but for the last ones where that does not divide. Groups go, heaviest first, to the lightest chunk with room (LPT:
    Graham, "Bounds on Multiprocessing Timing Anomalies", 1969), and ascend within a chunk. A ragged last group stays
    last, so that padding does.
    """

    chunks: int
    group: int = 1
    name: ClassVar[str] = "balance"

    def order(self, weights: np.ndarray) -> np.ndarray:
        """Return the coordinate that stands at each place, int64 [extent], for the number of entries in each."""
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


LEVELS: dict[str, type[Level]] = {level.name: level for level in (Dense, Compressed, Singleton, Bucketed)}
ORDERS: dict[str, type[Balance]] = {order.name: order for order in (Balance,)}


def _pointers(owner: np.ndarray, owners: int) -> np.ndarray:
    """Return where each owner's run starts in the ascending `owner` array, and the end, int64 [owners + 1]."""
    return np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=owners))))
