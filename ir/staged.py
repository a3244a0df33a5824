"""Parts of X that are copied to where they stay in L1: a row for each depth, or stretches that taps of a channel share.

The taps of a filter read one stretch of a channel at distances that are no multiples of a vector, so that most of their
loads lie in two lines. A copy for each tap is aligned, but takes as much of L1 as there are taps. Taps whose distances
leave the same remainder need only one: of a 3×3 filter over rows that are 8 elements apart three, one for each column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from sparsec.ir.builders import LANE, counted, lane_axis, total
from sparsec.ir.gather import evaluate
from sparsec.ir.image import VECTOR
from sparsec.ir.kernel import Assign, Const, Coordinate, Expr, For, Load, Range, Stmt, Var, substitute
from sparsec.ir.product import Product

Read = Callable[[Expr, Expr], Expr]
"""Gives the element of X at a depth of the block, so many columns behind the first one of a tile."""


@dataclass(frozen=True)
class StagedPart:
    """A buffer for what a block of the depth reads of X.

    Parameters
    ----------
    product : whose X it is
    depth : how many depths a block has
    width : columns of the widest tile
    stretch : elements that loads are aligned to, for stretches that taps share; None for a row for each depth
    """

    product: Product
    depth: int
    width: int
    stretch: int | None = None

    @property
    def size(self) -> int:
        """How many elements the buffer has."""
        return self.depth // self.product.taps * self._channel if self.stretch else self.depth * self.width

    def place(self, digits: Sequence[tuple[Expr, int]]) -> Expr:
        """Return where the row of a depth of the block starts, which is a sum of digits times their divisors."""
        if not self.stretch:
            return total(digit * (divisor * self.width) for digit, divisor in digits)
        depth = total(digit * divisor for digit, divisor in digits)
        distance = _distance(self.product.x_index[-1], depth % self.product.taps)
        start = distance % self.stretch
        return depth // self.product.taps * self._channel + start * self._length + (distance - start)

    def copies(self, width: int, read: Read) -> Iterator[Stmt]:
        """Yield the loops that fill the buffer for a tile of so many columns."""
        taps, row = self.product.taps, Var("r")
        if self.stretch:
            for start, reach in self._reach.items():
                lanes, place = lane_axis(width + reach), row * self._channel + (start * self._length + LANE)
                copy = Assign(Load("part", (place,)), read(row * taps, LANE + start))
                yield For((counted("r", self.depth // taps),), (For((lanes,), (copy,)),))
            return
        axes: tuple[Range, ...] = (counted("r", self.depth),)
        depth: Expr = row
        if taps > 1 and self.depth % taps == 0:  # taps in a loop of their own, so that their places are constants
            axes, depth = (counted("r", self.depth // taps), counted("t", taps)), row * taps + Var("t")
        copy = Assign(Load("part", (depth * self.width + LANE,)), read(depth, LANE))
        yield For(axes, (For((lane_axis(width),), (copy,)),))

    @cached_property
    def _reach(self) -> Mapping[int, int]:
        return stretches(self.product, self.stretch) if self.stretch else {}

    @property
    def _length(self) -> int:
        """Elements of a stretch: an odd number of vectors, so that stretches do not meet in the same cache sets."""
        return (-(-(self.width + max(self._reach.values())) // VECTOR) | 1) * VECTOR

    @property
    def _channel(self) -> int:
        """Elements from one channel to the next, with room for a stretch at each distance from an aligned place."""
        return (max(self._reach) + 1) * self._length


def stretches(product: Product, lanes: int) -> Mapping[int, int]:
    """Return what distances of taps leave when divided by `lanes`, and for each how much beyond a tile is read."""
    return _stretches(product.x_index[-1], product.taps, lanes)


@lru_cache(maxsize=64)  # rules ask for every way to cut a weight
def _stretches(index: Expr, taps: int, lanes: int) -> Mapping[int, int]:
    distances = evaluate(_distance(index, Coordinate("W", "k")), {"W.k": np.arange(taps)})
    found: dict[int, int] = {}
    for distance in np.broadcast_to(distances, taps).tolist():
        start = distance % lanes
        found[start] = max(found.get(start, 0), distance - start)
    return dict(sorted(found.items()))


def has_flat_taps(product: Product) -> bool:
    """Whether the taps of a channel differ in the last index of X alone, and by constants."""
    *others, _ = product.x_index
    if not all(isinstance(extent, int) for extent in (*product.x.shape[1:], product.depth)):
        return False
    nothing, taps = {"b": Const(0), "m": Const(0), "k": Coordinate("W", "k")}, np.arange(product.taps)
    places = (evaluate(substitute(index, nothing), {"W.k": taps}) for index in others)
    return all(np.all(place == place.flat[0]) for place in map(np.asarray, places))


def _distance(index: Expr, tap: Expr) -> Expr:
    """Return how far behind the first tap of its channel a tap reads, where this is the last index of X."""
    nothing = {"b": Const(0), "m": Const(0)}
    first = int(evaluate(substitute(index, {**nothing, "k": Const(0)}), {}))
    place = substitute(index, {**nothing, "k": tap})
    return place - first if first else place
