"""The protocol of levels.

A level turns every position of the level above (its *parent*) into a *fiber*: an ordered run of positions, each with a
coordinate. It answers four questions, and everything that knows about layouts asks only these:

* `arrays`: which index arrays it has, and the largest value each may hold (known before any data is);
* `holds`: which of given entries it can keep;
* `pack`: what is in those arrays, for entries that it can keep;
* `visit`: which loops walk a fiber, and where each iteration stands.

`visit` is written once and run three ways, because it does nothing but integer arithmetic and loads: over TVM
expressions it is the lowering, over integers the interpreter, over whole NumPy arrays `Packed.unpack`. The formats are
level formats after Chou, Kjolstad and Amarasinghe, "Format Abstraction for Sparse Tensor Algebra Compilers", OOPSLA
2018.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

Index = Any  # an int, an integer array or a TVM expression
Load = Callable[[str, Index], Index]  # load(name, index) reads an element of one of the level's arrays


@dataclass(frozen=True)
class Loop:
    """One loop.

    Most are counted, `for j in range(extent)`; `kind` is `dense` where the extent is a constant of the layout. One of
    the kind `bits` runs over the bits that are set in the word `extent`, the lowest first; its index is a `Bit`.
    """

    kind: str
    extent: Index


@dataclass(frozen=True)
class Bit:
    """One iteration of a loop over bits: the `nth` of them, from 0, is set at `place`, 0 being the lowest bit."""

    nth: Index
    place: Index


@dataclass(frozen=True)
class Cursor:
    """Where one iteration stands: its position, its coordinate, and its fiber below where this level knows that.

    `fiber` is the first position of the next level and how many there are. In a level that stores runs, `position` is
    that of the run, and `lane` the place in it.
    """

    position: Index
    coordinate: Index
    fiber: tuple[Index, Index] | None = None
    lane: Index | None = None


ROOT = Cursor(0, 0)
Visit = Generator[Loop, Any, Cursor]  # yields loops, outermost first; is sent the index of each; returns the cursor


@dataclass(frozen=True)
class Axis:
    """What a level knows of its place before any data is there.

    Parameters
    ----------
    size : extent of this level's coordinate, padding included
    parents, positions : the most positions that the level above, and this one, can have
    child : the most positions of the next level in one fiber
    above, below : the levels above and below
    """

    size: int
    parents: int
    positions: int
    child: int = 1
    above: Level | None = None
    below: Level | None = None

    @property
    def bounded(self) -> bool:
        """Whether the level above gives the bounds of this level's fibers (`Cursor.fiber`)."""
        return self.above is not None and self.above.gives_fibers


@dataclass(frozen=True)
class Entries:
    """What a level is given to store: n entries, sorted by parent.

    Parameters
    ----------
    parents : number of positions of the level above
    parent, coordinate : int64 [n], position in the level above and coordinate in this one
    opens, opens_below : bool [n], whether the entry is the first of its coordinate in this level, in the next one; the
        coordinate of a level includes those of singletons that follow it
    below : int64 [n], coordinate in the next level; 0 in the block that ends a layout
    """

    parents: int
    parent: np.ndarray
    coordinate: np.ndarray
    opens: np.ndarray
    opens_below: np.ndarray
    below: np.ndarray

    @cached_property
    def fiber(self) -> np.ndarray:
        """Which of the coordinates of all parents each entry has, int64 [n]."""
        return np.cumsum(self.opens) - 1

    @cached_property
    def per_parent(self) -> np.ndarray:
        """How many coordinates each position of the level above has, int64 [parents]."""
        return np.bincount(self.parent[self.opens], minlength=self.parents)

    @cached_property
    def nth(self) -> np.ndarray:
        """How many coordinates of its fiber come before each entry's, int64 [n]."""
        before = np.cumsum(self.per_parent) - self.per_parent
        return self.fiber - before[self.parent]

    def below_masks(self, size: int) -> np.ndarray:
        """Return which coordinates of the next level each coordinate has entries at, bool [coordinates, size]."""
        masks = np.zeros((np.count_nonzero(self.opens), size), dtype=bool)
        masks[self.fiber, self.below] = True
        return masks

    def where(self, kept: np.ndarray) -> Entries:
        """Return the entries of some coordinates, bool [n]; all entries of a coordinate, or none."""
        arrays = (self.parent, self.coordinate, self.opens, self.opens_below, self.below)
        return Entries(self.parents, *(array[kept] for array in arrays))


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
    pads: ClassVar[bool] = False  # its coordinates run to the end of a ragged block, past the extent of the tensor
    slots: ClassVar[bool] = False  # fibers without an entry have positions, too, at coordinate 0
    shares_lanes: ClassVar[bool] = False  # its positions are shared by the fibers of the dense level that follows
    shares_positions: ClassVar[bool] = False  # its positions are those of the level above, which repeats coordinates
    coordinates: ClassVar[tuple[str, ...]] = ()  # the arrays that hold coordinates, each the sum of a value of each
    words: ClassVar[tuple[str, ...]] = ()  # the arrays that hold words of bits; a level that loops over bits has some
    consecutive: ClassVar[str] = ""  # the array that its only loop reads from one position on, for the coordinates

    looks_ahead: ClassVar[bool] = False  # `coordinate_at` tells the coordinate of any position

    @property
    def together(self) -> int:
        """How many coordinates make up a run, whose values are stored side by side; 1 for a level without runs."""
        return 1

    def in_run(self, position: Index, lane: Index, load: Load) -> Cursor:
        """Return where one place of a run stands, for a level that has runs."""
        raise NotImplementedError

    def coordinate_at(self, position: Index, load: Load) -> Index:
        """Return the coordinate of a position, for a level that looks ahead."""
        raise NotImplementedError

    def over(self, size: int | None) -> Level:
        """Return the level in normal form for a digit of this size; the leading digit of a dim has None."""
        return self

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        """Say why this level cannot stand between these two, or return None if it can."""
        return None

    def misfit(self, size: int | None, above: int | None) -> str | None:
        """Say why the level cannot hold coordinates below `size` under a level of size `above`, or return None.

        Sizes that are not known before the shape is are None; with the shape the question is asked again.
        """
        return None

    def arrays(self, axis: Axis) -> dict[str, int]:
        """Return the largest value that each of the level's arrays may hold."""
        return {}

    @property
    def limit(self) -> str:
        """What fits, in words that follow the level's name; for levels that do not hold everything."""
        return "holds everything"

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        """Return which entries the level can keep, bool [n]."""
        return np.ones(len(entries.parent), dtype=bool)

    def adds_up(self, table: np.ndarray) -> bool:
        """Say whether `coordinates` may hold `table[c]` in place of each c, and sums of them what c came to."""
        return True

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        """Store the entries, all of which the level can keep."""
        raise NotImplementedError

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        """Walk the fiber of `parent`."""
        raise NotImplementedError


def runs_of(counts: np.ndarray, level: Level | None) -> np.ndarray:
    """Return how many runs of a level hold so many coordinates, int64."""
    return -(-counts // (level.together if level else 1))


def pointers(owner: np.ndarray, owners: int) -> np.ndarray:
    """Return where each owner's run starts in the ascending `owner` array, and the end, int64 [owners + 1]."""
    return np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=owners))))
