"""Padded images: how a convolution's activations lie in memory so that its output is one flat run of vectors.

An image is a plane of rows, `pitch` elements apart. Between the pixels of two rows stand zeros, which are the right
border of one and the left border of the next, so a 3×3 filter needs one column of padding. Before the first pixel and
after the last one there is room for the borders that filters reach, and for the last vector of pixels, which runs past
them. The first pixel stands at a multiple of a vector, and so does every plane.
"""

from __future__ import annotations

from dataclasses import dataclass

VECTOR = 16  # elements of the widest vector


@dataclass(frozen=True)
class Image:
    """The place of `height` × `width` pixels in a plane.

    Parameters
    ----------
    height, width : pixels
    pitch : elements from one row to the next
    before, after : elements that filters reach before the first pixel and after the last one
    lanes : elements in a vector of pixels, at most `VECTOR`
    """

    height: int
    width: int
    pitch: int
    before: int = 0
    after: int = 0
    lanes: int = VECTOR

    @property
    def origin(self) -> int:
        """Offset of the first pixel."""
        return _round_up(self.before)

    @property
    def run(self) -> int:
        """Elements from the first pixel to the last one."""
        return (self.height - 1) * self.pitch + self.width

    @property
    def columns(self) -> int:
        """Elements from the first pixel to the end of the last vector."""
        return _round_up(self.run, self.lanes)

    @property
    def plane(self) -> int:
        """Elements of a whole image: an odd number of vectors, so that planes do not meet in the same cache sets."""
        elements = self.origin + max(self.columns, self.run + self.after, self.height * self.pitch)
        return (-(-elements // VECTOR) | 1) * VECTOR

    @property
    def halo(self) -> bool:
        """Whether filters read what surrounds the pixels, which must be zero then."""
        return self.before > 0 or self.after > 0


@dataclass(frozen=True)
class PlainImage(Image):
    """An image as it is in `[N, C, H, W]`: nothing stands around its pixels, and planes follow each other at once."""

    @property
    def plane(self) -> int:
        """Elements of a whole image."""
        return self.height * self.pitch


def _round_up(extent: int, lanes: int = VECTOR) -> int:
    return -(-extent // lanes) * lanes
