"""The order of columns after rows are interleaved, so that several depths of one column stand side by side.

Vector instructions interleave within segments of 16 bytes. Of L vectors, each a row of n bytes, they make L vectors of
n / L columns: the first one holds the first columns of each segment, the next one those that follow them. For four rows
of 64 bytes, the 16 columns of the first vector are 0–3, 16–19, 32–35 and 48–51. Sums are kept in that order, and put
straight once, when they are finished. What does not fit a segment is put together by loads, in the order of columns.
Rows of several vectors are interleaved vector by vector.
"""

from __future__ import annotations

from sparsec.ir.kernel import Expr

SEGMENT = 16  # bytes


def interleaved(place: Expr, depths: int, columns: int, itemsize: int, vectors: int = 1) -> Expr:
    """Return the column that stands at a place after `depths` rows of vectors of so many columns are interleaved.

    Of rows that are widened on the way, as many count as vectors come of one.

    >>> from sparsec.ir.kernel import Var
    >>> from sparsec.ir.printer import print_expression
    >>> print_expression(interleaved(Var("v"), 4, 64, 1))
    'v % 16 // 4 * 16 + v // 16 * 4 + v % 4'
    """
    if columns * itemsize <= SEGMENT or depths * itemsize > SEGMENT:
        return place
    segment, part = _sizes(depths, itemsize)
    vector = columns // depths
    if vectors == 1:
        return place % vector // part * segment + place // vector * part + place % part
    nth = place // vector % depths
    return place // columns * columns + place % vector // part * segment + nth * part + place % part


def straight(column: Expr, depths: int, columns: int, itemsize: int, vectors: int = 1) -> Expr:
    """Return the place of a column: the inverse of `interleaved`."""
    if columns * itemsize <= SEGMENT or depths * itemsize > SEGMENT:
        return column
    segment, part = _sizes(depths, itemsize)
    vector = columns // depths
    if vectors == 1:
        return column % segment // part * vector + column // segment * part + column % part
    nth = column // segment % (columns // segment)
    return column // columns * columns + column % segment // part * vector + nth * part + column % part


def _sizes(depths: int, itemsize: int) -> tuple[int, int]:
    """Return how many columns a segment holds before, and after, rows are interleaved."""
    segment = SEGMENT // itemsize
    return segment, segment // depths
