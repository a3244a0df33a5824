"""Pictures of where the nonzeros of a weight are."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np

SIDE = 192
"""Cells along the longer side of a map."""

LEAST = 16
"""Cells that the shorter side of a map has, where the weight has so many rows or columns."""

CORNER = (48, 96)
"""Rows and columns of the corner that is shown element by element."""

LEVELS = 15
"""Steps from empty to full, which with the empty one fit into four bits."""

INK = (47, 111, 222)
"""Red, green and blue of what is nonzero; what is zero is transparent, so that a picture fits any background."""


@dataclass(frozen=True, eq=False)
class WeightMap:
    """Where the nonzeros of a weight are.

    Parameters
    ----------
    density : float32 [height, width], the part of each cell's elements that is nonzero
    corner : bool [rows, columns], which of the first elements are nonzero
    """

    density: np.ndarray
    corner: np.ndarray

    @staticmethod
    def of(matrix: np.ndarray) -> WeightMap:
        """Look at a matrix [rows, columns]."""
        mask = matrix != 0
        longer = max(mask.shape)
        height, width = (min(size, max(LEAST, round(size * SIDE / max(longer, SIDE)))) for size in mask.shape)
        return WeightMap(_density(mask, height, width), mask[: CORNER[0], : CORNER[1]].copy())

    @property
    def peak(self) -> float:
        """The density of the fullest cell."""
        return float(self.density.max(initial=0))


def _density(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the part of nonzeros in each cell of a grid, whose cells differ by a row or a column at most."""
    tops, lefts = (np.arange(cells) * size // cells for cells, size in zip((height, width), mask.shape, strict=True))
    counts = np.add.reduceat(np.add.reduceat(mask, tops, axis=0, dtype=np.int32), lefts, axis=1)
    heights, widths = np.diff(tops, append=mask.shape[0]), np.diff(lefts, append=mask.shape[1])
    return (counts / np.outer(heights, widths)).astype(np.float32)


def picture(values: np.ndarray) -> str:
    """Return an image of values from 0 to 1, as a ``data:`` URI: PNG, the ink more opaque where there is more.

    Opacity goes with the square root, so that a tenth is still seen and all weights have one scale.
    """
    from PIL import Image

    image = Image.fromarray(np.ceil(np.sqrt(values, dtype=np.float32) * LEVELS).astype(np.uint8)).convert("P")
    image.putpalette(INK * (LEVELS + 1))
    file = BytesIO()
    opacity = bytes(round(255 * level / LEVELS) for level in range(LEVELS + 1))
    image.save(file, "PNG", optimize=True, bits=4, transparency=opacity)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
