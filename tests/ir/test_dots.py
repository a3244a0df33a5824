"""Products that take several depths at once compute what NumPy does, exactly, in every layout, shape and type."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Compressed
from sparsec.ir.named import CSC, CSR
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.trace import Scheduled
from tests.ir.dot_cases import EPILOGUES, WAYS, Way, dotted, sparse_numbers, tile_of, trace_of
from tests.ir.product_cases import NATIVE, Case, Compiled, interpreted

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)

# By name; for blocks of r rows and d depths. Those of runs hold whole blocks of rows only.
LAYOUTS = {
    "panels": "i floordiv {r} : dense, k floordiv {d} : dense, i mod {r} : dense, k mod {d} : dense",
    "panels of channels": (
        "i floordiv {r} : dense, k floordiv {taps} floordiv {d} : dense, k mod {taps} : dense, i mod {r} : dense, "
        "k floordiv {taps} mod {d} : dense"
    ),
    "runs": "i floordiv {r} : dense, k : compressed[{d}], i mod {r} : dense",
    "runs in buckets": "i floordiv {r} : bucketed, k : compressed[{d}], i mod {r} : dense",
    "runs in chunks": (
        "i floordiv {chunk} : dense, i floordiv {r} mod 2 : bucketed, k : compressed[{d}], i mod {r} : dense"
    ),
}
TAPS = 3


def layout_of(name: str, r: int, depths: int) -> Layout:
    levels = LAYOUTS[name].format(r=r, d=depths, taps=TAPS, chunk=2 * r)
    if r == 1:
        levels = re.sub(r", i mod 1 : dense|floordiv 1 ", "", levels)
    return parse_layout(f"(i, k) -> ({levels})")


def case_of(way: Way, name: str, r: int, tiles: int, depth: int, columns: int, density: float, **options: Any) -> Case:
    """Some tiles of r rows; of panels, the last one has a row less."""
    rows = r * tiles - (1 if name.startswith("panels") and r > 1 else 0)
    weight = sparse_numbers(rows, depth, density, way.weight, bool(options.get("extreme")))
    taps = TAPS if name == "panels of channels" else 1
    layout = layout_of(name, r, way.dot.depth)
    return dotted(weight.astype(way.stored), columns, layout, way.x, taps=taps, **options)


# -- as kernels ----------------------------------------------------------------------------------------------------


@PROPERTY
@given(
    way=st.sampled_from(["vpdpbusd", "vpmaddwd", "sdot"]),
    name=st.sampled_from(sorted(LAYOUTS)),
    r=st.sampled_from([1, 2, 4]),
    tiles=st.integers(1, 3),
    depth=st.integers(1, 9),
    columns=st.sampled_from([1, 5, 16, 37, 64, 80, 129]),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    edges=st.booleans(),
    extreme=st.booleans(),
    stage=st.booleans(),
    rows_first=st.booleans(),
)
def test_the_interpreter_agrees_with_numpy(
    way, name, r, tiles, depth, columns, density, epilogue, edges, extreme, stage, rows_first
):
    case = case_of(WAYS[way], name, r, tiles, depth, columns, density, epilogue=epilogue, edges=edges, extreme=extreme)
    tile = tile_of(WAYS[way], case, stage and name.startswith("panels"), rows_first)
    kernel = build_kernel(case.product, tile.tiling(columns, case.product.rows))
    assert parse_kernel(str(kernel)) == kernel
    case.agrees(interpreted(kernel, case))


@pytest.mark.parametrize(
    ("way", "r", "depth", "columns"),
    [("smmla", 4, 11, 21), ("mma", 16, 35, 9), ("vdpbf16ps", 3, 7, 37), ("bfmmla", 2, 6, 19)],
)
@pytest.mark.parametrize("name", ["panels", "runs in buckets"])
def test_blocks_of_sums_and_halves(way, name, r, depth, columns):
    if WAYS[way].dot.rows == 1 and "runs" in name:
        r = 2
    case = case_of(WAYS[way], name, r, 1 if r == 16 else 2, depth, columns, 0.6)
    for stage in (False, True) if name == "panels" else (False,):
        tile = tile_of(WAYS[way], case, stage, width=32)
        kernel = build_kernel(case.product, tile.tiling(columns, case.product.rows))
        case.agrees(interpreted(kernel, case))


@pytest.mark.parametrize("layout", [CSR, CSC], ids=str)
def test_a_layout_without_runs_or_a_digit_of_depths_is_refused(layout):
    case = dotted(sparse_numbers(8, 9, 0.5), 16, layout)
    tile = tile_of(WAYS["vpdpbusd"], case)
    with pytest.raises(LayoutError, match=re.escape(str(layout))):
        build_kernel(case.product, tile.tiling(16, 8))


def test_runs_cannot_be_staged():
    case = case_of(WAYS["vpdpbusd"], "runs", 2, 2, 9, 16, 0.5)
    tile = tile_of(WAYS["vpdpbusd"], case, stage=True)
    with pytest.raises(LayoutError, match=r"X cannot be staged for .*, whose depths are not dense digits"):
        build_kernel(case.product, tile.tiling(16, 4))


# -- compiled ------------------------------------------------------------------------------------------------------


def scheduled(way: Way, case: Case, emulated: bool, **options: Any) -> Scheduled:
    trace = trace_of(way, case, tile_of(way, case, **options))
    return trace.apply(case.product, () if emulated else way.target.emits)


COMPILED = [
    # way, layout, rows of a tile, depth, columns, epilogue, whether staged, emulated
    ("vpdpbusd", "panels", 6, 37, 129, "bytes", True, False),
    ("vpdpbusd", "panels", 4, 30, 80, "residual", False, False),
    ("vpdpbusd", "panels of channels", 3, 36, 37, "floats", True, False),
    ("vpdpbusd", "runs", 1, 50, 64, "sums", False, False),
    ("vpdpbusd", "runs in buckets", 2, 50, 129, "signed bytes", False, False),
    ("vpdpbusd", "runs in chunks", 4, 50, 37, "bias", False, False),
    ("vpdpbusd", "panels", 16, 30, 5, "bytes", True, False),
    ("vpdpbusd", "panels", 16, 30, 1, "sums", True, False),
    ("vpdpbusd", "runs in buckets", 4, 50, 80, "residual", False, True),
    ("vpdpbusd of 256 bits", "panels", 2, 29, 37, "bytes", True, False),
    ("vpmaddwd", "panels", 2, 29, 129, "residual", True, False),
    ("vpmaddwd", "runs in buckets", 2, 29, 40, "signed bytes", False, False),
    ("sdot", "panels", 6, 29, 37, "signed bytes", True, True),
    ("sdot", "runs in buckets", 2, 29, 21, "bytes", False, True),
    ("smmla", "panels", 4, 29, 37, "residual", True, True),
    ("smmla", "runs in buckets", 2, 29, 21, "sums", False, True),
    ("mma", "panels", 16, 70, 37, "bytes", True, True),
    ("vdpbf16ps", "panels", 4, 29, 37, "sums", True, True),
    ("vdpbf16ps", "runs in buckets", 2, 29, 80, "halves", False, True),
    ("bfmmla", "panels", 2, 29, 21, "halves", True, True),
    ("mma of float16", "panels", 16, 40, 21, "sums", True, True),
]


@pytest.mark.parametrize(
    ("way", "name", "r", "depth", "columns", "epilogue", "stage", "emulated"),
    COMPILED,
    ids=[
        f"{way}, {name}, {columns} columns{', emulated' * emulated}"
        for way, name, _, _, columns, *_, emulated in COMPILED
    ],
)
def test_compiled_code_agrees_with_numpy(way, name, r, depth, columns, epilogue, stage, emulated):
    """On arrays that lie between others, whose memory it must not touch."""
    how = WAYS[way]
    if not emulated and not how.runs_here:
        pytest.skip(f"this machine does not have {how.instruction}")
    few = columns < how.dot.columns
    for density, extreme in ((0.4, False), (1.0, True)):
        case = case_of(how, name, r, 3, depth, columns, density, epilogue=epilogue, edges=not few, extreme=extreme)
        if density == 0.4:
            found = scheduled(how, case, emulated, stage=stage)
            assert how.instruction in str(found.kernel)
            compiled = Compiled(found.lowered, found.func, NATIVE if emulated else how.target)
        compiled.agrees(case)


def test_a_batch_meets_one_weight():
    way = WAYS["vpdpbusd"]
    weight = sparse_numbers(6, 20, 0.5)
    case = dotted(weight, 40, layout_of("runs in buckets", 2, 4), batch=3)
    emulated = not way.runs_here
    found = scheduled(way, case, emulated, rows_first=True)
    Compiled(found.lowered, found.func).agrees(case)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("layout", ["runs", "runs in chunks"])
def test_runs_take_what_their_layout_says(layout, density):
    """Every run is of stored columns of a block of rows; the last one of each is filled up."""
    weight = sparse_numbers(8, 21, density)
    packed = layout_of(layout, 2, 4).pack(weight)
    counts = (weight.reshape(4, 2, 21) != 0).any(axis=1).sum(axis=1)
    assert packed.arrays["data"].size == 8 * (-(-counts // 4)).sum()
    assert any(isinstance(level, Compressed) and level.run == 4 for _, level in packed.layout.levels)
