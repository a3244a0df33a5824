"""How zeros lie: the structures that a weight may have been pruned to, and the one that it has.

A structure is a frozen dataclass that says of a mask whether its zeros lie so. Structures are guessed from a corner of
the weight, which is quick, and then held against all of it. To add one, let one of `GUESSES` yield it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sparsec.ir.named import combined_columns

MANY = 0.6  # of the rows or columns of blocks that must have entries for these to tell of blocks
MOST = 0.75  # of the entries must stand in tiles where others stand anywhere
FULL = 0.95  # the part of a structure's elements that must be nonzero for it to describe the zeros
GROUPS = (*range(2, 17), 32, 64)  # columns of which each row may keep so many
TILE = 16  # more rows than this that stay or go together are a tile
FEW = 4  # tiles could have come about by chance
LEAST = 8  # rows of a tile that has N:M inside or single weights beside it
CORNER = 512, 288  # rows and columns that guesses are made from
SHAPES = 16  # of kernels, at most
TAPS = 16  # of a kernel whose shapes are counted, at most


class Structure(ABC):
    """A way in which zeros may lie."""

    @property
    @abstractmethod
    def period(self) -> tuple[int, int]:
        """After how many rows and columns it starts anew; ones where it is not bound to places."""

    @abstractmethod
    def fits(self, mask: np.ndarray) -> bool:
        """Whether the zeros of a mask, bool [rows, depth] with some entries, lie so; empty rows and columns may."""


def find_structures(mask: np.ndarray, taps: int = 1) -> Iterator[Structure]:
    """Yield what describes the zeros of a mask, bool [rows, depth], the most telling first.

    >>> [str(found) for found in find_structures(np.kron(np.eye(4), np.ones((4, 1))) != 0)]
    ['4x1 blocks']
    """
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    if not rows.any() or np.count_nonzero(mask) >= FULL * np.count_nonzero(rows) * np.count_nonzero(columns):
        return
    high, wide = CORNER
    top, left = (int(live.argmax()) // step * step for live, step in ((rows, high), (columns, wide)))
    corner = mask[top : top + high, left : left + wide]
    for guess in GUESSES:
        fitting = (each for each in guess(corner, taps) if each.fits(corner))
        yield from islice((each for each in fitting if corner.shape == mask.shape or each.fits(mask)), 1)


@dataclass(frozen=True)
class KernelShapes(Structure):
    """Kernels keep n taps in one of a few shapes, or none (PatDNN, ASPLOS 2020)."""

    n: int
    taps: int

    def __str__(self) -> str:
        return f"{self.n} of {self.taps} taps in few shapes"

    @property
    def period(self) -> tuple[int, int]:
        return 1, self.taps

    def fits(self, mask: np.ndarray) -> bool:
        return kernel_shapes(mask, self.taps)[0] == self.n and _all_equal(_counts(mask, self.taps), self.n)


@dataclass(frozen=True)
class Diagonals(Structure):
    """Blocks of p × p keep a shifted diagonal each (PermDNN, MICRO 2018)."""

    p: int

    def __str__(self) -> str:
        return f"diagonals of {self.p}x{self.p} blocks"

    @property
    def period(self) -> tuple[int, int]:
        return self.p, self.p

    def fits(self, mask: np.ndarray) -> bool:
        p = self.p
        if not NM(1, p).fits(mask) or len(mask) < p:
            return False
        inside = mask[: len(mask) // p * p, : mask.shape[1] // p * p]
        # Where the entry of each group stands, and thence by how much its row is shifted.
        place = np.zeros((len(inside), inside.shape[1] // p), np.int16)
        for j in range(1, p):
            place += j * inside[:, j::p].view(np.uint8)
        shift = (place - np.arange(len(inside), dtype=np.int16)[:, None]) % p
        live = _counts(inside, p) > 0
        least, most = (np.where(live, shift, none).reshape(-1, p, shift.shape[1]) for none in (p, -1))
        return bool((most.max(axis=1) <= least.min(axis=1))[live.reshape(least.shape).any(axis=1)].all())


@dataclass(frozen=True)
class VNM(Structure):
    """Runs of v rows share some columns of each m, of which each row keeps n (VENOM, SC 2023)."""

    v: int
    n: int
    m: int
    columns: int

    def __str__(self) -> str:
        return f"{self.v}:{self.n}:{self.m}"

    @property
    def period(self) -> tuple[int, int]:
        return self.v, self.m

    def fits(self, mask: np.ndarray) -> bool:
        return NM(self.n, self.m).fits(mask) and _most(mask, self.v, self.m) <= self.columns


@dataclass(frozen=True)
class NM(Structure):
    """Each row keeps n of each m columns."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def period(self) -> tuple[int, int]:
        return 1, self.m

    def fits(self, mask: np.ndarray) -> bool:
        counts = _counts(mask, self.m)
        counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
        filled = np.count_nonzero(counts) >= FULL * counts.size
        return bool(filled and counts.shape[1] > 1 and _all_equal(counts, self.n))


