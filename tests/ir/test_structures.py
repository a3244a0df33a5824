"""Every pattern that weights are pruned to is named as what it is."""

import re

import numpy as np
import pytest

from sparsec.graph.layer import structure
from sparsec.ir.structures import find_structures
from sparsec.pruning.patterns import PATTERNS, Scores, parse_pattern

NAMES = {
    "unstructured": "unstructured",
    "2:4": "2:4",
    "1:4": "1:4",
    "2:8": "2:8",
    "4:8": "4:8",
    "3:12": "3:12",
    "1:16": "1:16",
    "16:2:8": "16:2:8",
    "64:2:8": "64:2:8",
    "block:4x1": "4x1 blocks",
    "block:1x4": "1x4 blocks",
    "block:8x2": "8x2 blocks",
    "block:12x3": "12x3 blocks",
    "block:32x32": "32x32 blocks",
    "tile-wise:64": "tile-wise 64",
    "tile-wise:128": "tile-wise 128",
    "tile-wise:128,two-sided": "rows 40% empty, tile-wise 128",
    "tew:64,0.01": "tile-wise 64 and single weights",
    "tew:128,0.02": "tile-wise 128 and single weights",
    "tvw:128": "2:4 in 128x4 tiles",
    "tvw:64,1:4": "1:4",  # whose tiles all stay at this sparsity
    "fkw:4,8,3.6": "4 of 9 taps in few shapes",
    "diagonal:4": "diagonals of 4x4 blocks",
    "diagonal:8": "diagonals of 8x8 blocks",
    "combine:8": "columns combined 8 to 1",
    "channels": "rows 64% empty",
}


def prune(pattern: str, rows: int, depth: int, taps: int = 1, seed: int = 0) -> np.ndarray:
    """Keep 36% of random weights, or what the pattern fixes."""
    rng, parsed = np.random.default_rng(seed), parse_pattern(pattern)
    (kept,) = parsed.keep([Scores(rng.random((rows, depth)), taps)], float(np.clip(0.64, *parsed.bounds)))
    return rng.standard_normal((rows, depth)) * kept


def named(weight: np.ndarray, taps: int = 1) -> str:
    """Return the structure but for columns that all tiles have dropped by chance."""
    return re.sub(r"columns \d+% empty, ", "", structure(weight, taps))


@pytest.mark.parametrize("shape", [(768, 768, 1), (640, 1152, 9)], ids=str)
@pytest.mark.parametrize("pattern", NAMES)
def test_patterns_are_named(pattern: str, shape: tuple[int, int, int]) -> None:
    rows, depth, taps = shape
    if not parse_pattern(pattern).objection((rows, depth), taps):
        assert named(prune(pattern, rows, depth, taps), taps) == NAMES[pattern]


def test_every_pattern_has_a_name() -> None:
    assert {type(parse_pattern(pattern)) for pattern in NAMES} == set(PATTERNS)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "16:2:8", "block:4x1", "block:1x4", "tile-wise:32", "diagonal:4"])
def test_ragged_edges_hide_nothing(pattern: str) -> None:
    names = NAMES | {"tile-wise:32": "tile-wise 32"}
    assert structure(prune(pattern, 203, 133)).split(", ")[-1] == names[pattern]


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.5, 0.8, 0.93])
@pytest.mark.parametrize("shape", [(16, 24), (64, 64), (512, 300)], ids=str)
def test_random_zeros_are_no_structure(shape: tuple[int, int], density: float) -> None:
    for seed in range(5):
        mask = np.random.default_rng(seed).random(shape) < density
        if mask.size * density > 50:
            assert [str(found) for found in find_structures(mask)] == []


def test_zeros_by_chance_hide_no_structure() -> None:
    for pattern in ("2:4", "block:8x2", "tile-wise:128", "16:2:8"):
        weight = prune(pattern, 768, 768)
        weight[np.random.default_rng(1).random(weight.shape) < 0.01] = 0
        assert named(weight) == NAMES[pattern]


@pytest.mark.parametrize("pattern", ["2:4", "block:4x1", "tile-wise:64", "diagonal:8"])
def test_what_begins_with_dead_rows_is_found(pattern: str) -> None:
    weight = prune(pattern, 1024, 512)
    weight[:520] = 0
    assert structure(weight).split(", ")[-1] == NAMES[pattern]


def test_a_part_with_a_structure_is_not_the_whole() -> None:
    weight = prune("unstructured", 1024, 1024)
    weight[:600, :600] = prune("2:4", 600, 600)
    assert structure(weight) == "unstructured"


@pytest.mark.parametrize("mask", [np.eye(6), np.eye(8, 64)], ids=["6", "8x64"])
def test_one_diagonal_is_no_structure(mask: np.ndarray) -> None:
    assert list(find_structures(mask != 0)) == []
