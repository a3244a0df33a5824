"""Patterns of convolution kernels (Niu et al., "PatDNN: achieving real-time DNN execution on mobile devices with
pattern-based weight pruning", ASPLOS 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns.base import Mask, Pattern, Scores
from sparsec.pruning.patterns.rank import best_of_each, lowest


@dataclass(frozen=True)
class KernelPattern(Pattern):
    """Each kernel keeps `entries` taps in one of few `shapes`, and only one of `connectivity` kernels stays at all.

    The natural shape of a kernel is its middle tap and the best others. The `shapes` most frequent of these are the set
    (section 4.1), and each kernel takes the one of them that keeps most, by the sum of squared scores. Then the kernels
    that keep least go (connectivity pruning, section 4.2).
    """

    entries: int = 4
    shapes: int = 8
    connectivity: float = 3.6
    syntax = r"fkw(:(?P<entries>\d+),(?P<shapes>\d+),(?P<connectivity>\d*\.?\d+))?"
    example = "fkw:4,8,3.6"

    def __post_init__(self) -> None:
        self._check(self.entries > 0 and self.shapes > 0, "it keeps at least one tap in at least one shape")
        self._check(self.connectivity >= 1, "connectivity is the number of kernels to each that stays, at least 1")

    def __str__(self) -> str:
        return f"fkw:{self.entries},{self.shapes},{self.connectivity:g}"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of 3×3 kernels, which are nearly all that the pattern is used for."""
        sparsity = 1 - min(1.0, self.entries / 9) / self.connectivity
        return sparsity, sparsity

    def objection(self, shape: tuple[int, int], taps: int) -> str:
        if taps > self.entries:
            return ""
        return f"has kernels of {taps} tap{'s' * (taps != 1)}, and shapes of {self.entries} need larger ones"

    def keep(self, scores: Sequence[Scores], sparsity: float) -> list[Mask]:
        sets = {taps: self._mine([each for each in scores if each.taps == taps]) for taps in {s.taps for s in scores}}
        fitted = [_fit(_kernels(each), sets[each.taps]) for each in scores]
        energies = [energy for _, energy in fitted]
        count = sum(energy.size for energy in energies)
        gone = lowest(energies, count - max(1, round(count / self.connectivity)))
        return [
            (mask & ~dropped[:, None]).reshape(each.values.shape)
            for (mask, _), dropped, each in zip(fitted, gone, scores, strict=True)
        ]

    def _mine(self, scores: Sequence[Scores]) -> Mask:
        """The most frequent natural shapes [shapes, taps]; of equally frequent ones those with the earlier taps."""
        kernels = np.concatenate([_kernels(each) for each in scores])
        if kernels.any():
            kernels = kernels[kernels.any(axis=1)]  # those that are gone already have no shape
        centred = kernels.copy()
        if kernels.shape[1] % 2:
            centred[:, kernels.shape[1] // 2] = np.inf
        natural = best_of_each(centred, self.entries)
        found, counts = np.unique(~natural, axis=0, return_counts=True)
        return ~found[np.argsort(-counts, kind="stable")[: self.shapes]]


def _kernels(scores: Scores) -> NDArray[np.float64]:
    """The kernels of a matrix, one after the other: [kernels, taps]."""
    return scores.values.reshape(-1, scores.taps)


def _fit(kernels: NDArray[np.float64], shapes: Mask) -> tuple[Mask, NDArray[np.float64]]:
    """What each kernel keeps [kernels, taps], and the sum of squares of that [kernels]."""
    energies = np.square(kernels) @ shapes.T.astype(np.float64)
    best = energies.argmax(axis=1)
    return shapes[best], energies[np.arange(len(kernels)), best]
