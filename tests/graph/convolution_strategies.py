"""Hypothesis strategies: any convolution."""

from hypothesis import strategies as st


@st.composite
def convolutions(draw, make, largest=16):
    """Any convolution of 4 channels to 8, as `make(out, kernel, channels, groups, **options)` makes it.

    With it comes the size of an image that it can be applied to.
    """
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (2, 2), (2, 3)]))
    strides = draw(st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 2))
    dilation = draw(st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 2))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    size = draw(st.tuples(*[st.sampled_from([n for n in (1, 2, 5, 7, 13, 16) if n <= largest])] * 2))
    reach = [(extent - 1) * d + 1 for extent, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(n, r - padding[a] - padding[a + 2]) for a, (n, r) in enumerate(zip(size, reach, strict=True)))
    groups = draw(st.sampled_from([1, 2, 4]))
    return make(8, kernel, 4, groups, padding=padding, strides=strides, dilation=dilation), size
