"""Levels: how the coordinates of one storage dimension are kept, found again and looped over; one file for each."""

from sparsec.ir.levels.bitmap import Bitmap
from sparsec.ir.levels.bucketed import Bucketed
from sparsec.ir.levels.compressed import Compressed
from sparsec.ir.levels.dense import Dense
from sparsec.ir.levels.diagonal import Diagonal
from sparsec.ir.levels.pattern import Pattern, Taps
from sparsec.ir.levels.protocol import (
    ROOT,
    Attribute,
    Axis,
    Bit,
    Cursor,
    Entries,
    Index,
    Level,
    Load,
    Loop,
    Stored,
    Visit,
    pointers,
)
from sparsec.ir.levels.singleton import Singleton
from sparsec.ir.levels.slots import Slots
from sparsec.ir.levels.structured import Structured
from sparsec.ir.levels.vnm import Vnm

LEVELS: dict[str, type[Level]] = {
    level.name: level
    for level in (Dense, Compressed, Singleton, Slots, Bucketed, Structured, Bitmap, Pattern, Taps, Diagonal, Vnm)
}

__all__ = [
    "LEVELS",
    "ROOT",
    "Attribute",
    "Axis",
    "Bit",
    "Bitmap",
    "Bucketed",
    "Compressed",
    "Cursor",
    "Dense",
    "Diagonal",
    "Entries",
    "Index",
    "Level",
    "Load",
    "Loop",
    "Pattern",
    "Singleton",
    "Slots",
    "Stored",
    "Structured",
    "Taps",
    "Visit",
    "Vnm",
    "pointers",
]