@dataclass(frozen=True)
class TiledNM(Structure):
    """Tiles of r rows and m columns stay or go together, and each row of one keeps n (arXiv 2402.10876)."""

    r: int
    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m} in {self.r}x{self.m} tiles"

    @property
    def period(self) -> tuple[int, int]:
        return self.r, self.m

    def fits(self, mask: np.ndarray) -> bool:
        counts = _counts(mask, self.m)
        return _all_equal(counts, self.n) and Blocks(self.r, 1).fits(counts > 0)


@dataclass(frozen=True)
class Blocks(Structure):
    """Blocks of r × c stay or go together; of more rows and one column they are tiles (Guo et al., SC 2020)."""

    r: int
    c: int

    def __str__(self) -> str:
        return f"tile-wise {self.r}" if self.r > TILE and self.c == 1 else f"{self.r}x{self.c} blocks"

    @property
    def period(self) -> tuple[int, int]:
        return self.r, self.c

    def fits(self, mask: np.ndarray) -> bool:
        area = _any(mask, self.r, self.c).astype(np.int64)
        for axis, size in enumerate(self.period):
            live = np.add.reduceat(mask.any(axis=1 - axis), np.arange(0, mask.shape[axis], size), dtype=np.int64)
            if size > mask.shape[axis] or live.sum() < MANY * size * np.count_nonzero(live):
                return False  # what is left of a block could be anything
            area = live @ area  # the rows that blocks span, then the columns, without those of zeros
        return bool(np.count_nonzero(mask) >= FULL * area)


