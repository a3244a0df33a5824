"""Maps of weights count what is there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparsec.report.maps import CORNER, LEAST, SIDE, WeightMap

sizes = st.one_of(st.integers(1, 40), st.integers(150, 700))


@given(sizes, sizes, st.floats(0, 1), st.integers(0, 9))
def test_cells_hold_all_nonzeros(rows: int, columns: int, share: float, seed: int) -> None:
    matrix = np.random.default_rng(seed).random((rows, columns)) * (
        np.random.default_rng(seed + 1).random((rows, columns)) < share
    )
    found = WeightMap.of(matrix)
    height, width = found.density.shape
    assert min(rows, LEAST) <= height <= min(rows, SIDE) and min(columns, LEAST) <= width <= min(columns, SIDE)
    edges = [np.append(np.arange(n) * size // n, size) for n, size in ((height, rows), (width, columns))]
    areas = np.outer(*map(np.diff, edges))
    assert round(float((found.density * areas).sum())) == np.count_nonzero(matrix)
    assert 0 <= found.peak <= 1
    np.testing.assert_array_equal(found.corner, matrix[: CORNER[0], : CORNER[1]] != 0)


def test_a_small_weight_is_shown_element_by_element() -> None:
    matrix = np.eye(20, 30)
    np.testing.assert_array_equal(WeightMap.of(matrix).density, matrix)


def test_an_empty_band_stays_empty() -> None:
    matrix = np.ones((1000, 10))
    matrix[500:] = 0
    density = WeightMap.of(matrix).density
    assert density.shape == (SIDE, 10)
    assert density[: SIDE // 2].min() == 1 and density[SIDE // 2 :].max() == 0
