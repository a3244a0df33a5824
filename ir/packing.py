"""Packing: a tensor cut into the digits of a layout, and the index arrays of what it stores.

Nothing here loops over entries; each step is one NumPy operation on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sparsec.ir.levels import Entries

if TYPE_CHECKING:
    from sparsec.ir.layout import Layout


def tile(layout: Layout, array: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return `array` padded, permuted and transposed to [size of level 0, size of level 1, …], and the orders.

    Padding stays at the end of a permuted dim, where it is its own coordinate.
    """
    padded = layout.padded(array.shape)
    orders = {}
    for dim, order in layout.orders:
        axis = layout.dims.index(dim)
        pattern = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) != 0
        places = order.order(pattern)
        array = array.take(places, axis=axis)
        orders[f"{dim}.order"] = np.concatenate((places, np.arange(len(places), padded[axis])))
    if padded != array.shape:
        array = np.pad(array, [(0, wide - extent) for wide, extent in zip(padded, array.shape, strict=True)])
    split, storage = _transposition(layout, array.shape)
    return np.ascontiguousarray(array.reshape(split).transpose(storage)), orders


def untile(layout: Layout, tiled: np.ndarray, shape: Sequence[int], orders: Mapping[str, np.ndarray]) -> np.ndarray:
    """Undo `tile`."""
    _, storage = _transposition(layout, shape)
    array = tiled.transpose(np.argsort(storage)).reshape(layout.padded(shape))
    for dim, _ in layout.orders:
        array = array.take(np.argsort(orders[f"{dim}.order"]), axis=layout.dims.index(dim))
    return np.ascontiguousarray(array[tuple(slice(extent) for extent in shape)])


def _transposition(layout: Layout, shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the extents of all digits in logical order, and for each level which of them it holds."""
    sizes = dict(zip((digit for digit, _ in layout.levels), layout.sizes(shape), strict=True))
    logical = [digit for dim in layout.dims for digit in layout.digits(dim)]
    return [sizes[digit] for digit in logical], [logical.index(digit) for digit, _ in layout.levels]


@dataclass(frozen=True)
class Misfit:
    """Where a level cannot hold all entries.

    Parameters
    ----------
    depth : the level
    place : int64 [n], the blocks of the tiled tensor among which is the first one too many
    """

    depth: int
    place: np.ndarray


@dataclass(frozen=True)
class Blocks:
    """The stored blocks of a tiled tensor; a block is what the dense levels at the end of its layout span.

    Parameters
    ----------
    place : int64 [n], which block of the tiled tensor each one is
    position : int64 [n], where it is stored
    positions : how many blocks are stored, slots without an entry included
    arrays : the index arrays of all levels by name, int64; of words of bits, uint64
    misfit : where a level first left out a block, if one did
    """

    place: np.ndarray
    position: np.ndarray
    positions: int
    arrays: dict[str, np.ndarray]
    misfit: Misfit | None


def assemble(layout: Layout, mask: np.ndarray, shape: Sequence[int]) -> Blocks:
    """Find the blocks with an entry in a tiled mask, and store those that the levels can hold, level by level."""
    leaf = layout.leaf
    sizes = mask.shape[:leaf]
    inner = prod(mask.shape[leaf:])
    occupied = mask.reshape(-1, inner).any(axis=1) if inner > 1 else mask.ravel()
    place = np.flatnonzero(occupied) if leaf else np.zeros(1, dtype=np.int64)
    position, positions = np.zeros(len(place), dtype=np.int64), 1
    arrays: dict[str, np.ndarray] = {}
    misfit: Misfit | None = None

    def entries(depth: int) -> Entries:
        coordinate = place // prod(sizes[depth + 1 :]) % sizes[depth]
        opens, opens_below = (_opens(place // prod(sizes[layout.reach(level) :])) for level in (depth, depth + 1))
        below = place // prod(sizes[depth + 2 :]) % sizes[depth + 1] if depth + 1 < leaf else np.zeros_like(place)
        return Entries(positions, position, coordinate, opens, opens_below, below)

    for depth, axis in enumerate(layout.axes(shape)[:leaf]):
        level, given = layout.levels[depth][1], entries(depth)
        while not (held := level.holds(axis, given)).all():  # what is left may be held in another way
            misfit = misfit or Misfit(depth, place[_together(given, held)])
            place, position = place[held], position[held]
            given = entries(depth)
        stored = level.pack(axis, given)
        arrays |= {f"level{depth}.{name}": array for name, array in stored.arrays.items()}
        position, positions = stored.position, stored.positions
        if np.any(position[1:] < position[:-1]):  # the next level wants its entries sorted by parent
            order = np.argsort(position, kind="stable")
            place, position = place[order], position[order]
    return Blocks(place, position, positions, arrays, misfit)


def _together(entries: Entries, held: np.ndarray) -> np.ndarray:
    """Return of which entries the first that is not held is one too many, bool [n]: its coordinate, or its fiber."""
    first = np.argmin(held)
    fiber = entries.parent == entries.parent[first]
    coordinate = fiber & (entries.coordinate == entries.coordinate[first])
    return coordinate if held[coordinate].any() else fiber


def _opens(keys: np.ndarray) -> np.ndarray:
    """Mark where a run of equal keys starts."""
    opens = np.ones(len(keys), dtype=bool)
    opens[1:] = keys[1:] != keys[:-1]
    return opens
