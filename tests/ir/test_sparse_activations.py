"""Products that pass over zeros of their activations compute what the others compute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.named import BITMAP, CSC, CSR, DENSE, bsr, row_vectors
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product_kernel import build_kernel
from sparsec.ir.types import HALVES
from sparsec.schedules.steps import Accumulate, Tile
from sparsec.schedules.trace import Trace
from tests.ir.compiled_once import compiled_once
from tests.ir.halves import stored_as
from tests.ir.layout_strategies import layouts
from tests.ir.product_cases import Case, check, interpreted, linear, sparse, widths

LAYOUTS = {
    "compressed columns": CSC,
    "dense columns": parse_layout("(i, k) -> (k : dense, i : dense)"),
    "columns of blocks": parse_layout("(i, k) -> (k : dense, i floordiv 4 : compressed, i mod 4 : dense)"),
    "blocks of the depth": parse_layout("(i, k) -> (k floordiv 8 : dense, k mod 8 : dense, i : compressed)"),
    "columns with entries": parse_layout("(i, k) -> (k : compressed, i : compressed)"),
    "bitmaps of rows": parse_layout("(i, k) -> (k : dense, i : bitmap)"),
    "rows in chunks": parse_layout("(i, k) -> (i floordiv 20 : dense, k : dense, i mod 20 : compressed)"),
}
ACTIVATIONS = ("none", "all", "some rows", "some vectors", "some elements")


def with_zeros(case: Case, kind: str, columns: int) -> Case:
    """Set some of the activations to zero, and compute again what is expected."""
    x = case.arrays["X"].reshape(-1, case.product.depth, columns)
    random = np.random.default_rng(1)
    if kind == "all":
        x[...] = 0
    elif kind == "some rows":
        x[:, random.random(x.shape[1]) < 0.5] = 0
    elif kind == "some vectors":
        for start in range(0, columns, 16):
            x[:, random.random(x.shape[1]) < 0.5, start : start + 16] = -0.0
    elif kind == "some elements":
        x[random.random(x.shape) < 0.5] = 0
    case.expected[...] = (case.arrays["W"].astype(np.float64) @ x).reshape(case.expected.shape)
    return case


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    layout=layouts(2).filter(lambda layout: len(layout.dims) == 2),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    columns=st.sampled_from([1, 5, 17]),
    kind=st.sampled_from(ACTIVATIONS),
)
def test_any_layout(layout, shape, density, columns, kind):
    case = with_zeros(linear(sparse(*shape, density), columns, 2, layout=layout), kind, columns)
    tile = Tile(widths(columns, 16), skip_zeros=True)
    try:
        kernel = build_kernel(case.product, tile.tiling(case.product.columns, case.product.rows))
    except LayoutError as error:
        assert "cannot be passed over" in str(error)
        return
    assert parse_kernel(str(kernel)) == kernel
    case.agrees(interpreted(kernel, case))


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_compiled(layout, kind):
    case = with_zeros(linear(sparse(45, 24, 0.3), 37, layout=layout), kind, 37)
    moves = Tile(widths(37, 16), skip_zeros=True), Accumulate("init|update|finish", 16)
    scheduled = Trace(moves).apply(case.product)
    case.agrees(interpreted(scheduled.kernel, case))
    compiled_once(scheduled).agrees(case)


def test_what_is_no_number_is_no_zero():
    case = linear(sparse(20, 6, 0.8), 32, layout=CSC)
    case.arrays["X"].reshape(6, 32)[2, 3] = np.nan
    expected = case.arrays["W"] @ np.nan_to_num(case.arrays["X"].reshape(6, 32))
    expected[case.arrays["W"][:, 2] != 0, 3] = np.nan
    case.expected[...] = expected.reshape(case.expected.shape)
    check(case, Trace((Tile((16,), skip_zeros=True), Accumulate("init|update|finish", 16))))


@pytest.mark.parametrize("layout", [CSR, DENSE, BITMAP, bsr(4, 4), row_vectors(4)], ids=str)
def test_layouts_with_the_depth_innermost_are_refused(layout):
    case = linear(sparse(40, 24, 0.3), 16, layout=layout)
    with pytest.raises(LayoutError, match=r"only \d of its rows follow a depth"):
        build_kernel(case.product, Tile((16,), skip_zeros=True).tiling(16, 40))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layout", [CSC, LAYOUTS["columns of blocks"]], ids=str)
def test_sums_of_halves_are_rounded_once(layout, half):
    case = stored_as(with_zeros(linear(sparse(45, 96, 0.8), 37, layout=layout), "some vectors", 37), *[half] * 3)
    check(case, Trace((Tile(widths(37, 16), skip_zeros=True), Accumulate("init|update|finish", 16))))
