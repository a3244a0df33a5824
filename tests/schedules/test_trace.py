"""Traces: data in and out, errors that name what is wrong, and kernels that stay right whatever is scheduled."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import ScheduleError
from sparsec.ir.named import CSR, dense_blocks
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from tests.ir.layout_strategies import matrix_layouts
from tests.ir.named_layouts import depth_blocked
from tests.ir.product_cases import CHOSEN, EPILOGUES, Compiled, attention, check, interpreted, linear, sparse, trace

WIDTHS = st.lists(st.integers(1, 512), min_size=1, max_size=4).map(tuple)
BLOCKS = st.sampled_from(["init", "update", "finish"])
STEPS = st.one_of(
    st.builds(Tile, WIDTHS, st.just(()) | WIDTHS, st.booleans()),
    st.builds(Tile, WIDTHS, dots=st.lists(st.integers(0, 64), min_size=3, max_size=5).map(tuple)),
    st.builds(Vectorize, BLOCKS, st.integers(1, 64)),
    st.builds(Tensorize, BLOCKS, st.sampled_from(["fma.16", "x86.vpdpbusd.512"])),
)


# -- data ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(st.lists(STEPS, max_size=6).map(tuple))
def test_json_reads_back(steps):
    text = Trace(steps).to_json()
    assert Trace.from_json(text) == Trace(steps)
    assert Trace.from_json(json.dumps(json.loads(text), indent=2)) == Trace(steps)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "3",
        '"tile"',
        "{}",
        '{"tile": {}}',
        "[1]",
        '["tile"]',
        '[["tile"]]',
        '[["tile", 3]]',
        '[["tile", []]]',
        '[["tile", {}]]',
        '[["tile", {"columns": [16], "colour": 1}]]',
        '[["tile", {"columns": 16}]]',
        '[["tile", {"columns": ["wide"]}]]',
        '[["tile", {"columns": [0]}]]',
        '[["tile", {"columns": [-16]}]]',
        '[["tile", {"columns": [true]}]]',
        '[["tile", {"columns": [16.0]}]]',
        '[["vectorize", {"block": 3, "lanes": 16}]]',
        '[["vectorize", {"block": "init", "lanes": "16"}]]',
        '[["vectorize", {"block": "init", "lanes": 0}]]',
        '[["parallelize", {}]]',
        '[[["tile"], {}]]',
        '[["tile", {"columns": [16]}, 1]]',
    ],
)
def test_foreign_json_is_refused_in_one_sentence(text):
    with pytest.raises(ScheduleError, match=r"^this is not a trace of known steps: ") as caught:
        Trace.from_json(text)
    assert "\n" not in str(caught.value)


# -- steps that do not apply ---------------------------------------------------------------------------------------


CASE = linear(sparse(8, 16, 0.4), 37, layout=CSR)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), "a trace starts with a tile step"),
        ((Vectorize("init", 16),), "a trace starts with a tile step, not with 'vectorize'"),
        ((Tile((32, 5)), Vectorize("store", 16)), "the kernel has no block 'store'"),
        ((Tile((32, 5)), Tensorize("step", "fma.16")), "'step'"),
        ((Tile((32, 5)), Tensorize("update", "mma")), "tensorizes with 'mma', which is not declared"),
        ((Tile((32, 5)), Tensorize("init", "fma.16")), "the block 'init': the statement assigns, and fma.16 adds"),
        ((Tile((32, 5)), Tile((32, 5))), "'tile'"),
        ((Tile((32,)),), r"tiles of \(32,\) do not cover an extent of 37"),
        ((Tile(()),), r"tiles of \(\) do not cover an extent of 37"),
        ((Tile((32, 5)), Tensorize("update", "x86.vpdpbusd.512")), "W is float32, where x86.vpdpbusd.512 takes"),
    ],
)
def test_a_step_that_does_not_apply_says_which(steps, message):
    with pytest.raises(ScheduleError, match=message) as caught:
        Trace(steps).apply(CASE.product)
    assert "\n" not in str(caught.value)


def test_symbolic_extents_need_tiles_that_divide_each_other():
    case = linear(sparse(8, 16, 0.4), 37, layout=CSR, symbolic=("columns",))
    for widths, message in [((16,), "add a tile of 1"), ((16, 6, 1), "6 does not divide 16")]:
        with pytest.raises(ScheduleError, match=message):
            Trace((Tile(widths),)).apply(case.product)


def test_rows_of_an_activation_need_tiles():
    case = attention(1, 8, 16, 32)
    with pytest.raises(ScheduleError, match="tiles of rows"):
        Trace((Tile((32,)),)).apply(case.product)


def test_vectors_need_not_divide_a_tile():
    check(CASE, Trace((Tile((32, 5)), Vectorize("init", 12), Vectorize("finish", 12))))


# -- scheduled kernels ---------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=15)
@given(
    layout=matrix_layouts(),
    shape=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    columns=st.sampled_from([1, 2, 15, 16, 17, 37]),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
)
def test_any_layout(layout, shape, density, columns, epilogue):
    check(linear(sparse(*shape, density), columns, 1, epilogue, layout))


@pytest.mark.parametrize("layout", CHOSEN.values(), ids=CHOSEN)
def test_chosen_layouts(layout):
    weight = sparse(13, 24, 0.3)
    weight[3] = 0
    check(linear(weight, 37, 2, "scale and bias", layout))


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("layout", [depth_blocked(8, 2, 4, 3), dense_blocks(5)], ids=str)
def test_epilogues(layout, epilogue):
    check(linear(sparse(13, 24, 0.3), 17, 2, epilogue, layout))


@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 37, 128])
@pytest.mark.parametrize("layout", [depth_blocked(8, parts=3), dense_blocks(4)], ids=str)
def test_columns(layout, columns):
    case = linear(sparse(13, 24, 0.3), columns, 1, "bias and relu", layout)
    check(case, trace(case, 64))


@pytest.mark.parametrize("weight", [np.zeros((5, 24)), np.ones((5, 24)), np.eye(5, 24, 7)], ids=["none", "all", "few"])
@pytest.mark.parametrize("layout", [depth_blocked(8, 2, 4, 3), CSR, dense_blocks(4)], ids=str)
def test_weights_of_no_all_and_few_nonzeros(layout, weight):
    check(linear(weight.astype(np.float32), 19, 1, "bias and relu", layout))


@pytest.mark.parametrize("layout", [depth_blocked(8, 2, 4, 3), dense_blocks(4)], ids=str)
def test_symbolic_extents(layout):
    """One function for every batch and every number of columns; the tile is wider than some."""
    cases = [
        linear(sparse(13, 24, 0.3), columns, batch, "residual", layout, ("batch", "columns"))
        for batch, columns in [(1, 1), (3, 15), (1, 16), (2, 37), (1, 128)]
    ]
    scheduled = trace(cases[0], 64).apply(cases[0].product)
    run = Compiled(scheduled.lowered, scheduled.func)
    for case in cases:
        assert case.product == cases[0].product
        case.agrees(interpreted(scheduled.kernel, case))
        run.agrees(case)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "symbolic", [(), ("columns",), ("rows", "columns"), ("batch", "rows", "depth", "columns")], ids=str
)
@pytest.mark.parametrize("extents", [(3, 7, 5, 37), (1, 1, 1, 1)], ids=str)
def test_activations(extents, symbolic, transposed):
    rows = extents[1]
    ragged = (4, 1) if "rows" in symbolic else tuple(r for r in (4 if rows >= 4 else 0, rows % 4) if r)
    case = attention(*extents, transposed, "mask of columns", symbolic)
    tile, *moves = trace(case, 32, ragged).steps
    check(case, Trace((tile, *moves)))
    if "depth" not in symbolic:
        check(case, Trace((replace(tile, stage=True), *moves)))


@pytest.mark.parametrize("layout", [depth_blocked(8, 2, 4, 3), depth_blocked(9, parts=3)], ids=str)
def test_staged_activations(layout):
    case = linear(sparse(13, 24, 0.3), 37, 2, "bias and relu", layout)
    tile, *moves = trace(case).steps
    check(case, Trace((Tile(tile.columns, stage=True), *moves)))
