"""Pattern levels: the taps of kernels, in one of a few shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit, pointers
from sparsec.ir.levels.structured import repeat_last

MOST_TAPS = 64


@dataclass(frozen=True)
class Pattern(Level):
    """Each coordinate is a tap of a kernel, `kernel * m + tap`; kernels keep at most `n` taps, in one of `p` shapes.

    Kernels without entries are left out. Those of a fiber are sorted by shape, so that no loop over kernels branches:
    the ones of shape s in fiber f are `stride[f * p + s]` to `stride[f * p + s + 1]`, `indices` holds the coordinate of
    the first tap of each, and `taps[s * n:(s + 1) * n]` are the taps of all of them. A slot without a tap repeats the
    last one of its shape, and stores zeros, as does a tap that a kernel does not have. This is the storage of Niu et
    al., "PatDNN", ASPLOS 2020, section 5.3 (FKW).
    """

    n: int
    m: int
    p: int
    name: ClassVar[str] = "pattern"
    coordinates: ClassVar[tuple[str, ...]] = ("indices", "taps")

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        if self.n > self.m:
            return f"cannot hold {self.n} of {self.m} taps"
        return f"cannot tell more than {MOST_TAPS} taps apart" if self.m > MOST_TAPS else None

    def misfit(self, size: int | None, above: int | None) -> str | None:
        return f"needs kernels of {self.m} taps, which do not divide {size}" if size and size % self.m else None

    def arrays(self, axis: Axis) -> dict[str, int]:
        kernels = axis.size // self.m
        return {"stride": axis.parents * kernels, "indices": axis.size - self.m, "taps": self.m - 1}

    @property
    def limit(self) -> str:
        return f"holds {self.n} taps of each kernel, in one of {self.p} shapes"

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        kernel, _, taps = self._kernels(axis, entries)
        shapes = self._shapes(taps)
        return shapes[_closest(shapes, taps)[kernel], entries.coordinate % self.m]

    def adds_up(self, table: np.ndarray) -> bool:
        tap = np.arange(len(table)) % self.m
        return np.array_equal(table, table[np.arange(len(table)) - tap] + table[tap])

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        kernel, key, taps = self._kernels(axis, entries)
        shapes = self._shapes(taps)
        shape = _closest(shapes, taps)
        fiber, channel = np.divmod(key, axis.size // self.m)
        run = fiber * self.p + shape
        order = np.argsort(run, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        slot = np.cumsum(shapes, axis=1) - 1
        arrays = {
            "stride": pointers(run[order], entries.parents * self.p),
            "indices": channel[order] * self.m,
            "taps": self._taps(shapes).ravel(),
        }
        position = place[kernel] * self.n + slot[shape[kernel], entries.coordinate % self.m]
        return Stored(position, len(order) * self.n, arrays)

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        shape = yield Loop("dense", self.p)
        run = parent.position * self.p + shape
        start = load("stride", run)
        kernel = start + (yield Loop("sparse", load("stride", run + 1) - start))
        nth = yield Loop("dense", self.n)
        coordinate = load("indices", kernel) + load("taps", shape * self.n + nth)
        return Cursor(kernel * self.n + nth, coordinate)

    def _kernels(self, axis: Axis, entries: Entries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the kernel of each entry, the number of each kernel among all, and its taps, bool [kernels, m]."""
        key = (entries.parent * axis.size + entries.coordinate) // self.m  # ascends
        opens = np.diff(key, prepend=-1) != 0
        kernel = np.cumsum(opens) - 1
        taps = np.zeros((np.count_nonzero(opens), self.m), dtype=bool)
        taps[kernel, entries.coordinate % self.m] = True
        return kernel, key[opens], taps

    def _shapes(self, taps: np.ndarray) -> np.ndarray:
        """Choose shapes for kernels with these taps, bool [p, m]: the fullest and most frequent first.

        Kernels with fewer than `n` taps share a shape that holds them, or widen one that has room. Of a kernel with
        more than `n`, the first are tried. The choice is exact where all kernels have `n` taps.
        """
        first = taps & (np.cumsum(taps, axis=1) <= self.n)
        bit = np.arange(self.m, dtype=np.uint64)
        words = first @ (np.uint64(1) << bit)
        found, counts = np.unique(words, return_counts=True)
        shapes: list[int] = []
        for word, _ in sorted(zip(found.tolist(), counts.tolist(), strict=True), key=_worth):
            self._add(shapes, word)
            if len(shapes) == self.p and all(shape.bit_count() == self.n for shape in shapes):
                break
        chosen = np.array(shapes + [0] * (self.p - len(shapes)), dtype=np.uint64)
        return (chosen[:, None] >> bit & np.uint64(1)).astype(bool)

    def _add(self, shapes: list[int], word: int) -> None:
        """Give a set of taps a place among shapes, if there is one."""
        fitting = [place for place, shape in enumerate(shapes) if (shape | word).bit_count() <= self.n]
        if fitting:
            best = max(fitting, key=lambda place: (shapes[place] & word).bit_count())
            shapes[best] |= word
        elif len(shapes) < self.p:
            shapes.append(word)

    def _taps(self, shapes: np.ndarray) -> np.ndarray:
        """Return the taps of each shape, int64 [p, n]; what is left repeats the last."""
        taps = np.zeros((self.p, self.n), dtype=np.int64)
        shape, tap = np.nonzero(shapes)
        taps[shape, (np.cumsum(shapes, axis=1) - 1)[shape, tap]] = tap
        return repeat_last(taps, shapes.sum(axis=1))


def _closest(shapes: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Return for each kernel the first shape that has the most of its taps, int64 [kernels]."""
    return np.argmax(taps.astype(np.float32) @ shapes.T.astype(np.float32), axis=1)


def _worth(found: tuple[int, int]) -> tuple[int, int, int]:
    word, count = found
    return -word.bit_count(), -count, word
