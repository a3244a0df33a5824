import numpy as np
import pytest

from sparsec.graph.structure_period import find_periods

rng = np.random.default_rng(6)


def some(*shape: int, density: float) -> np.ndarray:
    return (rng.random(shape) < density).astype("float32")


def n_of_m(n: int, m: int, rows: int = 32, columns: int = 96) -> np.ndarray:
    order = rng.random((rows, columns // m, m)).argsort(axis=2)
    return (order < n).reshape(rows, columns).astype("float32")


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.5, 0.9, 1.0])
def test_zeros_anywhere_have_no_period(density: float) -> None:
    assert find_periods(some(96, 128, density=density)) == (1, 1)


@pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (4, 8), (3, 12), (1, 16)])
def test_groups_of_columns(n: int, m: int) -> None:
    assert find_periods(n_of_m(n, m)) == (1, m)


@pytest.mark.parametrize("rows, columns", [(4, 1), (1, 8), (16, 1), (4, 4), (128, 1)])
def test_blocks(rows: int, columns: int) -> None:
    blocks = some(max(3, 256 // rows), 96 // columns, density=0.3)
    assert find_periods(np.kron(blocks, np.ones((rows, columns)))) == (rows, columns)


def test_channels_of_zeros_hide_no_structure() -> None:
    weight = np.kron(some(16, 96, density=0.3), np.ones((8, 1)))
    weight[[3, 40, 41]] = 0
    assert find_periods(weight) == (8, 1)


def test_dead_channels_alone_are_no_structure() -> None:
    weight = np.ones((64, 64))
    weight[::3], weight[:, 5:9] = 0, 0
    assert find_periods(weight) == (1, 1)


def test_taps_count_as_one_channel() -> None:
    assert find_periods(n_of_m(2, 4, columns=96 * 9).reshape(32, 96, 3, 3)) == (1, 4)


def test_permuted_diagonals_repeat_both_ways() -> None:
    blocks = [[np.roll(np.eye(8), rng.integers(8), axis=1) for _ in range(6)] for _ in range(4)]
    assert find_periods(np.block(blocks)) == (8, 8)
