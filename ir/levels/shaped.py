"""Shaped levels: coordinates sorted by the shape of what they hold, so that one loop runs over equal shapes.

A kernel of a convolution that was pruned in patterns keeps its taps in one of a few shapes. `shaped` sorts kernels by
their shape, and `taps` below it holds the shapes once, for all of them. This is the storage of Niu et al., "PatDNN",
ASPLOS 2020, section 5.3 (FKW), and with the filters below the channels its order of filters by shape:

    (i, k) -> (i : dense, k floordiv 9 : shaped[4, 8], k mod 9 : taps)
    (i, k) -> (i floordiv 64 : dense, k floordiv 9 : dense, i mod 64 : shaped[4, 8], k mod 9 : taps)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit, pointers
from sparsec.ir.levels.structured import repeat_last

MOST_TAPS = 64  # bits of a shape


@dataclass(frozen=True)
class Shaped(Level):
    """Coordinates whose fibers below have entries, at most `n` each, in one of at most `p` shapes.

    Those of shape s under parent f are `indices[stride[f * p + s]:stride[f * p + s + 1]]`, ascending.
    """

    n: int
    p: int
    name: ClassVar[str] = "shaped"
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
        shapes = choose_shapes(taps, self)
        return shapes[closest(shapes, taps)[entries.fiber], entries.below]

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        taps = entries.below_masks(axis.child)
        run = entries.parent[entries.opens] * self.p + closest(choose_shapes(taps, self), taps)
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
        return Cursor(position, load("indices", position), (shape * self.n, self.n))


@dataclass(frozen=True)
class Taps(Level):
    """The entries of a shape: `taps[s * n:(s + 1) * n]` are those of shape s, for every fiber that has it.

    A slot without a tap repeats the last one of its shape, and stores zeros, as does a tap that a fiber does not have.
    """

    name: ClassVar[str] = "taps"
    coordinates: ClassVar[tuple[str, ...]] = ("taps",)

    def objection(self, above: Level | None, below: Level | None) -> str | None:
        return None if isinstance(above, Shaped) else "must follow a shaped level, whose shapes it holds"

    def misfit(self, size: int | None, above: int | None) -> str | None:
        return f"cannot tell more than {MOST_TAPS} taps apart" if size is not None and size > MOST_TAPS else None

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"taps": axis.size - 1}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        assert isinstance(axis.above, Shaped)
        kernels = np.zeros((entries.parents, axis.size), dtype=bool)
        kernels[entries.parent, entries.coordinate] = True
        shapes = choose_shapes(kernels, axis.above)
        slot = (np.cumsum(shapes, axis=1) - 1)[closest(shapes, kernels)[entries.parent], entries.coordinate]
        taps = np.zeros((axis.above.p, axis.above.n), dtype=np.int64)
        shape, tap = np.nonzero(shapes)
        taps[shape, (np.cumsum(shapes, axis=1) - 1)[shape, tap]] = tap
        position = entries.parent * axis.above.n + slot
        return Stored(position, entries.parents * axis.above.n, {"taps": repeat_last(taps, shapes.sum(axis=1)).ravel()})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        assert parent.fiber is not None
        first, count = parent.fiber
        nth = yield Loop("dense", count)
        return Cursor(parent.position * count + nth, load("taps", first + nth))


def choose_shapes(kernels: np.ndarray, level: Shaped) -> np.ndarray:
    """Choose shapes for kernels with these taps, bool [p, taps], in any order: the fullest and most frequent first.

    Kernels with fewer than `n` taps share a shape that holds them, or widen one that has room. Of a kernel with more
    than `n`, the first are tried. The choice is exact where all kernels have `n` taps.
    """
    first = kernels & (np.cumsum(kernels, axis=1) <= level.n)
    bit = np.arange(kernels.shape[1], dtype=np.uint64)
    words = first @ (np.uint64(1) << bit)
    found, counts = np.unique(words, return_counts=True)
    shapes: list[int] = []
    for word, _ in sorted(zip(found.tolist(), counts.tolist(), strict=True), key=_worth):
        _add(shapes, word, level)
        if len(shapes) == level.p and all(shape.bit_count() == level.n for shape in shapes):
            break
    chosen = np.array(shapes + [0] * (level.p - len(shapes)), dtype=np.uint64)
    return (chosen[:, None] >> bit & np.uint64(1)).astype(bool)


def closest(shapes: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Return for each kernel the first shape that has the most of its taps, int64 [kernels]."""
    return np.argmax(kernels.astype(np.float32) @ shapes.T.astype(np.float32), axis=1)


def _add(shapes: list[int], word: int, level: Shaped) -> None:
    """Give a set of taps a place among shapes, if there is one."""
    fitting = [place for place, shape in enumerate(shapes) if (shape | word).bit_count() <= level.n]
    if fitting:
        best = max(fitting, key=lambda place: (shapes[place] & word).bit_count())
        shapes[best] |= word
    elif len(shapes) < level.p:
        shapes.append(word)


def _worth(found: tuple[int, int]) -> tuple[int, int, int]:
    word, count = found
    return -word.bit_count(), -count, word
