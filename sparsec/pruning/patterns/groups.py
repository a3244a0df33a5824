"""Patterns that keep a number of weights in each group of neighbouring inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns.base import Mask, Pattern, Scores
from sparsec.pruning.patterns.rank import best_of_each


@dataclass(frozen=True)
class NM(Pattern):
    """Of each m inputs in a row of an output, the n best stay (Mishra et al., "Accelerating sparse deep neural
    networks", 2021).

    Groups are of consecutive inputs as they lie in the weight, the taps of a convolution innermost. Of a shorter last
    group at most n stay too.
    """

    n: int
    m: int
    syntax = r"(?P<n>\d+):(?P<m>\d+)"
    example = "2:4"

    def __post_init__(self) -> None:
        self._check(0 < self.n <= self.m, "n of m weights are at least one and at most all of them")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def bounds(self) -> tuple[float, float]:
        return 1 - self.n / self.m, 1 - self.n / self.m

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        return [self.choose(each.values) for each in scores]

    def choose(self, values: NDArray[np.float64]) -> Mask:
        """Keep the n best of each group of a matrix [rows, depth]."""
        rows, depth = values.shape
        groups = _padded(values, 1, self.m).reshape(rows, -1, self.m)
        return best_of_each(groups, self.n).reshape(rows, -1)[:, :depth]


@dataclass(frozen=True)
class VNM(Pattern):
    """Blocks of v outputs and m inputs share the `columns` inputs with the largest norms, and of these each output
    keeps its n best (Castro et al., "VENOM: a vectorized N:M format for unleashing the power of sparse tensor cores",
    2023, section 4).
    """

    v: int
    n: int
    m: int
    columns: int = 4
    syntax = r"(?P<v>\d+):(?P<n>\d+):(?P<m>\d+)(,(?P<columns>\d+))?"
    example = "16:2:8"

    def __post_init__(self) -> None:
        self._check(self.v > 0, "a block has at least one row")
        self._check(0 < self.n <= self.columns <= self.m, "n of some columns, and these of m, are at most all of them")

    def __str__(self) -> str:
        return f"{self.v}:{self.n}:{self.m}" + (f",{self.columns}" if self.columns != 4 else "")

    @property
    def bounds(self) -> tuple[float, float]:
        return 1 - self.n / self.m, 1 - self.n / self.m

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        return [self._choose(each.values) for each in scores]

    def _choose(self, values: NDArray[np.float64]) -> Mask:
        rows, depth = values.shape
        padded = _padded(values, self.v, self.m)
        blocks = padded.reshape(-1, self.v, padded.shape[1] // self.m, self.m)
        present = blocks >= 0
        norms = np.where(present.any(axis=1), np.square(blocks).sum(axis=1, where=present), -1.0)
        shared = best_of_each(norms, self.columns)[:, None]
        chosen = best_of_each(np.where(shared, blocks, -2.0), self.n)
        return chosen.reshape(padded.shape)[:rows, :depth]


def _padded(values: NDArray[np.float64], r: int, c: int) -> NDArray[np.float64]:
    """Fill up to multiples of r rows and c columns, with less than any score."""
    rows, columns = values.shape
    return np.pad(values, ((0, -rows % r), (0, -columns % c)), constant_values=-1.0)
