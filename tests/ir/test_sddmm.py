"""Sampled products compute what NumPy computes, over every layout that a pattern can take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.named import COO, CSR, bsr
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.sddmm import SDDMMTiling, build_sddmm
from sparsec.ir.types import HALVES
from sparsec.schedules.rules.sddmm import tile_sddmm
from tests.ir.layout_strategies import layouts
from tests.ir.named_layouts import CSC, DENSE, bucketed, row_vectors
from tests.ir.product_cases import NATIVE
from tests.ir.sddmm_cases import PATTERNS, check, pattern, run, sddmm, stored_as

LAYOUTS = {
    "compressed rows": CSR,
    "compressed columns": CSC,
    "coordinates": COO,
    "dense": DENSE,
    "buckets": bucketed(8),
    "row vectors": row_vectors(16),
    "blocks of 16 x 16": bsr(16, 16),
    "blocks of 4 x 8": bsr(4, 8),
    "blocks in two levels": parse_layout(
        "(i, k) -> (i floordiv 32 : dense, k floordiv 16 : compressed, i floordiv 16 mod 2 : dense, "
        "k mod 16 : dense, i mod 16 : dense)"
    ),
    "two compressed levels": parse_layout("(i, k) -> (i : compressed, k : compressed)"),
    "balanced rows": parse_layout("(i : balance[3], k) -> (i floordiv 5 : dense, i mod 5 : dense, k : compressed)"),
}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    layout=layouts(2).filter(lambda layout: len(layout.dims) == 2),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from(PATTERNS),
    depth=st.sampled_from([1, 2, 5]),
    blocks=st.booleans(),
)
def test_any_layout(layout, shape, kind, depth, blocks):
    case = sddmm(pattern(kind, *shape), depth, layout)
    dense = len(layout.levels) - layout.leaf
    tiling = SDDMMTiling(dense) if blocks and dense else SDDMMTiling(0, {1: (1,), 2: (2,), 5: (4, 1)}[depth])
    kernel = build_sddmm(case.op, tiling)
    assert parse_kernel(str(kernel)) == kernel
    run(case, tiling)


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_compiled(layout, kind):
    check(sddmm(pattern(kind, 37, 45), 19, layout, batch=2))


@pytest.mark.parametrize("layout", [CSR, bsr(16, 16), LAYOUTS["blocks in two levels"]], ids=str)
def test_what_is_scheduled_means_the_same(layout):
    case = sddmm(pattern("random", 18, 19), 3, layout)
    run(case, tile_sddmm(case.op, NATIVE))


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (64, 32)], ids=str)
@pytest.mark.parametrize("depth", [1, 16, 64, 87])
@pytest.mark.parametrize("layout", [CSR, bsr(16, 16)], ids=str)
def test_shapes(layout, shape, depth):
    check(sddmm(pattern("random", *shape), depth, layout))


def test_what_is_no_number_stays_at_its_entry():
    mask = np.eye(16, dtype=np.uint8)
    case = sddmm(mask, 4, bsr(16, 16))
    case.arrays["A"][0, 3, 0] = np.nan
    expected = case.expected["Y"].reshape(16, 16)
    expected[3, 3] = np.nan
    check(case)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layout", [CSR, bsr(4, 8), bsr(16, 16)], ids=str)
def test_sums_of_halves_are_rounded_once(layout, half):
    case = stored_as(sddmm(pattern("random", 18, 19), 55, layout), half)
    run(case, tile_sddmm(case.op, NATIVE))
    check(case)
