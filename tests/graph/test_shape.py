import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tvm import tirx

from sparsec.graph.shape import broadcast, dim, equal, evaluate_dim, product, reshape_groups, same_shape

B, T = tirx.Var("b", "int64"), tirx.Var("t", "int64")


def test_symbolic_products_compare() -> None:
    assert equal(product((B, T, 4)), T * 4 * B)
    assert not equal(B, T)
    assert same_shape((1, T), (1, T)) and not same_shape((1, T), (T, 1))
    assert evaluate_dim(B * T + 1, {"b": 3, "t": 5}) == 16
    assert dim(T - T + 3) == 3


def test_broadcast_keeps_what_is_not_one() -> None:
    assert same_shape(broadcast((B, 1, 4), (T, 1)), (B, T, 4))


def test_groups_over_symbols() -> None:
    assert reshape_groups((B, T, 768), (B, T, 12, 64)) == [([0], [0]), ([1], [1]), ([2], [2, 3])]
    assert reshape_groups((B, T, 768), (product((B, T)), 768)) == [([0, 1], [0]), ([2], [1])]
    assert reshape_groups((B, 12, T, 64), (product((B, 12)), T, 64)) == [([0, 1], [0]), ([2], [1]), ([3], [2])]
    assert reshape_groups((1, T, 1, 768), (T, 768)) == [([1], [0]), ([3], [1])]


@given(st.lists(st.integers(1, 6), max_size=5), st.randoms(use_true_random=False))
def test_groups_cover_both_shapes_in_order(dims: list[int], random) -> None:
    source = tuple(dims)
    target: list[int] = []
    for d in dims:  # merge some neighbours, so that the products agree
        if target and random.random() < 0.5:
            target[-1] *= d
        else:
            target.append(d)
    groups = reshape_groups(source, tuple(target))
    assert [i for left, _ in groups for i in left] == [i for i, d in enumerate(source) if d != 1]
    assert [j for _, right in groups for j in right] == [j for j, d in enumerate(target) if d != 1]
    for left, right in groups:
        assert np.prod([source[i] for i in left]) == np.prod([target[j] for j in right])
