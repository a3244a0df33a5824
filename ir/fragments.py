"""Fragments: what machine code is written for, where a product spells out its entries.

A fragment adds up the products of one block of rows with a panel of columns. It is told where the panel of X, the
stored values and the sums are, and knows everything else: it loads a vector of X for each column of the weight that has
an entry, and multiplies it by the stored values one after the other, each broadcast and added to the register of its
row.

Code that is written for the nonzeros of a matrix is known from LIBXSMM (Heinecke et al., SC 2016), for small operators,
and from SparseRT (Wang, "SparseRT: Accelerating Unstructured Sparsity on GPUs for Deep Learning Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Protocol

import numpy as np

from sparsec.errors import KernelError
from sparsec.ir.fragment_ends import Ends
from sparsec.ir.layout import Layout

CODE = "code"
"""The array of an operand that holds machine code."""

AT_ONCE = 1 << 18
"""Entries of fragments that are written together, unless one has more."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What fragments are around their products.

    Parameters
    ----------
    heights : int64 [fragments], rows of the block of each
    first, last : bool [fragments], whether nothing of the depth comes before, or after
    ends : how sums are started and finished; None where they start from zero and are stored as they are
    sums_apart : bytes from the sums of one row to those of the next, in memory
    passes : how often a fragment runs before the next one, at most
    """

    heights: np.ndarray
    first: np.ndarray
    last: np.ndarray
    ends: Ends | None
    sums_apart: int
    passes: int

    def part(self, fragments: slice) -> Frame:
        """Return that of some of the fragments."""
        return replace(self, **{name: getattr(self, name)[fragments] for name in ("heights", "first", "last")})


@dataclass(frozen=True, eq=False)
class Fragments:
    """The fragments of a weight, in the order in which its values are stored.

    Parameters
    ----------
    frame : what they are around their products
    starts : int64 [fragments + 1], the first entry of each
    offsets : int64 [entries], the bytes from the start of a panel to the row of X that an entry is multiplied by; it
        is the same for entries of a fragment that follow each other in a column
    rows : int64 [entries], the row of each in its block
    columns : bool [entries], whether an entry is the first one in its column
    itemsize : bytes of a stored value
    """

    frame: Frame
    starts: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    itemsize: int

    @cached_property
    def nth(self) -> np.ndarray:
        """The number of each entry in its fragment, int64 [entries]."""
        return np.arange(len(self.rows)) - np.repeat(self.starts[:-1], np.diff(self.starts))

    def parts(self) -> Iterator[Fragments]:
        """Yield runs of fragments of not many entries together, since what writes code takes memory for each."""
        first, count = 0, len(self.starts) - 1
        while first < count:
            most = self.starts[first] + AT_ONCE
            end = max(first + 1, int(np.searchsorted(self.starts, most, side="right")) - 1)
            entries = slice(self.starts[first], self.starts[end])
            yield replace(
                self,
                frame=self.frame.part(slice(first, end)),
                starts=self.starts[first : end + 1] - self.starts[first],
                **{name: getattr(self, name)[entries] for name in ("offsets", "rows", "columns")},
            )
            first = end

    def total(self, sizes: np.ndarray) -> np.ndarray:
        """Add up a number of each entry over those of each fragment, int64 [fragments]."""
        return np.diff(np.concatenate([[0], np.cumsum(sizes)])[self.starts])


class Writer(Protocol):
    """Writes fragments in the machine code of an instruction set."""

    @property
    def sums(self) -> int:
        """Vectors of sums that registers hold, beside what is loaded."""

    def __call__(self, fragments: Fragments) -> tuple[np.ndarray, np.ndarray]:
        """Return code, uint8 [bytes], and how many bytes of it each fragment has, int64 [fragments]."""


@dataclass(frozen=True, eq=False)
class CodePacking:
    """How a packed operand becomes code and the values that it reads, in place of the arrays of its last two levels.

    Parameters
    ----------
    layout, shape : of the operand, whose last two levels are compressed columns and rows
    dtype : of its stored values
    offsets : int64 [depth], the bytes from the start of a panel of X to each row
    frame : of the fragments
    writer : writes the code
    """

    layout: Layout
    shape: tuple[int, ...]
    dtype: str
    offsets: np.ndarray
    frame: Frame
    writer: Writer

    @property
    def types(self) -> dict[str, np.dtype]:
        """The type of each array that a kernel takes, by name and in order."""
        return {"starts": np.dtype("int32"), CODE: np.dtype("uint8"), "data": np.dtype(self.dtype)}

    def agrees(self, other: CodePacking) -> bool:
        """Whether the code of another nest over the operand is the same."""
        one, another = self.frame, other.frame
        arrays = (self.offsets, other.offsets), (one.first, another.first), (one.last, another.last)
        same = (one.ends, one.sums_apart) == (another.ends, another.sums_apart)
        return same and all(np.array_equal(*pair) for pair in arrays)

    def pack(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the kernel takes, for the arrays of the layout.

        `starts` is int32 [fragments + 1, 2]: bytes of code, and values, before each fragment.

        Raises
        ------
        KernelError : for code of more bytes than 32 bits count
        """
        fragments = self.fragments(arrays)
        written = [self.writer(part) for part in fragments.parts()]
        code, lengths = (np.concatenate(parts) for parts in zip(*written, strict=True))
        begins = np.concatenate([[0], np.cumsum(lengths)])
        starts = np.stack([begins, fragments.starts], axis=1)
        if starts.max() > np.iinfo(np.int32).max:
            raise KernelError(
                f"a weight {list(self.shape)} comes to {begins[-1]} bytes of code, which 32 bits cannot count"
            )
        return {"starts": starts.reshape(-1).astype(np.int32), CODE: code, "data": arrays["data"]}

    def fragments(self, arrays: dict[str, np.ndarray]) -> Fragments:
        """Read where the entries are from the arrays of the layout."""
        level = len(self.layout.levels) - 2
        first_column, column = (arrays[f"level{level}.{name}"].astype(np.int64) for name in ("indptr", "indices"))
        first_entry, row = (arrays[f"level{level + 1}.{name}"].astype(np.int64) for name in ("indptr", "indices"))
        fiber = np.repeat(np.arange(len(first_column) - 1), np.diff(first_column))
        before = fragment_starts(self.layout, self.shape, self.layout.dims[1])
        depth = before[fiber] + column * self.layout.levels[level][0].divisor
        per_column = np.diff(first_entry)
        opens = np.zeros(len(row), bool)
        opens[first_entry[:-1]] = True
        return Fragments(
            self.frame,
            starts=first_entry[first_column],
            offsets=np.repeat(self.offsets[depth], per_column),
            rows=row,
            columns=opens,
            itemsize=np.dtype(self.dtype).itemsize,
        )


def fragment_digits(layout: Layout, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return the coordinate in each level around the last two of every fragment, int64 [fragments] each."""
    sizes = layout.sizes(shape)[:-2]
    return np.unravel_index(np.arange(prod(sizes)), sizes) if sizes else ()


def fragment_heights(layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Return how many rows of its block each fragment has, int64 [fragments]; the last ones may lack some, or all."""
    left = shape[0] - fragment_starts(layout, shape, layout.dims[0])
    return np.clip(left, 0, layout.sizes(shape)[-1])


def fragment_starts(layout: Layout, shape: tuple[int, ...], dim: str) -> np.ndarray:
    """Return the first coordinate of each fragment in a dimension, int64 [fragments]."""
    starts = np.zeros(prod(layout.sizes(shape)[:-2]), np.int64)
    for place, (digit, _) in zip(fragment_digits(layout, shape), layout.levels, strict=False):
        if digit.dim == dim:
            starts += place * digit.divisor
    return starts
