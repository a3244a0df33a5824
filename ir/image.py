"""Padded images: how a convolution's activations lie in memory so that its output is one flat run of vectors.

An image is stored as rows of `pitch` elements: `left` zeros, then the pixels. The zeros at the left of a row are also
the right border of the row above, so a 3×3 filter needs one column of padding. `top` rows of zeros stand above,
`bottom` rows below; there is room for the last vector of pixels, which runs past them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """The place of `height` × `width` pixels in `rows` × `pitch` elements."""

    height: int
    width: int
    top: int = 0
    left: int = 0
    bottom: int = 0

    @property
    def rows(self) -> int:
        return self.top + self.height + self.bottom

    @property
    def pitch(self) -> int:
        return self.left + self.width

    @property
    def plane(self) -> int:
        """Elements of a whole image."""
        return self.rows * self.pitch

    @property
    def origin(self) -> int:
        """Offset of the first pixel."""
        return self.top * self.pitch + self.left

    @property
    def run(self) -> int:
        """Elements from the first pixel to the last one."""
        return (self.height - 1) * self.pitch + self.width
