"""Sums of layouts: a tensor stored in parts, each in a layout of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.packed import Packed
from sparsec.ir.packing import tile, untile


@dataclass(frozen=True)
class Sum:
    """A tensor as a sum, in which each entry is stored by one term; written `A + B`.

    A term takes those of its blocks (what its last dense levels span) that are at least half full, as far as it can
    hold them; the last term takes the rest. Tiles and compressed rows are the TEW of Guo et al., "Accelerating Sparse
    DNN Models without Hardware-Support via Tile-Wise Sparsity", SC 2020.

    >>> import numpy as np
    >>> from sparsec.ir.named import CSR, tile_wise
    >>> tew = Sum((tile_wise(3), CSR))
    >>> packed = tew.pack(np.array([[1, 0, 2, 0], [3, 4, 0, 0], [5, 0, 6, 0]], dtype=np.int8))
    >>> [term.arrays["data"].tolist() for term in packed.terms]
    [[1, 3, 5, 2, 0, 6], [4]]

    Parameters
    ----------
    terms : layouts over the same dimensions
    name : as of a `Layout`

    Raises
    ------
    LayoutError : if there are not at least two terms, or their dimensions have other names
    """

    terms: tuple[Layout, ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if len(self.terms) < 2 or len({term.dims for term in self.terms}) > 1:
            raise LayoutError(f"The sum {self} must have two or more terms over the same dimensions; name them alike.")

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the logical dimensions."""
        return self.terms[0].dims

    def pack(self, array: np.ndarray, min_index_bits: int = 8) -> PackedSum:
        """Store a tensor, each entry in one term; see `Layout.pack`."""
        array = np.asarray(array)
        parts = self.split(array != 0)
        terms = (
            term.pack(np.where(part, array, array.dtype.type(0)), min_index_bits)
            for term, part in zip(self.terms, parts, strict=True)
        )
        return PackedSum(self, tuple(terms))

    def nbytes(self, mask: np.ndarray, dtype: np.dtype | type, min_index_bits: int = 8) -> int:
        """Return how many bytes a tensor with entries where `mask` is not zero takes; see `Layout.nbytes`."""
        parts = zip(self.terms, self.split(mask), strict=True)
        return sum(term.nbytes(part, dtype, min_index_bits) for term, part in parts)

    def holds(self, mask: np.ndarray) -> np.ndarray:
        """Return which of the entries of `mask` the terms can hold together, bool, of the shape of `mask`."""
        *parts, rest = self.split(mask)
        return np.logical_or.reduce([*parts, self.terms[-1].holds(rest)])

    def refusal(self, mask: np.ndarray) -> str | None:
        """Say why the terms cannot hold entries where `mask` is not zero, or return None if they can."""
        try:
            return self.terms[-1].refusal(self.split(mask)[-1])
        except LayoutError as error:
            return str(error).removesuffix(".")

    def split(self, mask: np.ndarray) -> list[np.ndarray]:
        """Return the entries that each term takes, bool, of the shape of `mask`; together they are all."""
        return list(self._parts(np.asarray(mask) != 0))

    def _parts(self, rest: np.ndarray) -> Iterator[np.ndarray]:
        for term in self.terms[:-1]:
            part = _filled(term, rest)
            yield part
            rest = rest & ~part
        yield rest


@dataclass(frozen=True, eq=False)
class PackedSum:
    """A tensor stored in a sum of layouts: what each term stores."""

    layout: Sum
    terms: tuple[Packed, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return self.terms[0].shape

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The arrays of all terms by name, as `term0.level1.indptr`."""
        named = ((f"term{n}.{name}", array) for n, term in enumerate(self.terms) for name, array in term.arrays.items())
        return dict(named)

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take."""
        return sum(term.nbytes for term in self.terms)

    def unpack(self) -> np.ndarray:
        """Return the tensor as it was before it was packed, with +0.0 for every zero."""
        first, *others = (term.unpack() for term in self.terms)
        for part in others:
            first = np.where(part != 0, part, first)
        return first


def _filled(term: Layout, mask: np.ndarray) -> np.ndarray:
    """Return the entries of the blocks of a term that are at least half full, as far as it can hold them together."""
    while True:  # orders follow the entries, so fewer may make other blocks
        tiled, orders = tile(term, mask)
        blocks = tiled.reshape(-1, prod(tiled.shape[term.leaf :]))
        full = 2 * np.count_nonzero(blocks, axis=1) >= blocks.shape[1]
        kept = untile(term, (blocks & full[:, None]).reshape(tiled.shape), mask.shape, orders)
        kept = term.holds(kept)
        if np.array_equal(kept, mask):
            return kept
        mask = kept
