"""Tensors that are stored in a layout, and the ways back: iteration and unpacking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from sparsec.ir.levels import ROOT, Axis, Bit, Cursor, Index, Loop
from sparsec.ir.packing import untile

if TYPE_CHECKING:
    from sparsec.ir.layout import Layout


@dataclass(frozen=True, eq=False)
class Packed:
    """A tensor stored in a layout.

    Parameters
    ----------
    layout : how it is stored
    shape : the logical shape, without padding
    arrays : 1-D arrays by name: `level1.indptr` and the like, `i.order` for a permuted dim, and the values, `data`
    """

    layout: Layout
    shape: tuple[int, ...]
    arrays: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take."""
        return sum(array.nbytes for array in self.arrays.values())

    def load(self, name: str, index: Index) -> Index:
        """Read elements of an index array as int64, in which positions cannot overflow."""
        return self.arrays[name][index].astype(np.int64)

    def children(self, depth: int, parent: Cursor = ROOT) -> Iterator[Cursor]:
        """Iterate over the fiber of level `depth` under `parent`, in the order of the generated loops.

        >>> import numpy as np
        >>> from sparsec.ir.named import CSR
        >>> packed = CSR.pack(np.array([[0, 5, 0], [7, 0, 8]]))
        >>> for row in packed.children(0):
        ...     for entry in packed.children(1, row):
        ...         print(row.coordinate, entry.coordinate, packed.arrays["data"][entry.position])
        0 1 5
        1 0 7
        1 2 8
        """
        _, fiber = self._descend(depth, _each(np.atleast_1d, parent))
        for nth in range(len(fiber.position)):
            yield _each(int, _each(itemgetter(nth), fiber))

    def run(self, depth: int, parent: Cursor) -> Iterator[Cursor]:
        """Iterate over the places of the run on which a cursor of level `depth` stands."""
        level = self.layout.levels[depth][1]
        for lane in range(level.together):
            yield level.in_run(parent.position, lane, lambda name, index: int(self.load(f"level{depth}.{name}", index)))

    def entries(self) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return the logical coordinates of all stored entries and their positions in `data`, in loop order.

        Zeros that a block stores beside an entry are entries; padding and slots without an entry are not.
        """
        coordinates, position = self._walk(len(self.layout.levels))
        logical = self.layout.logical(coordinates, self.load)
        data = self._blocks
        block, element = position // data.shape[1], position % data.shape[1]
        inside = (data != 0).any(axis=1)[block]
        for coordinate, extent in zip(logical, self.shape, strict=True):
            inside &= coordinate < extent
        run, lane = block // self.layout.together, block % self.layout.together
        position = self.layout.slot(run * data.shape[1] + element, lane)
        return tuple(coordinate[inside] for coordinate in logical), position[inside]

    def count(self, depth: int) -> int:
        """Return how often the loops over the first `depth` levels run, all together."""
        return len(self._walk(depth)[1])

    def unpack(self) -> np.ndarray:
        """Return the tensor as it was before it was packed, with +0.0 for every zero."""
        sizes = self.layout.sizes(self.shape)
        leaf = self.layout.leaf
        coordinates, position = self._walk(leaf)
        inner = prod(sizes[leaf:])
        block = np.zeros(len(position), dtype=np.int64)
        for size, coordinate in zip(sizes[:leaf], coordinates, strict=True):
            block = block * size + coordinate
        data = self._blocks
        tiled = np.zeros((prod(sizes[:leaf]), inner), dtype=data.dtype)
        used = (data != 0).any(axis=1)[position]  # a slot without an entry may repeat the coordinate of one
        tiled[block[used]] = data[position[used]]
        return untile(self.layout, tiled.reshape(sizes), self.shape, self.arrays)

    def _walk(self, depth: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the coordinates in levels 0 to `depth` - 1, and the position, of everything that the loops visit."""
        coordinates: list[np.ndarray] = []
        cursor = Cursor(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
        for level in range(depth):
            origin, cursor = self._descend(level, cursor)
            if cursor.lane is not None:  # count single blocks
                cursor = Cursor(self.layout.slot(cursor.position, cursor.lane), cursor.coordinate)
            coordinates = [coordinate[origin] for coordinate in coordinates] + [cursor.coordinate]
        return coordinates, cursor.position

    def _descend(self, depth: int, parents: Cursor) -> tuple[np.ndarray, Cursor]:
        """Visit a level under a batch of parents; return which of them each cursor came from, and the cursors.

        A generator's variables cannot be repeated for each iteration of a loop, so each loop starts the visit again,
        with the parents and the outer indices repeated.
        """
        level, axis = self.layout.levels[depth][1], self._axes[depth]

        def load(name: str, index: Index) -> Index:
            return self.load(f"level{depth}.{name}", index)

        origin = np.arange(len(parents.position))
        indices: list[np.ndarray] = []
        while True:
            visit = level.visit(axis, parents, load)
            try:
                loop = next(visit)
                for index in indices:
                    loop = visit.send(index)
            except StopIteration as end:
                return origin, _each(partial(np.broadcast_to, shape=origin.shape), end.value)
            again, index = _iterations(loop, len(origin))
            indices = [_taken(earlier, again) for earlier in indices] + [index]
            origin = origin[again]
            parents = _each(itemgetter(again), parents)

    @property
    def _blocks(self) -> np.ndarray:
        """The values, a row for each block."""
        inner = prod(self.layout.sizes(self.shape)[self.layout.leaf :])
        beside = self.arrays["data"].reshape(-1, inner, self.layout.together)
        return beside.swapaxes(1, 2).reshape(-1, inner)

    @cached_property
    def _axes(self) -> tuple[Axis, ...]:
        return self.layout.axes(self.shape)


def _iterations(loop: Loop, batch: int) -> tuple[np.ndarray, Index]:
    """Run one loop for a whole batch; return which of them each iteration belongs to, and its index."""
    if loop.kind == "bits":
        words = np.broadcast_to(loop.extent, batch).astype("<u8")
        bits = np.unpackbits(words[:, None].view(np.uint8), axis=1, bitorder="little")
        again, place = np.nonzero(bits)
        extent = np.bincount(again, minlength=batch)
    else:
        extent = np.broadcast_to(loop.extent, batch)
        again = np.repeat(np.arange(batch), extent)
    nth = np.arange(len(again)) - (np.cumsum(extent) - extent)[again]
    return again, Bit(nth, place) if loop.kind == "bits" else nth


def _taken(index: Index, again: np.ndarray) -> Index:
    return Bit(index.nth[again], index.place[again]) if isinstance(index, Bit) else index[again]


def _each(function: Callable[[Index], Index], cursor: Cursor) -> Cursor:
    """Apply a function to every field of a cursor."""
    fiber = cursor.fiber and (function(cursor.fiber[0]), function(cursor.fiber[1]))
    lane = None if cursor.lane is None else function(cursor.lane)
    return Cursor(function(cursor.position), function(cursor.coordinate), fiber, lane)
