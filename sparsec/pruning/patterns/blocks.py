"""Patterns whose units are single weights, blocks, or whole outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.pruning.patterns.base import Mask, Pattern, Scores
from sparsec.pruning.patterns.rank import block_scores, lowest, lowest_units, spread, weights_in


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weight may go (Han et al., "Learning both weights and connections", 2015, section 3)."""

    syntax = "unstructured"
    example = "unstructured"

    def __str__(self) -> str:
        return "unstructured"

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        return [~gone for gone in lowest([each.values for each in scores], round(sparsity * weights_in(scores)))]


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of r outputs and c inputs stay or go together, ranked by the root mean square of their scores.

    A block at an edge that it does not divide is smaller, and a rival of the others all the same.
    """

    r: int
    c: int
    syntax = r"block:(?P<r>\d+)x(?P<c>\d+)"
    example = "block:4x1"

    def __post_init__(self) -> None:
        self._check(self.r > 0 and self.c > 0, "a block has at least one row and one column")

    def __str__(self) -> str:
        return f"block:{self.r}x{self.c}"

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        units = [block_scores(each.values, self.r, self.c) for each in scores]
        gone = lowest_units(
            [score for score, _ in units], [size for _, size in units], round(sparsity * weights_in(scores))
        )
        return [~spread(blocks, self.r, self.c, each.values.shape) for blocks, each in zip(gone, scores, strict=True)]


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole outputs go, ranked by the root mean square of their scores, and with them the inputs they were of others.

    ``sparsity`` is the part of the outputs; layers that also lose inputs become sparser. The outputs of the model stay.
    (Li et al., "Pruning filters for efficient ConvNets", 2017.)
    """

    syntax = "channels"
    example = "channels"

    def __str__(self) -> str:
        return "channels"

    @property
    def drops_rows(self) -> bool:
        return True

    @property
    def takes_inputs(self) -> bool:
        return True

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        rows = [block_scores(each.values, 1, each.values.shape[1]) for each in scores]
        gone = lowest_units(
            [score for score, _ in rows], [size for _, size in rows], round(sparsity * weights_in(scores))
        )
        return [np.repeat(~rows, each.values.shape[1], axis=1) for rows, each in zip(gone, scores, strict=True)]