@dataclass(frozen=True)
class TilesAndSingles(Structure):
    """Tiles of r rows and one column, and single weights anywhere (TEW, Guo et al., SC 2020)."""

    r: int

    def __str__(self) -> str:
        return f"tile-wise {self.r} and single weights"

    @property
    def period(self) -> tuple[int, int]:
        return self.r, 1

    def share(self, mask: np.ndarray) -> float:
        """Return which part of the entries stands in whole tiles."""
        whole = mask[: len(mask) // self.r * self.r]
        counts = _counts(whole.T, self.r)
        return self.r * np.count_nonzero(counts == self.r) / max(1, np.count_nonzero(whole))

    def fits(self, mask: np.ndarray) -> bool:
        return MOST <= self.share(mask) < 1


@dataclass(frozen=True)
class Combined(Structure):
    """Columns that stand anywhere are combined some to one, so that no two have an entry in a row (ASPLOS 2019)."""

    group: int

    def __str__(self) -> str:
        return f"columns combined {self.group} to 1"

    @property
    def period(self) -> tuple[int, int]:
        return 1, 1

    def fits(self, mask: np.ndarray) -> bool:
        room = -(-mask.shape[1] // self.group)
        counts = np.count_nonzero(mask, axis=1)
        # The search for columns that go together takes long, so rows must look like it.
        full = counts.max() <= room and counts.mean() >= FULL * room
        return bool(full and combined_columns(self.group).refusal(mask) is None)


def kernel_shapes(mask: np.ndarray, taps: int) -> tuple[int, int]:
    """Return how many of so many taps each kernel keeps, and in how many shapes; zeros where they are not few."""
    if not 1 < taps <= TAPS or mask.shape[1] % taps or not mask.any():
        return 0, 0
    bits = np.packbits(mask.reshape(-1, taps), axis=1).astype(np.uint16)
    words = bits[:, 0] << 8 | bits[:, 1] if taps > 8 else bits[:, 0]
    found = np.flatnonzero(np.bincount(words))
    size = np.array([int(word).bit_count() for word in found])
    n = int(size.max())
    shapes = found[size == n]
    if 2 * n > taps or len(shapes) > SHAPES:
        return 0, 0
    inside = (found[:, None] & ~shapes == 0).any(axis=1)
    return (n, len(shapes)) if inside.all() else (0, 0)


def _any(mask: np.ndarray, r: int, c: int = 1) -> np.ndarray:
    """Return which blocks of r × c have an entry, ragged ones among them."""
    found = mask[::r].copy()
    for start in range(1, r):
        part = mask[start::r]
        found[: len(part)] |= part
    if c == 1:
        return found
    return _any(found.T, c).T


def _counts(mask: np.ndarray, m: int) -> np.ndarray:
    """Return how many of each m columns each row has, uint8 [rows, groups], without those of a ragged end."""
    whole = mask[:, : mask.shape[1] // m * m].view(np.uint8)
    counts = np.zeros((len(mask), mask.shape[1] // m), np.uint8)
    for start in range(m):
        counts += whole[:, start::m]
    return counts


def _most(mask: np.ndarray, v: int, m: int) -> int:
    """Return how many of some m columns a run of v rows has entries in, at most."""
    return int(_counts(_any(mask, v), m).max())


def _all_equal(counts: np.ndarray, n: int) -> bool:
    """Whether groups that have entries have n, nearly all, and none more."""
    some = np.count_nonzero(counts)
    return bool(some and counts.max() <= n and np.count_nonzero(counts == n) >= FULL * some)


# -- guesses -----------------------------------------------------------------------------------------------------------


def _kernels(mask: np.ndarray, taps: int) -> Iterator[Structure]:
    n, _ = kernel_shapes(mask, taps)
    if n:
        yield KernelShapes(n, taps)


def _groups(mask: np.ndarray, taps: int) -> Iterator[Structure]:
    for m in (m for m in GROUPS if 2 * m <= mask.shape[1]):
        counts = _counts(mask, m)
        n = int(counts.max())
        if n < m and _all_equal(counts, n):
            yield from _n_of_m(mask, counts > 0, n, m)


def _n_of_m(mask: np.ndarray, groups: np.ndarray, n: int, m: int) -> Iterator[Structure]:
    """Yield structures of n in those of the groups of m columns that have entries, the most special one first."""
    if n == 1:
        yield Diagonals(m)
    v = _grow(lambda v: _most(mask, v, m) < m, len(mask))
    while v % 2 == 0 and _most(mask, v // 2, m) < _most(mask, v, m):
        v //= 2
    columns = _most(mask, v, m)
    if columns > n and v * n >= 4 * columns:  # rows that choose on their own would soon have chosen all
        yield VNM(v, n, m, columns)
    yield NM(n, m)
    r = _grow(lambda r: Blocks(r, 1).fits(groups), len(mask))
    if LEAST <= r <= np.count_nonzero(groups) // FEW and not Blocks(2, 1).fits(mask):
        yield TiledNM(r, n, m)


def _tiles(mask: np.ndarray, taps: int) -> Iterator[Structure]:
    r = _grow(lambda r: Blocks(r, 1).fits(mask), len(mask))
    c = _grow(lambda c: Blocks(1, c).fits(mask), mask.shape[1])
    most = TilesAndSingles(LEAST).share(mask)
    tile = _grow(lambda r: TilesAndSingles(r).share(mask) >= 0.99 * most, len(mask), LEAST)
    if tile > r:
        yield TilesAndSingles(tile)
    yield from (Blocks(*block) for block in ((r, c), (r, 1), (1, c)) if block != (1, 1))


def _grow(fits: Callable[[int], bool], limit: int, size: int = 1) -> int:
    """Return a size that fits and is no part of a larger one that does; multiply it by small primes while it fits."""
    for factor in (2, 3, 5, 7):
        while size * factor <= limit and fits(size * factor):
            size *= factor
    return size


GUESSES: tuple[Callable[[np.ndarray, int], Iterator[Structure]], ...] = (_kernels, _groups, _tiles)
"""What may describe a corner of a weight, bool [rows, depth], with so many taps to a kernel; the most telling first."""
