"""Hypothesis strategies: any layout that the notation can write, and tensors to store in it."""

import numpy as np
from hypothesis import strategies as st

from sparsec.ir.layout import Digit, Layout
from sparsec.ir.levels import (
    Bitmap,
    Bucketed,
    Compressed,
    Dense,
    Diagonal,
    Pattern,
    Singleton,
    Slots,
    Structured,
    Taps,
    Vnm,
)
from sparsec.ir.orders import Alike, Balance, Combine, Condense, Similar

DTYPES = ("float32", "float16", "int8")


@st.composite
def layouts(draw, most_dims=3, least_dims=1):
    names = ("i", "k", "r")[: draw(st.integers(least_dims, most_dims))]
    digits = [digit for name in names for digit in draw(_digits(name))]
    levels = []
    for depth in range(len(digits)):
        levels.append(draw(st.sampled_from(_allowed(levels, depth == len(digits) - 1))))
    levels = draw(_in_runs(levels))
    orders = draw(st.dictionaries(st.sampled_from(names), st.builds(Balance, st.integers(1, 4), st.integers(1, 3))))
    order_of_dims = tuple((name, orders[name]) for name in names if name in orders)
    return Layout(names, tuple(zip(draw(st.permutations(digits)), levels, strict=True)), order_of_dims)


@st.composite
def choosy_layouts(draw, most_dims=3, least_dims=1):
    """A layout with levels of all kinds, of which some hold only what fits."""
    names = ("i", "k", "r")[: draw(st.integers(least_dims, most_dims))]
    digits = draw(st.permutations([digit for name in names for digit in draw(_digits(name))]))
    levels = []
    for depth, digit in enumerate(digits):
        above = levels[-1] if levels else None
        last = depth == len(digits) - 1
        options = _allowed(levels, last)
        if isinstance(above, Bucketed):
            options.append(Bitmap())
        elif len(options) > 1 and Slots() not in levels:
            options += _choosy(draw, digit.size, digits[depth - 1].size if isinstance(above, Dense) else None)
            options += [] if last else [draw(st.builds(Pattern, st.integers(1, 3), st.integers(1, 3)))]
        levels.append(draw(st.sampled_from(options)))
    levels = draw(_in_runs(levels))
    permuted = draw(st.dictionaries(st.sampled_from(names), orders()))
    order_of_dims = tuple((name, permuted[name]) for name in names if name in permuted)
    return Layout(names, tuple(zip(digits, levels, strict=True)), order_of_dims)


@st.composite
def orders(draw):
    """A way to permute a dimension."""
    number = st.integers(1, 4)
    return draw(
        st.builds(Balance, number, number)
        | st.builds(Alike, number, number)
        | st.just(Condense())
        | st.builds(Similar, number)
        | st.builds(Combine, number)
    )


@st.composite
def _in_runs(draw, levels):
    """The levels, the last one that is not dense perhaps in runs."""
    leaf = next((n for n in reversed(range(len(levels))) if levels[n] != Dense()), None)
    if leaf is None or levels[leaf] != Compressed():
        return levels
    return [*levels[:leaf], Compressed(draw(st.integers(1, 5))), *levels[leaf + 1 :]]


def _choosy(draw, size, rows):
    """The levels that may stand over a digit, under a dense one of `rows` if that is known."""
    options = [Bitmap(), Structured(draw(st.integers(1, size or 5)))]
    if size and rows:
        shared = draw(st.integers(1, size))
        runs = draw(st.sampled_from([run for run in (1, 2, 3, 4) if rows % run == 0]))
        options.append(Vnm(draw(st.integers(1, shared)), shared, runs))
        options += [Diagonal()] * (size == rows)
    return options


@st.composite
def given_tensors(draw, layouts):
    """A layout, and a tensor of a shape that it can hold."""
    layout = draw(layouts)
    return layout, draw(tensors(len(layout.dims)))


@st.composite
def stored(draw, most_dims=3):
    """A layout of any levels, and a tensor that it can hold."""
    layout, array = draw(given_tensors(choosy_layouts(most_dims)))
    return layout, np.where(layout.holds(array != 0), array, array.dtype.type(0))


def matrix_layouts():
    """A layout of a matrix, which any product can run over."""
    return layouts(most_dims=2, least_dims=2)


@st.composite
def _digits(draw, name):
    """The digits of one dimension, the last one first."""
    digits, divisor = [], 1
    for size in draw(st.lists(st.integers(2, 4), max_size=2)):
        digits.append(Digit(name, divisor, size))
        divisor *= size
    return [*digits, Digit(name, divisor)]


def _allowed(levels, last):
    above = levels[-1] if levels else None
    if Slots() in levels:
        tells_apart = levels[-2:-1] == [Slots()] or above == Singleton()
        return [Dense()] if above == Slots() or not tells_apart else [Dense(), Singleton()]
    if isinstance(above, Bucketed):
        return [Compressed()]
    if isinstance(above, Pattern):
        return [Taps()]
    if isinstance(above, Compressed) and above.nonunique:
        return [Singleton()]
    options = [Dense(), Compressed()]
    if isinstance(above, Singleton):
        options.append(Singleton())
    return options if last else [*options, Bucketed(), Slots(), Compressed(nonunique=True)]


@st.composite
def tensors(draw, dims):
    """A tensor of random bits (NaNs of every payload, infinities, subnormals) at a random density."""
    shape = draw(st.tuples(*[st.sampled_from((1, 2, 3, 5, 8, 11, 13))] * dims))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    density = draw(st.sampled_from((0.0, 0.05, 0.3, 1.0)))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = random.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype)[..., 0]
    return np.where(random.random(shape) < density, values, dtype.type(0))
