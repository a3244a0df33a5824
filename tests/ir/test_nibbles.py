"""Integers of four bits, two in a byte."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparsec.ir.nibbles import nibble_bytes, pack_nibbles, unpack_nibbles


@given(st.lists(st.integers(-8, 7), max_size=100))
def test_every_value_comes_back(values):
    array = np.array(values, np.int8).astype("int4")
    stored = pack_nibbles(array)
    assert stored.dtype == np.uint8 and stored.size == nibble_bytes(len(values))
    np.testing.assert_array_equal(unpack_nibbles(stored, len(values)), np.array(values, np.int8))


def test_sixteen_neighbours_are_in_sixteen_bytes():
    stored = pack_nibbles(np.arange(32) % 16 - 8)
    assert (stored & 15 == stored >> 4).all() and len(set(stored.tolist())) == 16
