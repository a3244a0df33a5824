"""Every pattern keeps what its plain description keeps, has the sparsity it is asked for, and fits its layout."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import PruningError
from sparsec.ir import named
from sparsec.ir.layout import Layout
from sparsec.ir.sums import Sum
from sparsec.pruning import (
    NM,
    TEW,
    TVW,
    VNM,
    Block,
    Channels,
    ColumnCombining,
    KernelPattern,
    Pattern,
    PermutedDiagonal,
    Scores,
    TileWise,
    Unstructured,
    parse_pattern,
)
from sparsec.pruning.patterns import PATTERNS
from tests.pruning import oracle

Matrices = Sequence[np.ndarray]
TAPS = 9

CASES: dict[Pattern, Callable[[Matrices, float], list[np.ndarray]]] = {
    Unstructured(): oracle.unstructured,
    NM(2, 4): lambda m, s: oracle.n_of_m(m, 2, 4),
    NM(1, 8): lambda m, s: oracle.n_of_m(m, 1, 8),
    NM(3, 5): lambda m, s: oracle.n_of_m(m, 3, 5),
    VNM(4, 2, 8): lambda m, s: oracle.vnm(m, 4, 2, 8, 4),
    VNM(3, 1, 6, 2): lambda m, s: oracle.vnm(m, 3, 1, 6, 2),
    Block(4, 1): lambda m, s: oracle.block(m, s, 4, 1),
    Block(2, 3): lambda m, s: oracle.block(m, s, 2, 3),
    TileWise(4): lambda m, s: oracle.tile_wise(m, s, 4),
    TileWise(128): lambda m, s: oracle.tile_wise(m, s, 128),
    TileWise(3, two_sided=True): lambda m, s: oracle.tile_wise_two_sided(m, s, 3),
    TEW(4, 0.1): lambda m, s: oracle.tew(m, s, 4, 0.1),
    TVW(4): lambda m, s: oracle.tvw(m, s, 4, 2, 4),
    TVW(3, 1, 4): lambda m, s: oracle.tvw(m, s, 3, 1, 4),
    KernelPattern(4, 3, 2.0): lambda m, s: oracle.kernel_patterns(m, TAPS, 4, 3, 2.0),
    KernelPattern(2, 8, 1): lambda m, s: oracle.kernel_patterns(m, TAPS, 2, 8, 1),
    PermutedDiagonal(4): lambda m, s: oracle.permuted_diagonal(m, 4),
    PermutedDiagonal(3): lambda m, s: oracle.permuted_diagonal(m, 3),
    ColumnCombining(4): lambda m, s: oracle.column_combining(m, s, 4),
    Channels(): oracle.channels,
}
"""Each pattern with its oracle, which takes matrices of scores and a sparsity."""

names = pytest.mark.parametrize("pattern", CASES, ids=str)


def within(pattern: Pattern, sparsity: float) -> float:
    """The sparsity moved into the pattern's bounds."""
    least, most = pattern.bounds
    return min(max(sparsity, least), most)


def scores(matrices: Matrices) -> list[Scores]:
    return [Scores(matrix, TAPS if matrix.shape[1] % TAPS == 0 else 1) for matrix in matrices]


def assert_same(pattern: Pattern, matrices: Matrices, sparsity: float) -> None:
    found = pattern.keep(scores(matrices), sparsity)
    for mask, expected in zip(found, CASES[pattern](matrices, sparsity), strict=True):
        np.testing.assert_array_equal(mask, expected)


