"""Instructions of x86 processors that bring rows side by side, and columns back in order.

Vectors are shuffled within segments of 128 bits, so that what interleaves rows takes the columns in another order; see
`sparsec.ir.interleaved`. Interleaving takes two shuffles for each vector of four rows of bytes, one for each vector of
two rows of 16 bits, and putting sums back in order at most two; two rows of bytes come to vectors of words by one and a
half.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sparsec.ir.emission import shuffle
from sparsec.ir.instruction import instruction
from sparsec.ir.interleaved import straight
from sparsec.ir.kernel import Var
from sparsec.ir.printer import print_expression
from sparsec.schedules.intrinsics.interleave import SEGMENT_BITS, interleave, interleave_as_words, interleaving

STRAIGHTEN = """
kernel straighten(x: {dtype}[{columns}]) -> y: {dtype}[{columns}]:
    for v in range(0, {columns}):
        y[v] = x[{place}]
"""

FEATURES = {128: ("sse4.1",), 256: ("avx2",), 512: ("avx512bw",)}
INTERLEAVED = (("uint8", 4), ("int8", 4), ("int16", 2), ("bfloat16", 2))
"""Element types, and how many rows fill 32 bits."""

STRAIGHTENED = (("int32", 4), ("int32", 2), ("float32", 2))
"""Element types of sums, and of how many rows they came to be."""


def _straighten(bits: int, vectors: Any) -> list[Any]:
    """Transpose the matrix whose rows are the vectors and whose elements are their segments."""
    count, segments = len(vectors), bits // SEGMENT_BITS
    if (count, segments) != (4, 4):
        order = [(vector, segment) for segment in range(segments) for vector in range(count)]
        return [_segments(vectors, order[n : n + segments]) for n in range(0, len(order), segments)]
    pairs = vectors[:2], vectors[2:]
    lower, upper = ([_segments(pair, [(0, n), (0, n + 1), (1, n), (1, n + 1)]) for pair in pairs] for n in (0, 2))
    return [_segments(half, [(0, n), (0, n + 2), (1, n), (1, n + 2)]) for half in (lower, upper) for n in (0, 1)]


def _transpose(rows: Sequence[Any]) -> list[Any]:
    """Transpose within segments the elements of each four rows, then the segments of what stands in four of these."""
    columns: list[list[Any]] = [[], [], [], []]
    for first in range(0, len(rows), 4):
        low, high = ([_mixed(rows[n], rows[n + 1], half) for n in (first, first + 2)] for half in (0, 2))
        for place, (a, b) in ((0, low), (2, high)):
            for half in (0, 1):
                columns[place + half].append(_mixed(a, b, 2 * half, wide=True))
    turned = [_straighten(512, vectors) for vectors in columns]
    return [turned[row % 4][row // 4] for row in range(len(rows))]


def _mixed(first: Any, second: Any, start: int, wide: bool = False) -> Any:
    """Take two elements of each segment of two vectors of int32 by turns, or both of one and then both of the other."""
    order = ((0, 0), (0, 1), (1, 0), (1, 1)) if wide else ((0, 0), (1, 0), (0, 1), (1, 1))
    places = [16 * vector + segment + start + n for segment in range(0, 16, 4) for vector, n in order]
    return shuffle((first, second), places)


def _segments(vectors: Sequence[Any], order: Sequence[tuple[int, int]]) -> Any:
    """Return segments of vectors of 32-bit elements, each given by the vector and its number there."""
    used = sorted({vector for vector, _ in order})
    lanes, elements = len(order) * SEGMENT_BITS // 32, SEGMENT_BITS // 32
    starts = [used.index(vector) * lanes + segment * elements for vector, segment in order]
    return shuffle([vectors[n] for n in used], [start + n for start in starts for n in range(elements)])


TRANSPOSE = """
kernel transpose(x: int32[16, 16]) -> y: int32[16, 16]:
    for i in range(0, 16), j in range(0, 16):
        y[i, j] = x[j, i]
"""

for _bits, _features in {64: FEATURES[128], **FEATURES}.items():
    instruction(
        interleaving("uint8", 2, _bits // 8, "int16"),
        name=f"x86.interleave2_uint8_as_int16.{_bits}",
        features=_features,
        bits=_bits,
    )(partial(interleave_as_words, _bits))

instruction(TRANSPOSE, name="x86.transpose_int32.512", features=FEATURES[512])(_transpose)

for _bits, _features in FEATURES.items():
    for _dtype, _rows in INTERLEAVED:
        instruction(
            interleaving(_dtype, _rows, _bits // (8 * np.dtype(_dtype).itemsize)),
            name=f"x86.interleave{_rows}_{_dtype}.{_bits}",
            features=_features,
            bits=_bits,
        )(partial(interleave, _dtype, _bits))
    for _dtype, _rows in STRAIGHTENED:
        _columns = _bits // 32 * _rows
        _place = print_expression(straight(Var("v"), _rows, _columns, 4 // _rows))
        if _place != "v":
            instruction(
                STRAIGHTEN.format(dtype=_dtype, columns=_columns, place=_place),
                name=f"x86.straighten{_rows}_{_dtype}.{_bits}",
                features=_features,
                bits=_bits,
            )(partial(_straighten, _bits))
