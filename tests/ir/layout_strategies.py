"""Hypothesis strategies: any layout that the notation can write, and tensors to store in it."""

import numpy as np
from hypothesis import strategies as st

from sparsec.ir.layout import Digit, Layout
from sparsec.ir.levels import Balance, Bucketed, Compressed, Dense, Singleton

DTYPES = ("float32", "float16", "int8")


@st.composite
def layouts(draw, most_dims=3):
    names = ("i", "k", "r")[: draw(st.integers(1, most_dims))]
    digits = [digit for name in names for digit in draw(_digits(name))]
    levels = []
    for depth in range(len(digits)):
        levels.append(draw(st.sampled_from(_allowed(levels[-1] if levels else None, depth == len(digits) - 1))))
    orders = draw(st.dictionaries(st.sampled_from(names), st.builds(Balance, st.integers(1, 4), st.integers(1, 3))))
    order_of_dims = tuple((name, orders[name]) for name in names if name in orders)
    return Layout(names, tuple(zip(draw(st.permutations(digits)), levels, strict=True)), order_of_dims)


@st.composite
def product_layouts(draw):
    """A layout that a product can run over: only the last digit of its depth may be compressed."""
    digits = draw(st.permutations([*draw(_digits("i")), *draw(_digits("k"))]))
    levels = [Dense()] * len(digits)
    last = max(level for level, digit in enumerate(digits) if digit.dim == "k")
    if draw(st.booleans()):
        levels[last] = Compressed()
        if last and digits[last - 1].dim == "i" and draw(st.booleans()):
            levels[last - 1] = Bucketed()
    balanced = [("i", draw(st.builds(Balance, st.integers(1, 4), st.integers(1, 3))))] if draw(st.booleans()) else []
    return Layout(("i", "k"), tuple(zip(digits, levels, strict=True)), tuple(balanced))


@st.composite
def _digits(draw, name):
    """The digits of one dimension, the last one first."""
    digits, divisor = [], 1
    for size in draw(st.lists(st.integers(2, 4), max_size=2)):
        digits.append(Digit(name, divisor, size))
        divisor *= size
    return [*digits, Digit(name, divisor)]


def _allowed(above, last):
    if isinstance(above, Bucketed):
        return [Compressed()]
    if isinstance(above, Compressed) and above.nonunique:
        return [Singleton()]
    options = [Dense(), Compressed()]
    if isinstance(above, Singleton):
        options.append(Singleton())
    return options if last else [*options, Bucketed(), Compressed(nonunique=True)]


@st.composite
def tensors(draw, dims):
    """A tensor of random bits (NaNs of every payload, infinities, subnormals) at a random density."""
    shape = draw(st.tuples(*[st.sampled_from((1, 2, 3, 5, 8, 11, 13))] * dims))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    density = draw(st.sampled_from((0.0, 0.05, 0.3, 1.0)))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = random.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype)[..., 0]
    return np.where(random.random(shape) < density, values, dtype.type(0))