@st.composite
def ties(draw: st.DrawFn) -> list[np.ndarray]:
    """Some small matrices of few different scores, zeros among them; kernels have nine taps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.integers(1, 6))
    shapes = draw(st.lists(st.tuples(st.integers(1, 11), st.integers(1, 3)), min_size=1, max_size=3))
    return [rng.integers(0, levels, (rows, TAPS * channels)).astype(np.float64) for rows, channels in shapes]


@names
@settings(max_examples=15, deadline=None)
@given(matrices=ties(), sparsity=st.floats(0.05, 0.95))
def test_masks_equal_the_oracles_where_scores_tie(pattern: Pattern, matrices: Matrices, sparsity: float) -> None:
    assert_same(pattern, matrices, within(pattern, sparsity))


@names
@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.9])
def test_masks_equal_the_oracles(pattern: Pattern, sparsity: float) -> None:
    rng = np.random.default_rng(7)
    matrices = [np.abs(rng.standard_normal(shape)) for shape in ((16, 36), (13, 27), (5, 9))]
    assert_same(pattern, matrices, within(pattern, sparsity))


@pytest.mark.parametrize("pattern", [p for p in CASES if not isinstance(p, KernelPattern)], ids=str)
def test_masks_equal_the_oracles_where_nothing_divides(pattern: Pattern) -> None:
    rng = np.random.default_rng(8)
    matrices = [np.abs(rng.standard_normal(shape)) for shape in ((7, 5), (1, 13), (10, 1), (1, 1))]
    assert_same(pattern, matrices, within(pattern, 0.6))


@pytest.mark.parametrize("pattern", [Unstructured(), TEW(4, 0.02), ColumnCombining(4)], ids=str)
@pytest.mark.parametrize("sparsity", [0.75, 0.8, 0.93])
def test_single_weights_reach_the_sparsity_to_the_weight(pattern: Pattern, sparsity: float) -> None:
    values = np.random.default_rng(0).random((40, 64))
    (mask,) = pattern.keep([Scores(values)], sparsity)
    assert np.count_nonzero(~mask) == round(sparsity * values.size)


@pytest.mark.parametrize(
    ("pattern", "unit"),
    [(Block(4, 1), 4), (Block(8, 4), 32), (TileWise(16), 16), (TVW(16), 32), (Channels(), 64)],
    ids=str,
)
@pytest.mark.parametrize("sparsity", [0.55, 0.75, 0.9])
def test_units_reach_the_sparsity_to_the_unit(pattern: Pattern, unit: int, sparsity: float) -> None:
    values = np.random.default_rng(0).random((48, 64))
    (mask,) = pattern.keep([Scores(values)], sparsity)
    missing = round(sparsity * values.size) - np.count_nonzero(~mask)
    assert 0 <= missing < unit


def test_two_sided_tiles_reach_the_sparsity_to_the_piece() -> None:
    values = np.random.default_rng(0).random((48, 64))
    (mask,) = TileWise(16, two_sided=True).keep([Scores(values)], 0.75)
    assert 0 <= round(0.75 * values.size) - np.count_nonzero(~mask) < 16
    empty = np.count_nonzero(~mask.any(axis=1))
    assert empty == round(0.5 * 48)  # 1 − √(1 − 0.75) of the outputs


@pytest.mark.parametrize(
    "pattern", [NM(2, 4), NM(1, 8), VNM(8, 2, 8), PermutedDiagonal(4), KernelPattern(4, 8, 3.6)], ids=str
)
def test_a_pattern_that_fixes_its_sparsity_has_it(pattern: Pattern) -> None:
    values = np.random.default_rng(0).random((48, 72))
    (mask,) = pattern.keep([Scores(values, TAPS)], 0.0)
    least, most = pattern.bounds
    assert least == most == pytest.approx(1 - mask.mean(), abs=1e-3)


LAYOUTS: dict[Pattern, Layout | Sum] = {
    NM(2, 4): named.n_of_m(2, 4),
    NM(1, 8): named.n_of_m(1, 8),
    VNM(8, 2, 8): named.v_n_m(8, 2, 8),
    Block(4, 1): named.row_vectors(4),
    Block(4, 4): named.bsr(4, 4),
    Block(1, 8): named.column_vectors(8),
    TileWise(16): named.tile_wise(16),
    TileWise(8, two_sided=True): named.tile_wise_two_sided(8),
    TVW(16): named.tvw(16),
    KernelPattern(4, 8, 3.6): named.fkw(4, TAPS, 8),
    PermutedDiagonal(4): named.permuted_diagonal(4),
    ColumnCombining(4): named.combined_columns(4),
}
"""The layout that each pattern is made for."""


@pytest.mark.parametrize("pattern", LAYOUTS, ids=str)
def test_the_layout_of_a_pattern_holds_it_and_stores_no_zeros(pattern: Pattern) -> None:
    layout = LAYOUTS[pattern]
    values = np.random.default_rng(0).random((48, 72))
    (mask,) = pattern.keep([Scores(values, TAPS)], within(pattern, 0.75))
    assert layout.refusal(mask) is None
    assert layout.pack(mask.astype(np.float32)).arrays["data"].size == np.count_nonzero(mask)


def test_tiles_and_single_weights_are_a_sum_of_layouts() -> None:
    values = np.random.default_rng(0).random((48, 72))
    (mask,) = TEW(16, 0.05).keep([Scores(values)], 0.75)
    (tiles,) = TileWise(16).keep([Scores(values)], 0.8)
    tile_term, rest = named.tew(16).pack(mask.astype(np.float32)).terms
    assert tile_term.arrays["data"].size == np.count_nonzero(tiles)
    assert rest.arrays["data"].size == np.count_nonzero(mask & ~tiles)


# -- text --------------------------------------------------------------------------------------------------------------


@names
def test_the_text_of_a_pattern_reads_back(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2:4", NM(2, 4)),
        ("16:2:8", VNM(16, 2, 8)),
        ("block:4x1", Block(4, 1)),
        ("tile-wise:128,two-sided", TileWise(128, two_sided=True)),
        ("tew:128,0.02", TEW(128, 0.02)),
        ("tvw:64", TVW(64)),
        ("fkw", KernelPattern()),
        (" channels ", Channels()),
    ],
)
def test_patterns_are_read(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text) == pattern


def test_examples_are_read_by_their_own_kind() -> None:
    assert [type(parse_pattern(kind.example)) for kind in PATTERNS] == list(PATTERNS)


def test_patterns_compare_and_hash_by_their_options() -> None:
    assert NM(2, 4) == NM(2, 4) != NM(1, 4)
    assert len({pattern for pattern, _ in product(CASES, range(2))}) == len(CASES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tiles", "cannot read the pattern 'tiles'; write it like one of unstructured, 2:4, "),
        ("5:4", "5:4 is no pattern: n of m weights"),
        ("0:4", "0:4 is no pattern"),
        ("block:0x1", "a block has at least one row"),
        ("tile-wise:0", "a tile has at least one output"),
        ("tew:8,1.5", "delta is a part of all weights"),
        ("4:8:6", "at most all of them"),
        ("diagonal:0", "at least one row"),
        ("combine:0", "at least one column"),
        ("fkw:4,0,3.6", "at least one shape"),
        ("fkw:4,8,0.5", "connectivity"),
    ],
)
def test_what_is_no_pattern_is_refused(text: str, why: str) -> None:
    with pytest.raises(PruningError, match=why):
        parse_pattern(text)
