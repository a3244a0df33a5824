"""Padded images have room for what convolutions read and write, at addresses that vectors like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.graph.image_semantics import pad, unpad
from sparsec.ir.image import VECTOR, Image, PlainImage


@st.composite
def images(draw):
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    pitch = width + draw(st.integers(0, 5))
    before, after = (draw(st.integers(0, 3 * pitch)) for _ in range(2))
    return Image(height, width, pitch, before, after)


@settings(deadline=None, derandomize=True)
@given(images())
def test_everything_has_its_place(image):
    assert image.origin % VECTOR == image.columns % VECTOR == image.plane % VECTOR == 0
    assert image.plane // VECTOR % 2 == 1
    assert image.before <= image.origin < image.before + VECTOR
    assert image.run <= image.columns < image.run + VECTOR
    assert image.origin + image.columns <= image.plane
    assert image.origin + image.run + image.after <= image.plane
    assert image.halo == (image.before + image.after > 0)


@pytest.mark.parametrize("lanes, columns", [(4, 56), (8, 56), (16, 64)])
def test_pixels_are_rounded_up_to_vectors(lanes, columns):
    image = Image(7, 7, 8, 9, 9, lanes)
    assert image.columns == columns
    assert image.plane == Image(7, 7, 8, 9, 9).plane


@settings(deadline=None, derandomize=True)
@given(images(), st.integers(1, 2), st.integers(1, 3))
def test_padding_keeps_pixels_and_surrounds_them_by_zeros(image, batch, channels):
    pixels = 1 + np.arange(batch * channels * image.height * image.width, dtype=np.float32)
    pixels = pixels.reshape(batch, channels, image.height, image.width)
    planes = pad(pixels, image)
    assert planes.shape == (batch, channels, image.plane)
    assert np.count_nonzero(planes) == pixels.size
    assert planes[0, 0, image.origin] == 1
    assert np.array_equal(unpad(planes, image), pixels)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 16)], ids=str)
def test_plain_images_follow_each_other(size):
    height, width = size
    image = PlainImage(height, width, width)
    assert (image.origin, image.plane, image.halo) == (0, height * width, False)
    pixels = np.arange(2 * 3 * height * width, dtype=np.float32).reshape(2, 3, height, width)
    assert np.array_equal(pad(pixels, image).ravel(), pixels.ravel())
