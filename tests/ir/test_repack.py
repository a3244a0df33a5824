"""Images are copied from any form to any other, by the interpreter and by compiled code."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.graph.image_semantics import pad
from sparsec.graph.image_semantics import repack as repacked
from sparsec.ir.image import Image, PlainImage
from sparsec.ir.interpreter import interpret
from sparsec.ir.lower import lower
from sparsec.ir.parser import parse_kernel
from sparsec.ir.repack import build_repack
from sparsec.schedules.rules.images import schedule_images
from sparsec.targets import TARGETS
from tests.ir.product_cases import NATIVE, Compiled, integers


def plain(height, width):
    return PlainImage(height, width, width)


def image(height, width, border=1, rows=1):
    """An image with this many columns and rows of border."""
    pitch = width + border
    return Image(height, width, pitch, rows * pitch + border, rows * pitch + border)


def agree(
    source,
    target,
    strides=(1, 1),
    phases=(1, 1),
    padding=(0, 0),
    batch=2,
    channels=3,
    symbolic=False,
    run=True,
    processor=NATIVE,
):
    """Hold the kernel against what the operator means; whatever surrounds the pixels of the source is NaN."""
    pixels = integers(batch, channels, source.height, source.width) + np.float32(20)
    x = np.where(pad(np.ones_like(pixels), source) > 0, pad(pixels, source), np.float32(np.nan))
    wanted = repacked(pixels, None, target, strides, phases, padding, 0).reshape(batch, -1)
    kernel = build_repack("batch" if symbolic else batch, channels, source, target, strides, phases, padding)
    assert parse_kernel(str(kernel)) == kernel
    arrays = {"X": x.reshape(batch, -1)}
    np.testing.assert_array_equal(interpret(kernel, arrays)["Y"], wanted)
    if run:
        func = schedule_images(kernel, processor)
        found = Compiled(lower(kernel), func)(arrays, {"Y": wanted.shape})["Y"]
        np.testing.assert_array_equal(found, wanted)


FORMS = {
    "plain to padded": (plain(7, 9), image(7, 9)),
    "padded to plain": (image(7, 9), plain(7, 9)),
    "one pixel": (plain(1, 1), image(1, 1)),
    "one pixel to plain": (image(1, 1, 3, 3), plain(1, 1)),
    "wide rows": (plain(2, 37), image(2, 37, 2)),
    "whole vectors": (image(3, 32), plain(3, 32)),
    "other borders": (image(5, 5, 1), image(5, 5, 3, 2)),
    "no border": (plain(5, 5), image(5, 5, 0, 0)),
}


@pytest.mark.parametrize("name", FORMS)
def test_copies(name):
    agree(*FORMS[name])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_symbolic_batch(batch):
    agree(plain(5, 6), image(5, 6), batch=batch, symbolic=True)


def test_borders_of_a_filter():
    agree(plain(5, 6), Image(8, 9, 9), padding=(1, 2))
    agree(image(5, 6), Image(8, 9, 11, after=30), padding=(2, 0))


@pytest.mark.parametrize("source", [plain(9, 11), image(9, 11)], ids=["plain", "padded"])
@pytest.mark.parametrize(
    ("strides", "phases", "padding"),
    [
        ((2, 2), (2, 2), (1, 1)),
        ((2, 2), (1, 1), (0, 0)),
        ((2, 1), (2, 1), (3, 2)),
        ((1, 3), (1, 3), (0, 1)),
        ((3, 3), (1, 3), (1, 0)),
    ],
    ids=str,
)
def test_phases(source, strides, phases, padding):
    agree(source, Image(6, 7, 8), strides, phases, padding)


@pytest.mark.parametrize("processor", ["znver3", "x86-64-v2", "skylake-avx512"])
@pytest.mark.parametrize("width", [9, 12, 13, 15, 16, 17, 31])
def test_what_is_left_of_a_row_writes_nothing_behind_it(width, processor):
    """Schedules for vectors of all lengths, in code for this machine; the next row begins where this one ends."""
    target = Image(4, width + 1, width + 1)
    agree(plain(7, 2 * width), target, (2, 2), (2, 2), (1, 1), processor=TARGETS[processor])


def test_a_phase_without_a_pixel_is_zero():
    agree(plain(1, 1), Image(2, 2, 3), (2, 2), (2, 2), (0, 0))
    agree(plain(1, 1), Image(2, 2, 3), (2, 2), (2, 2), (3, 3))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    size=st.tuples(*[st.sampled_from([1, 2, 5, 7, 17])] * 2),
    target=st.tuples(*[st.integers(1, 9)] * 2),
    border=st.tuples(*[st.integers(0, 3)] * 4),
    strides=st.tuples(*[st.integers(1, 3)] * 2),
    padding=st.tuples(*[st.integers(0, 4)] * 2),
    data=st.data(),
)
def test_any_form(size, target, border, strides, padding, data):
    phases = tuple(data.draw(st.sampled_from([1, stride])) for stride in strides)
    agree(image(*size, *border[:2]), image(*target, *border[2:]), strides, phases, padding, 1, 2, run=False)


def test_the_name_of_a_kernel_is_kept():
    kernel = replace(build_repack(1, 2, plain(3, 4), image(3, 4)), name="first")
    assert str(schedule_images(kernel, NATIVE).attrs["global_symbol"]) == "first"
