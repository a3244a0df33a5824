"""Winograd's minimal filtering along one axis: the matrices of F(m, r), which give m outputs of r taps.

    y = A · ((G · w) ⊙ (B · x))

A direct sum multiplies m · r times, this one m + r − 1 times. Winograd, "Arithmetic Complexity of Computations", 1980;
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. The matrices are those of Toom and Cook:
A evaluates at points, and B interpolates, both transposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

POINTS = tuple(map(Fraction, (0, 1, -1, 2, -2)))
"""At which polynomials are evaluated, beside infinity. With more of them, rounding errors grow tenfold."""


@dataclass(frozen=True)
class Winograd:
    """F(m, r).

    Parameters
    ----------
    outputs : m
    taps : r, from 2 to 5; m + r − 1 is the number of points
    """

    outputs: int
    taps: int

    @staticmethod
    def of(taps: int) -> Winograd:
        """Return the algorithm with the points 0, ±1, ±2 and infinity.

        >>> Winograd.of(3)
        Winograd(outputs=4, taps=3)
        """
        return Winograd(len(POINTS) + 2 - taps, taps)

    def __str__(self) -> str:
        return f"F({self.outputs}, {self.taps})"

    @property
    def reads(self) -> int:
        """Inputs, and products."""
        return self.outputs + self.taps - 1

    @cached_property
    def output(self) -> np.ndarray:
        """A, float64 [outputs, products]: powers of the points."""
        powers = [[point**i for point in self._points] + [i == self.outputs - 1] for i in range(self.outputs)]
        return np.array(powers, np.float64)

    @cached_property
    def filter(self) -> np.ndarray:
        """G, float64 [products, taps]: powers of the points over the products of their distances."""
        rows = [[point**i / self._distances(point) for i in range(self.taps)] for point in self._points]
        return np.array([*rows, [0] * (self.taps - 1) + [1]], np.float64)

    @cached_property
    def input(self) -> np.ndarray:
        """B, float64 [products, inputs]: the polynomials that are zero at all points but one, and at all of them."""
        rows = [[*self._vanishing(point), Fraction(0)] for point in self._points]
        return np.array([*rows, self._vanishing(None)], np.float64)

    @property
    def _points(self) -> tuple[Fraction, ...]:
        return POINTS[: self.reads - 1]

    def _distances(self, point: Fraction) -> Fraction:
        """Return the product of the distances of a point to the others."""
        found = Fraction(1)
        for other in self._points:
            if other != point:
                found *= point - other
        return found

    def _vanishing(self, kept: Fraction | None) -> list[Fraction]:
        """Return the coefficients, the constant one first, of what is zero at all points but one."""
        coefficients = [Fraction(1)]
        for point in self._points:
            if point != kept:
                shifted = [Fraction(0), *coefficients]
                coefficients = [a - point * b for a, b in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
        return coefficients
