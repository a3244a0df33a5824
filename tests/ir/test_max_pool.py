"""Images are pooled from any form to any other, by the interpreter and by compiled code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.graph.image_semantics import max_pool, pad
from sparsec.ir.interpreter import interpret
from sparsec.ir.lower import lower
from sparsec.ir.max_pool import build_max_pool
from sparsec.ir.parser import parse_kernel
from sparsec.schedules.rules.images import schedule_images
from tests.ir.product_cases import NATIVE, Compiled, integers
from tests.ir.test_repack import image, plain


def agree(
    source,
    shape,
    window,
    strides=(1, 1),
    dilation=(1, 1),
    padding=(0, 0),
    form=plain,
    around=0,
    batch=2,
    dtype="float32",
):
    """Hold the kernel against what the operator means; whatever surrounds the pixels of the source is NaN."""
    target, channels = form(*shape), 3
    pixels = (integers(2, channels, source.height, source.width) % 100 - np.float32(120)).astype(dtype)
    x = np.where(pad(np.ones_like(pixels), source) > 0, pad(pixels, source), np.array(np.nan, dtype))
    bottom, right = (
        max(0, (size - 1) * stride + (taps - 1) * step + 1 - before - extent)
        for size, stride, taps, step, before, extent in zip(
            shape, strides, window, dilation, padding, (source.height, source.width), strict=True
        )
    )
    whole = (*padding, bottom, right)
    wanted = max_pool(pixels, None, target, window, strides, dilation, whole, False, around)
    wanted = wanted.reshape(2, -1)
    read = slice(None) if around is not None else pad(np.ones((2, channels, *shape)), target).reshape(2, -1) > 0
    kernel = build_max_pool(batch, channels, source, target, window, strides, dilation, padding, dtype, around)
    assert parse_kernel(str(kernel)) == kernel
    arrays = {"X": x.reshape(2, -1)}
    func = schedule_images(kernel, NATIVE)
    found = Compiled(lower(kernel), func)(arrays, {"Y": wanted.shape})["Y"]
    for result in (interpret(kernel, arrays)["Y"], found):
        np.testing.assert_array_equal(result[read], wanted[read])


@pytest.mark.parametrize("form", [plain, image], ids=["to plain", "to padded"])
@pytest.mark.parametrize("source", [plain(15, 37), image(15, 37)], ids=["plain", "padded"])
@pytest.mark.parametrize(
    ("shape", "window", "strides", "dilation", "padding"),
    [
        ((7, 18), (2, 2), (2, 2), (1, 1), (0, 0)),
        ((8, 19), (3, 3), (2, 2), (1, 1), (1, 1)),
        ((8, 19), (2, 2), (2, 2), (1, 1), (0, 0)),  # whose last windows are not full
        ((15, 37), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((5, 13), (3, 2), (3, 3), (1, 1), (0, 1)),
        ((11, 33), (3, 3), (1, 1), (2, 2), (0, 0)),
        ((8, 19), (3, 4), (2, 2), (3, 2), (3, 2)),
        ((15, 37), (13, 9), (1, 1), (1, 1), (6, 4)),
        ((1, 1), (15, 37), (1, 1), (1, 1), (0, 0)),
    ],
)
def test_pools(source, form, shape, window, strides, dilation, padding):
    agree(source, shape, window, strides, dilation, padding, form)


def test_what_surrounds_pixels_is_left_where_nobody_reads_it():
    agree(image(6, 40), (3, 20), (2, 2), (2, 2), form=image, around=None)
    text = str(build_max_pool(1, 1, plain(4, 4), image(2, 2), (2, 2), (2, 2)))
    assert "0.0" not in text


@pytest.mark.parametrize("form", [plain, image], ids=["to plain", "to padded"])
def test_half_precision(form):
    agree(image(9, 40), (5, 20), (3, 3), (2, 2), padding=(1, 1), form=form, dtype="float16")


def test_wide_windows_are_short_kernels():
    texts = [str(build_max_pool(1, 1, plain(n, n), plain(1, 1), (n, n), (1, 1))) for n in (4, 64)]
    assert len(texts[1]) < 64 * len(texts[0])


def test_a_symbolic_batch():
    agree(plain(6, 8), (3, 4), (2, 2), (2, 2), batch="batch")


def test_taps_have_no_conditions():
    text = str(build_max_pool(1, 1, plain(9, 50), plain(5, 25), (3, 3), (2, 2), padding=(1, 1)))
    assert "select" not in text and "if" not in text.replace("float", "")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_window(data):
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    height, width = data.draw(st.integers(4, 9)), data.draw(st.integers(4, 40))
    window, strides, dilation = data.draw(pair), data.draw(pair), data.draw(pair)
    padding = tuple(data.draw(st.integers(0, taps - 1)) for taps in window)
    shape = tuple(
        (extent + before - 1) // stride + 1
        for extent, before, stride in zip((height, width), padding, strides, strict=True)
    )
    shape = tuple(min(a, b) for a, b in zip(shape, (height, width), strict=True))
    agree(data.draw(st.sampled_from([plain, image]))(height, width), shape, window, strides, dilation, padding)
