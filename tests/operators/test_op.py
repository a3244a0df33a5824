"""Every operator of `sparsec.op` computes what NumPy computes."""

import numpy as np
import pytest
import scipy.sparse

import sparsec
from sparsec.errors import InputError, LayoutError
from sparsec.ir.named import bsr, n_of_m
from tests.ir.named_layouts import CSC, row_vectors
from tests.ir.product_cases import integers
from tests.ir.sddmm_cases import PATTERNS, pattern
from tests.ir.test_sddmm import LAYOUTS

# -- sampled products --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PATTERNS)
def test_sddmm_in_the_order_of_scipy(kind):
    mask = scipy.sparse.csr_matrix(pattern(kind, 21, 34))
    a, b = integers(21, 40), integers(40, 34)
    y = sparsec.op("sddmm", mask, depth=40)(a, b)
    np.testing.assert_array_equal(y, (a @ b)[mask.nonzero()])


@pytest.mark.parametrize("layout", [bsr(16, 16), bsr(4, 2), row_vectors(8), CSC], ids=str)
def test_sddmm_in_any_layout(layout):
    mask = pattern("random", 21, 34) * integers(21, 34)
    a, b = integers(3, 21, 40), integers(3, 40, 34)
    y = sparsec.op("sddmm", mask, 40, batch=3, layout=str(layout))(a, b)
    for n in range(3):
        products = layout.pack(mask * (a[n] @ b[n]) + 1e-9 * (mask != 0))  # which keeps the entries that come to zero
        np.testing.assert_array_equal(y[n], products.arrays["data"].round())


def test_sddmm_of_operands_that_do_not_fit():
    with pytest.raises(InputError, match="the mask has shape"):
        sparsec.op("sddmm", np.ones(3), 4)
    with pytest.raises(InputError, match="depth=0"):
        sparsec.op("sddmm", np.ones((3, 3)), 0)
    with pytest.raises(InputError, match=r"sddmm.*missing a required argument: 'depth'; call it as in sparsec.op\("):
        sparsec.op("sddmm", np.ones((3, 3)))


@pytest.mark.parametrize(("operator", "sizes"), [("sddmm", (4,)), ("attention", (1, 4))])
def test_masks_that_are_added_to_scores_are_refused(operator, sizes):
    for masked in (-np.inf, np.nan, -1e9) if operator == "attention" else (-np.inf, np.nan):
        with pytest.raises(InputError, match=r"the mask holds .* of such a mask pass `mask == 0`"):
            sparsec.op(operator, np.where(np.eye(3), 0, masked), *sizes)
    with pytest.raises(InputError, match=f"{operator} has a mask and no weights to store as float16"):
        sparsec.op(operator, np.eye(3), *sizes, storage="float16")


# -- attention -----------------------------------------------------------------------------------------------------


def windows(rows: int, block: int, around: int = 1, everywhere: int = 1) -> np.ndarray:
    """Blocks that see their neighbours, and the first ones, which see all and are seen by all, as in Longformer."""
    block_of = np.arange(rows) // block
    near = np.abs(block_of[:, None] - block_of) <= around
    return near | (block_of < everywhere) | (block_of < everywhere)[:, None]


def softmax_attention(query, key, value, mask, scale=None, empty=0.0):
    scores = np.float64(query) @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = np.where(mask, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
    return np.where(mask.any(axis=1)[:, None], weights @ value, empty)


MASKS = {kind: pattern(kind, 37, 45) != 0 for kind in PATTERNS} | {
    "windows": windows(64, 16),
    "1:4": np.tile(np.eye(4, dtype=bool), (9, 11)),
    "one row": np.ones((1, 20), bool),
    "one key": np.ones((20, 1), bool),
}
HEADS, SIZE = 2, 24


def attend(mask: np.ndarray, **options) -> None:
    random = np.random.default_rng(0)
    query = random.standard_normal((HEADS, len(mask), SIZE)).astype("float32")
    key, value = random.standard_normal((2, HEADS, mask.shape[1], SIZE)).astype("float32")
    found = sparsec.op("attention", mask, HEADS, SIZE, **options)(query, key, value)
    options.pop("layout", None)
    expected = softmax_attention(query, key, value, mask, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention(mask):
    attend(mask)


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), n_of_m(1, 4)], ids=[*LAYOUTS, "1:4"])
def test_attention_in_any_layout(layout):
    attend(MASKS["1:4"], layout=str(layout))


@pytest.mark.parametrize("empty", [0.0, np.nan, 7.0])
def test_rows_that_see_nothing(empty):
    attend(MASKS["random"] & (np.arange(37) % 5 > 0)[:, None], empty=empty, scale=0.5)


# -- sparse activations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [None, "CSC"])
@pytest.mark.parametrize("columns", [40, (1, 50)])
def test_activations_with_zeros(columns, layout):
    weight, bias, x = pattern("random", 70, 30) * integers(70, 30), integers(70), integers(30, 40)
    x[::2] = 0
    multiply = sparsec.op(
        "matmul", weight, columns, bias=bias, activation="relu", sparse_activations=True, layout=layout
    )
    np.testing.assert_array_equal(multiply(x), np.maximum(weight @ x + bias[:, None], 0))


def test_activations_with_zeros_in_a_layout_that_cannot_pass_over_them():
    with pytest.raises(LayoutError, match="store it with the rows innermost, as in CSC"):
        sparsec.op("matmul", np.eye(40), 16, sparse_activations=True, layout="CSR")


# -- embedding bags ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_bags_of_any_size(density):
    table = np.where(np.random.default_rng(1).random((50, 70)) < density, integers(50, 70), 0)
    add_up = sparsec.op("embedding_bag", table, bags=(1, 9), count=(1, 64), weighted=True)
    for offsets, count in ([0], 1), ([0, 0, 3, 30], 30), ([5, 9], 64):
        ids, weights = np.random.default_rng(0).integers(0, 50, count), integers(count)
        y = add_up(ids, np.int64(offsets), weights)
        rows = table[ids] * weights[:, None]
        np.testing.assert_array_equal(y, [part.sum(axis=0) for part in np.split(rows, offsets)[1:]])


@pytest.mark.parametrize("layout", [None, "dense", "CSR", "BSR:2,8", "bitmap"])
def test_bags_of_equal_size(layout):
    table = pattern("random", 40, 33) * integers(40, 33)
    ids = np.random.default_rng(0).integers(0, 40, (7, 4))
    y = sparsec.op("embedding_bag", table, 7, size=4, mode="mean", layout=layout)(ids)
    np.testing.assert_allclose(y, table[ids].mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either the size of all bags, or the count"),
        ({"size": 2, "mode": "max"}, "there is no mode 'max'"),
        ({"size": 0}, "size=0 was given"),
        ({"count": (4, 1)}, r"count=\(4, 1\) was given"),
        ({"size": 2, "layout": "TEW"}, "a mask or a table cannot be stored as"),
    ],
)
def test_bags_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        sparsec.op("embedding_bag", np.eye(4), 3, **options)
