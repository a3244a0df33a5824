"""Bitmap levels: one bit for each coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsec.ir.levels.protocol import Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit

WORD_BITS = 64


@dataclass(frozen=True)
class Bitmap(Level):
    """Bit c of fiber p is set where coordinate c has a position; positions are counted by the set bits before it.

    A fiber is one word, as wide as it must be, or several of 64 bits; `rank[w]` is the position of the first bit that
    is set in `words[w]`. Two bitmaps, of an outer and of an inner digit, are the two-level bitmap of Wang et al.,
    "Dual-side Sparse Tensor Core", ISCA 2021.
    """

    name: ClassVar[str] = "bitmap"
    words: ClassVar[tuple[str, ...]] = ("words",)

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"words": 2 ** min(axis.size, WORD_BITS) - 1, "rank": axis.positions}

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        per_fiber = _words(axis)
        coordinate, parent = entries.coordinate[entries.opens], entries.parent[entries.opens]
        bits = np.zeros((entries.parents, per_fiber * WORD_BITS), dtype=np.uint8)
        bits[parent, coordinate] = 1
        words = np.packbits(bits, axis=1, bitorder="little").view("<u8").ravel()
        set_bits = np.bincount(parent * per_fiber + coordinate // WORD_BITS, minlength=len(words))
        arrays = {"words": words, "rank": np.cumsum(set_bits) - set_bits}
        return Stored(np.cumsum(entries.opens) - 1, len(coordinate), arrays)

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        per_fiber = _words(axis)
        word, first = parent.position, 0
        if per_fiber > 1:
            nth = yield Loop("dense", per_fiber)
            word, first = word * per_fiber + nth, nth * WORD_BITS
        bit = yield Loop("bits", load("words", word))
        return Cursor(load("rank", word) + bit.nth, first + bit.place)


def _words(axis: Axis) -> int:
    return -(-axis.size // WORD_BITS)
