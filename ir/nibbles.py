"""Integers of four bits, two in a byte: how they are stored, and how generated code reads them.

Of each 32 values the first 16 are the lower halves of 16 bytes and the others the upper ones. So vectors of 4, 8 or 16
neighbours that start at a multiple of their length are loaded by one instruction and shifted by one more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

HALF = 16  # values in the lower halves of a block of bytes
BITS = 4


def nibble_bytes(count: int) -> int:
    """Return how many bytes so many values take.

    >>> nibble_bytes(64), nibble_bytes(65)
    (32, 48)
    """
    return -(-count // (2 * HALF)) * HALF


def pack_nibbles(values: np.ndarray) -> np.ndarray:
    """Return integers from -8 to 7 as bytes, uint8 [nibble_bytes(count)].

    >>> pack_nibbles(np.array([1, -2]))[:2].tolist()
    [1, 14]
    """
    padded = np.zeros((nibble_bytes(values.size) // HALF, 2, HALF), np.uint8)
    padded.reshape(-1)[: values.size] = values.astype(np.int8).ravel().view(np.uint8) & 15
    return (padded[:, 0] | padded[:, 1] << BITS).ravel()


def unpack_nibbles(data: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` of the values that `pack_nibbles` stored, int8."""
    blocks = data.reshape(-1, 1, HALF)
    values = np.concatenate([blocks & 15, blocks >> BITS], axis=1).ravel()[:count].astype(np.int8)
    return values - ((values & 8) << 1)


def load_nibble(data: Any, position: Any) -> Any:
    """Return the TIR expression, int32, of the value at a position of a uint8 buffer."""
    byte = T.cast(data[position // (2 * HALF) * HALF + position % HALF], "int32")
    above = 32 - BITS - position // HALF % 2 * BITS  # bits that are left of the value and drop out
    return tirx.shift_right(tirx.shift_left(byte, above), tirx.const(32 - BITS, "int32"))
