"""The kernels of products mean what NumPy computes, over every layout that a weight can take."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.kernel import Buffer, Const, Var
from sparsec.ir.named import CSC, CSR, NAMED, dense_blocks
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product import Tiling
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.steps import Tile
from tests.ir.layout_strategies import matrix_layouts
from tests.ir.named_layouts import depth_blocked
from tests.ir.product_cases import CHOSEN, EPILOGUES, Case, attention, interpreted, linear, sparse, widths

GOLDEN = Path(__file__).parent.parent / "golden" / "products"
PROPERTY = settings(deadline=None, derandomize=True, max_examples=80)


def run(case: Case, width: int = 16, rows: tuple[int, ...] = (), **options: bool) -> None:
    product = case.product
    tile = Tile(widths(product.columns, width), rows, **options)
    kernel = build_kernel(product, tile.tiling(product.columns, product.rows))
    assert parse_kernel(str(kernel)) == kernel
    case.agrees(interpreted(kernel, case))


# -- packed weights ------------------------------------------------------------------------------------------------


@PROPERTY
@given(
    layout=matrix_layouts(),
    whole_rows=st.booleans(),
    shape=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    columns=st.sampled_from([1, 2, 5, 17]),
    batch=st.integers(1, 2),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    stage=st.booleans(),
)
def test_any_layout(layout, whole_rows, shape, density, columns, batch, epilogue, stage):
    case = linear(sparse(*shape, density), columns, batch, epilogue, layout)
    run(case, whole_rows=whole_rows)
    if stage:
        with suppress(LayoutError):  # most cannot
            run(case, stage=True)


@pytest.mark.parametrize("layout", CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_chosen_layouts(layout, density):
    weight = sparse(13, 24, density)
    weight[3] = 0
    run(linear(weight, 19, 2, "scale and bias", layout))


@pytest.mark.parametrize("layout", [CSR, depth_blocked(8, r=4, chunk=8, parts=3), dense_blocks(4)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 24), (13, 1), (7, 23), (16, 24)], ids=str)
def test_one_row_one_column_and_primes(layout, shape):
    run(linear(np.ones(shape, np.float32), 5, 1, "bias and relu", layout))


@pytest.mark.parametrize("part, loops", [(18, "for r in range(0, 2), t in range(0, 9)"), (12, "for r in range(0, 12)")])
def test_copies_walk_whole_filters_tap_by_tap(part, loops):
    case = linear(sparse(7, 36, 0.3), 19, layout=depth_blocked(part, parts=36 // part), taps=9)
    run(case, stage=True)
    tile = Tile(widths(19, 16), stage=True)
    assert loops in str(build_kernel(case.product, tile.tiling(19, 7)))


@pytest.mark.parametrize("layout", [CSR, depth_blocked(8, r=4, parts=3), dense_blocks(3, 3)], ids=str)
def test_one_nonzero(layout):
    for place in (0, 0), (12, 23), (5, 11):
        weight = np.zeros((13, 24), np.float32)
        weight[place] = 3
        run(linear(weight, 5, 1, "none", layout))


def test_what_is_no_number_stays_in_its_row():
    weight = sparse(6, 8, 0.3)
    weight[1, 2], weight[3, 4], weight[4, 5] = np.nan, np.inf, -np.inf
    case = linear(weight, 5, layout=CSR)
    with np.errstate(invalid="ignore"):
        run(case)
    found = case.expected.reshape(6, 5)
    assert np.isnan(found[1]).all() and not np.isfinite(found[[1, 3, 4]]).any()
    assert np.isfinite(found[[0, 2, 5]]).all()


def test_a_zero_that_is_not_stored_meets_nothing():
    weight = np.eye(4, dtype=np.float32)
    case = linear(weight, 3, layout=CSR)
    x = np.array(case.arrays["X"])
    x[0, 3:6] = np.nan  # row 1 of X, which only row 1 of W reads
    expected = x.copy()
    run(replace(case, arrays={**case.arrays, "X": x}, expected=expected))


@pytest.mark.parametrize("layout", [CSR, depth_blocked(8, r=2, chunk=4, parts=3), dense_blocks(4)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 37])
def test_symbolic_extents(layout, batch, columns):
    run(linear(sparse(9, 24, 0.3), columns, batch, "residual", layout, symbolic=("batch", "columns")), width=32)


def test_a_stage_needs_a_block_of_the_depth():
    for layout in (CSR, depth_blocked(4, parts=4)):
        run(linear(sparse(12, 16, 0.3), 8, layout=layout), stage=True)
    case = linear(sparse(12, 16, 0.3), 8, layout=CSC)
    with pytest.raises(LayoutError, match=re.escape(f"X cannot be staged for {CSC}")):
        run(case, stage=True)


# -- golden text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_kernels_of_named_layouts_print_as_the_golden_text(name, request):
    """The loops that follow from a layout are plain to see."""
    product = linear(sparse(128, 72, 0.1), 32, epilogue="bias and relu").product.stored_as(NAMED[name]())
    text = f"{build_kernel(product, Tile((32,)).tiling(32, 128))}\n"
    path = GOLDEN / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}.kernel"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


# -- activations as weights ----------------------------------------------------------------------------------------


@PROPERTY
@given(
    extents=st.tuples(st.integers(1, 3), *[st.sampled_from([1, 2, 7, 16, 19])] * 3),
    transposed=st.booleans(),
    symbolic=st.sets(st.sampled_from(["batch", "rows", "depth", "columns"])),
    epilogue=st.sampled_from(["none", "scale and bias", "mask of columns", "residual"]),
)
def test_activations(extents, transposed, symbolic, epilogue):
    case = attention(*extents, transposed, epilogue, tuple(symbolic))
    rows = case.product.rows
    ragged = (4, 1) if isinstance(rows, str) else tuple(r for r in (4 if rows >= 4 else 0, rows % 4) if r)
    run(case, width=16, rows=ragged)
    if "depth" not in symbolic:
        run(case, width=16, rows=ragged, stage=True)


def test_copies_of_a_symbolic_depth_are_refused():
    product = attention(1, 4, 5, 16, symbolic=("depth",)).product
    with pytest.raises(LayoutError, match="X cannot be staged for the symbolic depth 'depth' of matmul"):
        build_kernel(product, Tile((16,), (4,), stage=True).tiling(16, 4))


# -- what convolutions add -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [8, 16, 24])
@pytest.mark.parametrize(
    "layout", [CSR, depth_blocked(4, parts=2), depth_blocked(2, 2, 4, parts=4), dense_blocks(3)], ids=str
)
def test_masked_columns_and_cleared_runs_are_zero(layout, width):
    rows = 5
    case = linear(sparse(rows, 8, 0.5), 24, epilogue="scale and bias", layout=layout)
    valid = (np.arange(24) % 6 < 5).astype(np.int32)
    plane, origin = 48, 16
    y_index = (Var("b"), Var("i") * plane + Var("m") + origin)
    product = replace(
        case.product,
        y=Buffer("Y", "float32", (1, rows * plane)),
        y_index=y_index,
        valid=Buffer("valid", "int32", (24,)),
        cleared=((-16, 0), (24, 32)),
    )
    expected = np.zeros((rows, plane), np.float32)
    expected[:, origin : origin + 24] = case.expected.reshape(rows, 24) * valid
    case = replace(case, product=product, arrays={**case.arrays, "valid": valid}, expected=expected.reshape(1, -1))
    run(case, width)
    if "floordiv" in str(layout) and "compressed" in str(layout):
        run(case, width, stage=True)


def test_a_batch_shares_one_matrix():
    case = attention(3, 4, 5, 6)
    weight = case.arrays["W"][:1]
    product = replace(
        case.product, weight=Buffer("W", "float32", (1, 4, 5)), weight_index=(Const(0), Var("i"), Var("k"))
    )
    expected = weight @ case.arrays["X"].reshape(3, 5, 6)
    run(
        replace(case, product=product, arrays={**case.arrays, "W": weight}, expected=expected.reshape(3, -1)), rows=(4,)
    )


def test_one_kernel_for_tiles_of_several_sizes():
    case = linear(sparse(5, 7, 0.5), 23, layout=CSR)
    product = case.product
    runs = ((Const(0), Const(16), 8), (Const(16), Const(20), 4), (Const(20), Const(23), 3))
    kernel = build_kernel(product, Tiling(runs))
    assert len(kernel.body) == 3
    case.agrees(interpreted(kernel, case))
