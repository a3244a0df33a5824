"""Vectors of several rows brought side by side, by the shuffles of x86 and AArch64 processors.

Pairs of rows are interleaved, then pairs of what that gave, and so on: by `punpckl` and `punpckh` of x86, within
segments, and by `zip1` and `zip2` of AArch64, whose registers are single segments. Bytes that become words are
interleaved with zeros last, or converted where a row is one segment at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from sparsec.ir.emission import shuffle
from sparsec.ir.interleaved import SEGMENT, interleaved
from sparsec.ir.kernel import Var
from sparsec.ir.printer import print_expression

SEGMENT_BITS = 8 * SEGMENT

SEMANTICS = """
kernel interleave(x: {dtype}[{rows}, {columns}]) -> q: {wide}[{columns}, {rows}]:
    for v in range(0, {columns}), l in range(0, {rows}):
        q[v, l] = x[l, {place}]
"""


def interleaving(dtype: str, rows: int, columns: int, wide: str = "") -> str:
    """Return what it computes for so many rows and columns, as the text of a kernel; `wide` is the type of the result,
    where it is another.
    """
    itemsize, wide = np.dtype(dtype).itemsize, wide or dtype
    spread = rows * np.dtype(wide).itemsize // itemsize
    place = print_expression(interleaved(Var("v"), spread, columns, itemsize))
    return SEMANTICS.format(dtype=dtype, rows=rows, columns=columns, wide=wide, place=place)


def interleave(dtype: str, bits: int, rows: Any) -> list[Any]:
    """Emit the shuffles.

    Parameters
    ----------
    bits : of a register
    rows : TIR vectors of elements of `dtype`; as many as a power of two
    """
    width = 8 * np.dtype(dtype).itemsize
    lanes = bits // width
    streams = [[tirx.reinterpret(f"uint{width}x{lanes}", row)] for row in rows]
    while len(streams) > 1:
        pairs = zip(streams[::2], streams[1::2], strict=True)
        streams = [_unpack(first, second, width, bits) for first, second in pairs]
        width *= 2
    return [tirx.reinterpret(f"{dtype}x{lanes}", vector) for vector in streams[0]]


def interleave_as_words(bits: int, rows: Any) -> list[Any]:
    """Emit what interleaves two rows of unsigned bytes and makes words of them.

    Parameters
    ----------
    bits : of a register
    rows : a TIR vector for each
    """
    columns, lanes = bits // 8, bits // 16
    if bits > SEGMENT_BITS:
        zeros = tirx.Broadcast(tirx.const(0, "uint8"), columns)
        pairs = _unpack([rows[0]], [rows[1]], 8, bits)
        words = [vector for pair in pairs for vector in _unpack([pair], [zeros], 8, bits)]
        return [tirx.reinterpret(f"int16x{lanes}", vector) for vector in words]
    words = []
    for start in range(0, columns, SEGMENT // 2):  # what comes to two segments, as one vector
        places = [row * columns + start + n for n in range(SEGMENT // 2) for row in (0, 1)]
        wide = tirx.Cast(f"int16x{SEGMENT}", shuffle(rows, places))
        words += [shuffle([wide], range(n, n + lanes)) for n in range(0, SEGMENT, lanes)]
    return words


def _unpack(first: list[Any], second: list[Any], width: int, bits: int) -> list[Any]:
    """Take elements of so many bits from the halves of each segment of two rows of vectors by turns."""
    lanes, segment = bits // width, SEGMENT_BITS // width
    unpacked = []
    for pair in zip(first, second, strict=True):
        vectors = [tirx.reinterpret(f"uint{width}x{lanes}", vector) for vector in pair]
        for half in (0, segment // 2):
            places = (start + half + n for start in range(0, lanes, segment) for n in range(segment // 2))
            unpacked.append(shuffle(vectors, [index for place in places for index in (place, lanes + place)]))
    return unpacked
