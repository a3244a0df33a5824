"""Sums split a tensor exactly, and put it together again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.named import CSR, dense_blocks, n_of_m, tew, tile_wise, tile_wise_two_sided
from sparsec.ir.notation import parse_layout, parse_storage
from sparsec.ir.sums import Sum
from tests.ir.layout_strategies import choosy_layouts, given_tensors
from tests.ir.test_layout import bits, without_negative_zeros

FIRST = (tile_wise(3), tile_wise_two_sided(2), n_of_m(1, 3), dense_blocks(2))
terms = st.lists(choosy_layouts(2, 2) | st.sampled_from(FIRST), min_size=2, max_size=3)
sums_and_tensors = given_tensors(terms.map(lambda layouts: Sum((*layouts[:-1], CSR))))


@settings(max_examples=200, deadline=None)
@given(sums_and_tensors)
def test_sums_store_every_bit_once(case):
    layout, array = case
    stored = layout.pack(array)
    np.testing.assert_array_equal(bits(stored.unpack()), bits(without_negative_zeros(array)))
    assert sum(np.count_nonzero(term.arrays["data"]) for term in stored.terms) == np.count_nonzero(array)
    assert layout.nbytes(array, array.dtype) == stored.nbytes
    assert stored.nbytes == sum(values.nbytes for values in stored.arrays.values())
    assert layout.refusal(array) is None
    np.testing.assert_array_equal(layout.holds(array), array != 0)


@settings(max_examples=100, deadline=None)
@given(terms.map(tuple).map(Sum))
def test_parsing_inverts_printing(layout):
    assert parse_storage(str(layout)) == layout


def test_tiles_that_are_half_full_go_to_the_first_term():
    array = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 0, 5, 0], [0, 0, 6, 0]], dtype=np.int8)
    tiles, rest = tew(4).split(array)
    assert np.flatnonzero(tiles.any(axis=0)).tolist() == [0, 2]
    assert np.argwhere(rest).tolist() == [[0, 1]]


def test_the_last_term_may_refuse():
    layout = Sum((tile_wise(4), n_of_m(1, 2)))
    array = np.zeros((4, 4), dtype=np.int8)
    array[1, :2] = 1
    assert layout.refusal(array) == "structured[1, 2] holds 1 in each fiber, and at i 1 there are 2, at k 0, 1"
    assert np.argwhere(layout.holds(array)).tolist() == [[1, 0]]
    with pytest.raises(LayoutError, match="at i 1 there are 2"):
        layout.pack(array)


def test_a_shape_that_no_term_can_hold_is_refused():
    assert str(tew().refusal(np.ones((4, 4, 4)))).endswith("cannot hold shape (4, 4, 4); it has 2 dims")


@pytest.mark.parametrize("terms", [(CSR,), (CSR, parse_layout("(k) -> (k : dense)"))])
def test_terms_must_agree(terms):
    with pytest.raises(LayoutError, match="must have two or more terms over the same dimensions"):
        Sum(terms)


def test_a_sum_is_not_a_layout():
    with pytest.raises(LayoutError, match=r"expected the end of the layout, found '\+'"):
        parse_layout(str(tew()))
    assert parse_storage(str(CSR)) == CSR
