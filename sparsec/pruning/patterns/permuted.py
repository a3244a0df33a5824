"""Patterns in which permutations make dense storage possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns.base import Mask, Pattern, Scores
from sparsec.pruning.patterns.rank import lowest, weights_in


@dataclass(frozen=True)
class PermutedDiagonal(Pattern):
    """Blocks of p outputs and p inputs keep one diagonal each, at column (row + shift) mod p (Deng et al., "PermDNN:
    efficient compressed DNN architecture with permuted diagonal matrices", MICRO 2018).

    The shift of a block is the one that keeps most, by the sum of squared scores; of equal ones the smallest. A block
    that sticks out of the matrix keeps what of its diagonal lies inside.
    """

    p: int
    syntax = r"diagonal:(?P<p>\d+)"
    example = "diagonal:4"

    def __post_init__(self) -> None:
        self._check(self.p > 0, "a block has at least one row")

    def __str__(self) -> str:
        return f"diagonal:{self.p}"

    @property
    def bounds(self) -> tuple[float, float]:
        return 1 - 1 / self.p, 1 - 1 / self.p

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        return [self._choose(each.values) for each in scores]

    def _choose(self, values: NDArray[np.float64]) -> Mask:
        rows, depth = values.shape
        squares = np.square(np.pad(values, ((0, -rows % self.p), (0, -depth % self.p))))
        high, wide = (extent // self.p for extent in squares.shape)
        row, shift = np.ogrid[: self.p, : self.p]
        column = (row + shift) % self.p
        # [high, wide, row, shift]: each block with its diagonals as columns
        diagonals = squares.reshape(high, self.p, wide, self.p).swapaxes(1, 2)[:, :, row, column]
        best = diagonals.sum(axis=2).argmax(axis=2)
        chosen = column[np.arange(self.p), best[..., None]]  # [high, wide, row]: the column that each row keeps
        mask = chosen[..., None] == np.arange(self.p)
        return mask.swapaxes(1, 2).reshape(squares.shape)[:rows, :depth]


@dataclass(frozen=True)
class ColumnCombining(Pattern):
    """Inputs are put together in groups, and in each group an output keeps one of them (Kung et al., "Packing sparse
    convolutional neural networks for efficient systolic array implementations: column combining under joint
    optimization", ASPLOS 2019).

    There are as many groups as inputs fill. Inputs join them one by one, the one with the largest norm first; each the
    group with room where the least is lost, by the sum of the smaller squared scores of all conflicts. What is left is
    then pruned to the sparsity.
    """

    group: int
    syntax = r"combine:(?P<group>\d+)"
    example = "combine:8"

    def __post_init__(self) -> None:
        self._check(self.group > 0, "a group has at least one column")

    def __str__(self) -> str:
        return f"combine:{self.group}"

    @property
    def bounds(self) -> tuple[float, float]:
        return 1 - 1 / self.group, 1.0

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        combined = [self._combine(each.values) for each in scores]
        total = weights_in(scores)
        left = [np.where(mask, each.values, -1.0) for mask, each in zip(combined, scores, strict=True)]
        dropped = max(round(sparsity * total), total - sum(int(mask.sum()) for mask in combined))
        return [~gone for gone in lowest(left, dropped)]

    def _combine(self, values: NDArray[np.float64]) -> Mask:
        rows, depth = values.shape
        squares = np.square(values).T.copy()
        groups = -(-depth // self.group)
        best = np.zeros((groups, rows))  # the largest of each output so far
        room = np.full(groups, self.group)
        group_of = np.zeros(depth, np.int64)
        for column in np.argsort(-squares.sum(axis=1), kind="stable"):
            open_groups = np.flatnonzero(room)
            losses = np.minimum(best[open_groups], squares[column]).sum(axis=1)
            group = group_of[column] = open_groups[losses.argmin()]
            room[group] -= 1
            np.maximum(best[group], squares[column], out=best[group])
        return _largest_of_groups(values, group_of)


def _largest_of_groups(values: NDArray[np.float64], group_of: NDArray[np.int64]) -> Mask:
    """Keep in each row the largest of each group of columns; of equal ones the first."""
    mask = np.zeros(values.shape, bool)
    rows = np.arange(len(values))
    for group in range(int(group_of.max()) + 1):
        columns = np.flatnonzero(group_of == group)
        mask[rows, columns[values[:, columns].argmax(axis=1)]] = True
    return mask
