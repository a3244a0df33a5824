"""Tile-wise patterns (Guo et al., "Accelerating sparse DNN models without hardware-support via tile-wise sparsity",
SC 2020; "Accelerating sparse DNNs based on tiled GEMM", 2024).

The paper multiplies activations by weights [K, N] and cuts these into column tiles of width G. Here weights are
[outputs, inputs], so that a tile is G consecutive outputs, and its pieces are G outputs at one input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns.base import Mask, Pattern, Scores
from sparsec.pruning.patterns.blocks import Block
from sparsec.pruning.patterns.groups import NM
from sparsec.pruning.patterns.rank import block_scores, lowest, lowest_units, spread, weights_in


@dataclass(frozen=True)
class TileWise(Pattern):
    """Each tile of `width` outputs has its own inputs, and is dense in these.

    A piece, `width` outputs at one input, is scored with ‖·‖₂ / G, and one percentile cuts the pieces of all matrices
    (section IV). The root mean square puts whole pieces in the same order; it is what is compared here, because it is
    fair to a last tile with fewer outputs too.

    Two-sided, each side prunes 1 − √(1 − s): first whole outputs, scored by ‖·‖₂ / K; then the survivors of a matrix
    are regrouped, so that every tile but the last has `width` of them, and pieces go until the sparsity is s.
    """

    width: int
    two_sided: bool = False
    syntax = r"tile-wise:(?P<width>\d+)(,(?P<two_sided>two-sided))?"
    example = "tile-wise:128"

    def __post_init__(self) -> None:
        self._check(self.width > 0, "a tile has at least one output")

    def __str__(self) -> str:
        return f"tile-wise:{self.width}" + (",two-sided" if self.two_sided else "")

    @property
    def drops_rows(self) -> bool:
        return self.two_sided

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        if not self.two_sided:
            return Block(self.width, 1).keep(scores, sparsity)
        total = weights_in(scores)
        rows = _kept_rows(scores, round((1 - math.sqrt(1 - sparsity)) * total))
        left = [Scores(each.values[kept]) for each, kept in zip(scores, rows, strict=True)]
        units = [_piece_scores(each.values, self.width) for each in left]
        dropped = round(sparsity * total) - (total - weights_in(left))
        gone = lowest_units([score for score, _ in units], [size for _, size in units], dropped)
        masks = []
        for each, kept, survivors, pieces in zip(scores, rows, left, gone, strict=True):
            mask = np.zeros(each.values.shape, bool)
            mask[kept] = ~spread(pieces, self.width, 1, survivors.values.shape)
            masks.append(mask)
        return masks


@dataclass(frozen=True)
class TEW(Pattern):
    """Tile-wise to a sparsity that is higher by `delta`, of which the best single weights come back (section IV-C)."""

    width: int
    delta: float
    syntax = r"tew:(?P<width>\d+),(?P<delta>\d*\.?\d+)"
    example = "tew:128,0.02"

    def __post_init__(self) -> None:
        self._check(self.width > 0, "a tile has at least one output")
        self._check(0 <= self.delta < 1, "delta is a part of all weights")

    def __str__(self) -> str:
        return f"tew:{self.width},{self.delta:g}"

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 1 - self.delta

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        tiles = TileWise(self.width).keep(scores, min(1.0, sparsity + self.delta))
        values = [np.where(tile, np.inf, each.values) for tile, each in zip(tiles, scores, strict=True)]
        outside = sum(int(np.count_nonzero(~tile)) for tile in tiles)
        return [~gone for gone in lowest(values, min(outside, round(sparsity * weights_in(scores))))]


@dataclass(frozen=True)
class TVW(Pattern):
    """Tile-wise outside and n:m inside.

    Each group of m inputs keeps its n best, and of these go the pieces with the lowest root mean square. A piece is one
    group wide, so that what is left of a tile is whole groups.
    """

    width: int
    n: int = 2
    m: int = 4
    syntax = r"tvw:(?P<width>\d+)(,(?P<n>\d+):(?P<m>\d+))?"
    example = "tvw:128"

    def __post_init__(self) -> None:
        self._check(self.width > 0, "a tile has at least one output")
        self._check(0 < self.n <= self.m, "n of m weights are at least one and at most all of them")

    def __str__(self) -> str:
        return f"tvw:{self.width}" + (f",{self.n}:{self.m}" if (self.n, self.m) != (2, 4) else "")

    @property
    def bounds(self) -> tuple[float, float]:
        return 1 - self.n / self.m, 1.0

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        inner = [NM(self.n, self.m).choose(each.values) for each in scores]
        units = [
            (
                block_scores(np.where(mask, each.values, 0.0), self.width, self.m)[0],
                _block_counts(mask, self.width, self.m),
            )
            for mask, each in zip(inner, scores, strict=True)
        ]
        left = sum(int(mask.sum()) for mask in inner)
        dropped = round(sparsity * weights_in(scores)) - (weights_in(scores) - left)
        gone = lowest_units([score for score, _ in units], [size for _, size in units], dropped)
        return [
            mask & ~spread(pieces, self.width, self.m, mask.shape) for mask, pieces in zip(inner, gone, strict=True)
        ]


def _kept_rows(scores: Sequence[Scores], dropped: int) -> list[Mask]:
    """Rows that stay when whole ones go, scored by ‖·‖₂ / K."""
    norms = [np.sqrt(np.square(each.values).sum(axis=1)) / each.values.shape[1] for each in scores]
    sizes = [np.full(len(each.values), each.values.shape[1]) for each in scores]
    return [~gone for gone in lowest_units(norms, sizes, dropped)]


def _piece_scores(values: NDArray[np.float64], width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """As `block_scores`, also of a matrix that has lost all its rows."""
    if not len(values):
        return np.zeros((0, values.shape[1])), np.zeros((0, values.shape[1]), np.int64)
    return block_scores(values, width, 1)


def _block_counts(mask: Mask, r: int, c: int) -> NDArray[np.int64]:
    means, sizes = block_scores(mask.astype(np.float64), r, c)
    return np.rint(np.square(means) * sizes).astype(np.int64)
