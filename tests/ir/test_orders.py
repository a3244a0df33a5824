"""Orders permute, and each brings together what it says."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.named import combined_columns, tile_wise_two_sided
from sparsec.ir.notation import parse_layout
from sparsec.ir.orders import Alike, Balance, Combine, Condense, Similar
from tests.ir.layout_strategies import orders

patterns = st.tuples(
    st.integers(1, 20), st.integers(1, 12), st.sampled_from([0.0, 0.05, 0.3, 1.0]), st.integers(0, 99)
).map(lambda case: np.random.default_rng(case[3]).random(case[:2]) < case[2])


@settings(max_examples=300, deadline=None)
@given(orders(), patterns)
def test_every_order_is_a_permutation(order, pattern):
    assert sorted(order.order(pattern).tolist()) == list(range(len(pattern)))


def pattern(weights):
    """Entries so that each coordinate has as many as its weight."""
    return np.arange(200) < np.asarray(weights)[:, None]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 5))
def test_balance_moves_whole_groups_between_chunks_of_equal_size(weights, chunks, group):
    order = Balance(chunks, group).order(pattern(weights))
    assert sorted(order.tolist()) == list(range(len(weights)))
    for moved in np.split(order, range(group, len(order), group)):
        assert moved[0] % group == 0 and np.all(np.diff(moved) == 1)
    ragged = len(weights) % group
    assert ragged == 0 or order[-ragged:].tolist() == list(range(len(weights) - ragged, len(weights)))


def test_balanced_chunks_have_nearly_equal_weight():
    random = np.random.default_rng(0)
    weights = np.sort(random.integers(10, 200, 3072))  # in their own order the last chunk has four times the mean
    parts = weights[Balance(8).order(pattern(weights))].reshape(8, -1).sum(axis=1)
    assert parts.max() <= 1.001 * parts.mean()


def test_balance_keeps_equal_rows_in_order_within_a_chunk():
    order = Balance(3).order(pattern(np.ones(9))).reshape(3, 3)
    assert np.all(np.diff(order, axis=1) > 0)


def test_balanced_rows_reach_the_arrays():
    array = np.diag(np.arange(1, 7)).astype(np.int8)
    array[0] = 9
    stored = parse_layout("(i : balance[2], k) -> (i floordiv 3 : dense, i mod 3 : dense, k : compressed)").pack(array)
    assert sorted(stored.arrays["i.order"].tolist()) == list(range(6))
    coordinates, position = stored.entries()
    np.testing.assert_array_equal(array[coordinates], stored.arrays["data"][position])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 5))
def test_runs_of_alike_rows_have_as_few_slots_as_sorted_ones(weights, group, chunks):
    order = Alike(group, chunks).order(pattern(weights))
    by_weight = sorted(weights)
    ragged = len(weights) % group
    runs = [order[:-ragged]] if ragged else [order]
    found = np.asarray(weights)[runs[0]].reshape(-1, group).max(axis=1)
    assert sorted(found) == by_weight[ragged + group - 1 :: group]
    assert sorted(np.asarray(weights)[order[len(order) - ragged :]]) == by_weight[:ragged]


def test_runs_of_alike_rows_are_dealt_to_chunks_of_nearly_equal_weight():
    weights = np.sort(np.random.default_rng(0).integers(10, 200, 3072))
    parts = weights[Alike(8, 4).order(pattern(weights))].reshape(4, -1)
    assert parts.sum(axis=1).max() <= 1.01 * parts.sum(axis=1).mean()
    assert np.all(np.diff(parts.reshape(4, -1, 8).max(axis=2), axis=1) >= 0)


def test_condensed_rows_fill_the_first_tiles():
    array = np.zeros((8, 5), dtype=np.int8)
    array[[1, 3, 4, 6]] = 1
    assert Condense().order(array != 0).tolist() == [1, 3, 4, 6, 0, 2, 5, 7]
    stored = tile_wise_two_sided(4).pack(array)
    assert stored.arrays["data"].size == 20
    np.testing.assert_array_equal(stored.unpack(), array)


def test_similar_rows_come_together():
    random = np.random.default_rng(0)
    rows = np.repeat(random.random((16, 96)) < 0.2, 4, axis=0)
    shuffled = rows[random.permutation(64)]
    places = Similar(4).order(shuffled)
    runs = shuffled[places].reshape(16, 4, 96)
    assert np.all(runs == runs[:, :1])


def test_similar_rows_of_a_large_weight_are_found_in_time():
    pattern = np.random.default_rng(0).random((3072, 768)) < 0.1
    start = time.perf_counter()
    Similar(8).order(pattern)
    assert time.perf_counter() - start < 8  # it takes 0.6 s where nothing else runs


def combinable(rows, columns, group, seed=0):
    """A mask as column combining leaves it: of each group of columns, each row keeps one entry."""
    random = np.random.default_rng(seed)
    mask = np.zeros((rows, columns), dtype=bool)
    for members in np.split(random.permutation(columns), range(group, columns, group)):
        mask[np.arange(rows), random.choice(members, rows)] = True
    return mask


@pytest.mark.parametrize(("rows", "columns", "group"), [(64, 64, 8), (256, 768, 8), (100, 37, 4), (9, 5, 5)])
def test_columns_are_combined_as_they_were_pruned(rows, columns, group):
    mask = combinable(rows, columns, group)
    layout = combined_columns(group)
    assert layout.refusal(mask) is None
    assert layout.pack(mask).arrays["data"].size == rows * -(-columns // group)
    places = Combine(group).order(mask.T)
    assert max(np.add.reduceat(mask[:, places], np.arange(0, columns, group), axis=1, dtype=int).ravel()) == 1


def test_light_and_empty_columns_fill_the_groups():
    mask = combinable(64, 64, 4)
    mask[:, ::3] = False
    mask[:, 1] = False
    mask[5, 1] = True
    assert combined_columns(4).refusal(mask) is None


def test_columns_that_cannot_be_combined_are_refused():
    refusal = combined_columns(2).refusal(np.ones((3, 4)))
    assert refusal == "structured[1, 2] holds 1 in each fiber, and at i 0 there are 2, at k 0, 1"


def test_an_order_of_each_dim():
    array = combinable(64, 32, 4).astype(np.int8)
    array[5:20] = 0
    text = "(i : condense, k : combine[4]) -> (i : dense, k floordiv 4 : dense, k mod 4 : structured[1, 4])"
    np.testing.assert_array_equal(parse_layout(text).pack(array).unpack(), array)
