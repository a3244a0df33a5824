"""The grid on which the choice of layouts is held against measurement, and what is said about it."""

import numpy as np
import pytest

from benchmarks.layouts import Outcome, Timed, verdict
from benchmarks.layouts_cases import Case, Shape, fits, grid, held_out
from benchmarks.layouts_masks import STRUCTURES
from benchmarks.sparse_layers import RACES, Heat
from sparsec.ir.named import fkw, n_of_m, permuted_diagonal, tile_wise, tile_wise_two_sided, tvw, v_n_m
from sparsec.targets import TARGETS

HELD = {
    "tile-wise": tile_wise(128),
    "tile-wise two-sided": tile_wise_two_sided(128),
    "tile-vector-wise": tvw(128),
    "2:4": n_of_m(2, 4),
    "1:4": n_of_m(1, 4),
    "16:2:8": v_n_m(16, 2, 8),
    "patterns": fkw(),
    "diagonals": permuted_diagonal(4),
}


@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_masks_keep_what_they_are_meant_to(structure: str) -> None:
    make, shares = STRUCTURES[structure]
    for kept in shares:
        mask = make(np.random.default_rng(0), 256, 576, kept)
        assert mask.dtype == bool and mask.shape == (256, 576)
        assert mask.mean() == pytest.approx(kept, rel=0.15)


@pytest.mark.parametrize("structure", sorted(HELD))
def test_masks_have_their_structure(structure: str) -> None:
    make, (kept, *_) = STRUCTURES[structure]
    assert HELD[structure].refusal(make(np.random.default_rng(0), 256, 576, kept)) is None


def test_two_sided_tiles_drop_whole_rows() -> None:
    make, (kept,) = STRUCTURES["tile-wise two-sided"]
    mask = make(np.random.default_rng(0), 256, 576, kept)
    left = mask[mask.any(axis=1)]
    assert len(left) == 128 and (left == left[0]).all()


def test_the_grid_is_wide() -> None:
    cases = set(grid())
    assert len(cases) >= 60
    assert {case.structure for case in cases} == {"dense", *STRUCTURES}
    for structure in STRUCTURES:
        kinds = {case.shape.kernel for case in cases if case.structure == structure}
        assert kinds == ({3} if structure == "patterns" else {0, 1, 3})


def test_held_out_layers_follow_the_seed() -> None:
    first, again, other = (list(held_out(20, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 20 and all(fits(case.shape, case.structure) for case in first)
    assert not {case.shape for case in first} & {case.shape for case in grid()}


@pytest.mark.parametrize("shape", [Shape(32, 48, 24), Shape(32, 16, 6, 1), Shape(32, 16, 6, 3)], ids=str)
def test_a_case_is_the_product_that_the_compiler_sees(shape: Shape) -> None:
    case = Case(shape, "2:4", 0.5)
    product, matrix = case.product(TARGETS["znver5"])
    assert (product.rows, product.depth) == matrix.shape == (32, matrix.size // 32)
    np.testing.assert_array_equal(matrix, case.weight().reshape(32, -1))
    assert product.taps == max(1, shape.kernel**2)


def outcome(chosen: int, *seconds: float) -> Outcome:
    families = ["dense", "bucketed rows", "2:4"]
    timed = [Timed(family, "", {}, 1.0, s) for family, s in zip(families, seconds, strict=True)]
    return Outcome(Case(Shape(8, 8, 8), "2:4", 0.5), timed, chosen)


def test_choices_are_compared_with_the_best_and_with_dense() -> None:
    good, bad = outcome(2, 4.0, 2.0, 2.1), outcome(1, 4.0, 5.0, 2.0)
    assert (good.ratio, good.over_dense) == (1.05, 0.525)
    assert (bad.best.family, bad.ratio, bad.over_dense) == ("2:4", 2.5, 1.25)
    text = verdict([good, bad])
    assert text.startswith("1 of 2 choices (50%) within 10% of the best; the worst takes 2.50 of the best time;")
    assert "against dense the worst takes 1.25 (linear 8×8, 8, 2:4 50%)" in text


def test_speedups_are_medians_within_rounds() -> None:
    times = {"sparsec": [1.0, 2.0, 1.0], "sparsec dense": [3.0, 8.0, 5.0], "A": [2.0, 2.0, 2.0], "B": [9.0, 9.0, 9.0]}
    heat = Heat(Case(Shape(8, 8, 8), "2:4", 0.5), "2:4", "", times)
    assert (heat.speedup("sparsec dense"), heat.peer, heat.speedup("A")) == (4.0, "A", 2.0)
    assert heat.to_json()["speedup"] == {"sparsec dense": 4.0, "A": 2.0, "B": 9.0}


def test_races_are_of_known_structures() -> None:
    assert RACES.keys() <= STRUCTURES.keys()
