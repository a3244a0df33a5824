"""Pattern levels: coordinates sorted by the shape of what they hold, so that one loop runs over equal shapes.

A kernel of a convolution that was pruned in patterns keeps its taps in one of a few shapes. `pattern` sorts kernels by
their shape, and `taps` below it holds the shapes once, for all of them. This is the storage of Niu et al., "PatDNN",
ASPLOS 2020, section 5.3 (FKW), and with the filters below the channels its order of filters by shape:

    (i, k) -> (i : dense, k floordiv 9 : pattern[4, 8], k mod 9 : taps)
    (i, k) -> (i floordiv 64 : dense, k floordiv 9 : dense, i mod 64 : pattern[4, 8], k mod 9 : taps)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit, pointers
from sparsec.ir.levels.structured import repeat_last

MOST_TAPS = 64  # bits of a shape


@dataclass(frozen=True)
class Pattern(Level):
    """Coordinates whose fibers below have entries, at most `n` each, in one of at most `p` shapes.

    Those of shape s under parent f are `indices[stride[f * p + s]:stride[f * p + s + 1]]`, ascending.
    """

    n: int
    p: int
    name: ClassVar[str] = "pattern"
    gives_fibers: ClassVar[bool] = True
    coordinates: ClassVar[tuple[str, ...]] = ("indices",)

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        return None if isinstance(below, Taps) else "must be followed by a level of taps, which holds its shapes"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"stride": axis.positions, "indices": axis.size - 1}

    @property
    def limit(self) -> str:
        return f"holds {self.n} taps of each kernel, in one of {self.p} shapes"

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        taps = entries.below_masks(axis.child)
        shapes = self.choose(taps)
        return shapes[closest(shapes, taps)[entries.fiber], entries.below]

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        taps = entries.below_masks(axis.child)
        run = entries.parent[entries.opens] * self.p + closest(self.choose(taps), taps)
        order = np.argsort(run, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        arrays = {
            "stride": pointers(run[order], entries.parents * self.p),
            "indices": entries.coordinate[entries.opens][order],
        }
        return Stored(place[entries.fiber], len(order), arrays)

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        shape = yield Loop("dense", self.p)
        run = parent.position * self.p + shape
        start = load("stride", run)
        position = start + (yield Loop("sparse", load("stride", run + 1) - start))
        slots = min(self.n, axis.child)
        return Cursor(position, load("indices", position), (shape * slots, slots))

    def choose(self, taps: np.ndarray) -> np.ndarray:
        """Choose shapes for kernels with these taps, bool [p, m]: the fullest and most frequent first.

        Kernels with fewer than `n` taps share a shape that holds them, or widen one that has room. Of a kernel with
        more than `n`, the first are tried. The choice is exact where all kernels have `n` taps.

        Parameters
        ----------
        taps : bool [kernels, m], in any order
        """
        first = taps & (np.cumsum(taps, axis=1) <= self.n)
        bit = np.arange(taps.shape[1], dtype=np.uint64)
        words, counts = np.unique(first @ (np.uint64(1) << bit), return_counts=True)
        by_worth = sorted(zip(words.tolist(), counts.tolist(), strict=True), key=_worth)
        shapes: list[int] = []
        for word, _ in by_worth:
            fitting = [place for place, shape in enumerate(shapes) if (shape | word).bit_count() <= self.n]
            if fitting:
                common = [(shapes[place] & word).bit_count() for place in fitting]
                shapes[fitting[common.index(max(common))]] |= word
            elif len(shapes) < self.p:
                shapes.append(word)
            elif all(shape.bit_count() == self.n for shape in shapes):
                break  # no room for others
        chosen = np.array(shapes + [0] * (self.p - len(shapes)), dtype=np.uint64)
        return (chosen[:, None] >> bit & np.uint64(1)).astype(bool)


@dataclass(frozen=True)
class Taps(Level):
    """The entries of a shape: `taps[s * n:(s + 1) * n]` are those of shape s, for every fiber that has it.

    A slot without a tap repeats the last one of its shape, and stores zeros, as does a tap that a fiber does not have.
    """

    name: ClassVar[str] = "taps"
    pads: ClassVar[bool] = True
    coordinates: ClassVar[tuple[str, ...]] = ("taps",)

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        return None if isinstance(above, Pattern) else "must follow a pattern level, whose shapes it holds"

    def misfit(self, size: int | None, above: int | None) -> str | None:
        return f"cannot tell more than {MOST_TAPS} taps apart" if size is not None and size > MOST_TAPS else None

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"taps": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        assert isinstance(axis.above, Pattern)
        kernels = np.zeros((entries.parents, axis.size), dtype=bool)
        kernels[entries.parent, entries.coordinate] = True
        shapes = axis.above.choose(kernels)
        slots = min(axis.above.n, axis.size)
        slot = np.cumsum(shapes, axis=1) - 1
        shape, tap = np.nonzero(shapes)
        taps = np.zeros((len(shapes), slots), dtype=np.int64)
        taps[shape, slot[shape, tap]] = tap
        position = entries.parent * slots + slot[closest(shapes, kernels)[entries.parent], entries.coordinate]
        return Stored(position, entries.parents * slots, {"taps": repeat_last(taps, shapes.sum(axis=1)).ravel()})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        assert parent.fiber is not None
        first, slots = parent.fiber
        nth = yield Loop("dense", slots)
        return Cursor(parent.position * slots + nth, load("taps", first + nth))


def closest(shapes: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Return for each kernel the first shape that has the most of its taps, int64 [kernels]."""
    return np.argmax(taps.astype(np.float32) @ shapes.T.astype(np.float32), axis=1)


def _worth(found: tuple[int, int]) -> tuple[int, int, int]:
    word, count = found
    return -word.bit_count(), -count, word
