"""Products whose sums registers of tiles hold compute what NumPy does, for any rows, depths and columns."""

import re
from collections.abc import Iterator
from itertools import product
from textwrap import dedent

import numpy as np
import pytest

from sparsec.errors import LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.lower import lower
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product_kernel import build_kernel
from sparsec.ir.tiles import best_block
from sparsec.schedules.rules.dots import tile_nests
from sparsec.schedules.rules.product import Choice, as_proposal
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Tile
from sparsec.schedules.tensorize import tensorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.dot_cases import WAYS, Way, dotted, in_layout, sparse_numbers
from tests.ir.product_cases import Case, Compiled, interpreted
from tests.ir.test_dots import layout_of
from tests.schedules.assembly import assembly

NATIVE = Target.parse("native")


def tilings(way: Way, case: Case) -> Iterator[tuple[Case, Trace]]:
    """The product in each layout that there is for tiles of sums, and how it is carried out."""
    for nest, tile, cycles in tile_nests(way.dot, Weight(case.arrays["W"] != 0), case.product, way.target):
        choice = Choice("dense", nest, tile, cycles, way.dot)
        proposal = as_proposal(case.product, choice, choice, way.target)
        layout = proposal.product.layout
        assert layout is not None
        yield in_layout(case, layout), proposal.trace


@pytest.mark.parametrize(
    ("way", "rows", "depth", "taps", "columns", "epilogue", "edges"),
    [
        ("tdpbsud", 16, 3, 1, 16, "bytes", True),
        ("tdpbssd", 17, 6, 3, 20, "signed bytes", False),
    ],
)
def test_the_interpreter_agrees_with_numpy(way, rows, depth, taps, columns, epilogue, edges):
    weight = sparse_numbers(rows, depth, 0.7, WAYS[way].weight)
    case = dotted(weight, columns, x=WAYS[way].x, epilogue=epilogue, edges=edges, taps=taps)
    case, trace = next(tilings(WAYS[way], case))
    case.agrees(interpreted(trace.kernel(case.product), case))


COMPILED = [
    # way, rows, depth, taps, columns, epilogue, edges, batch
    ("tdpbsud", 64, 256, 1, 128, "bytes", False, 1),
    ("tdpbsud", 40, 70, 1, 49, "residual", False, 2),
    ("tdpbsud", 100, 3 * 64, 3, 37, "floats", True, 1),
    ("tdpbsud", 17, 9 * 5, 9, 200, "signed bytes", True, 2),
    ("tdpbssd", 33, 65, 1, 80, "bias", False, 1),
    ("tdpbssd", 48, 100, 1, 50, "sums", False, 2),
]


@pytest.mark.parametrize(("way", "rows", "depth", "taps", "columns", "epilogue", "edges", "batch"), COMPILED)
def test_compiled_code_agrees_with_numpy(way, rows, depth, taps, columns, epilogue, edges, batch):
    way = WAYS[way]
    case = dotted(
        sparse_numbers(rows, depth, 0.7, way.weight), columns, x=way.x, epilogue=epilogue, edges=edges, batch=batch,
        taps=taps,
    )  # fmt: skip
    found = list(tilings(way, case))
    assert len(found) >= 4
    for case, trace in found:
        scheduled = trace.apply(case.product, NATIVE.isa)
        assert way.instruction in str(scheduled.kernel)
        Compiled(scheduled.lowered, scheduled.func).agrees(case)


def test_sums_are_in_tiles_from_zero_to_the_end_of_the_depth():
    case = dotted(sparse_numbers(64, 640, 1.0), 64)
    way = WAYS["tdpbsud"]
    case, trace = next(found for found in tilings(way, case) if found[1].steps[0].columns == (64,))
    text = str(trace.apply(case.product, way.target.isa).func)
    count = {name: len(re.findall(rf"llvm\.x86\.{name}\b", text)) for name in ("tilezero", "tdpbsud", "tilestored64")}
    assert isinstance(case.product.layout, Layout)
    rows = case.product.layout.sizes((64, 640))[2] // 16
    assert count == {"tilezero": 4 * rows, "tdpbsud": 4 * rows, "tilestored64": 4 * rows}
    assert len(re.findall(r"llvm\.x86\.ldtilecfg", text)) == len(re.findall(r"llvm\.x86\.tilerelease", text)) == 1


@pytest.mark.parametrize("name", ["panels", "runs"])
def test_layouts_without_runs_of_depths_are_refused(name):
    case = dotted(sparse_numbers(16, 64, 0.5), 16, layout_of(name, 16, 64))
    tile = Tile((16,), (), True, dots=(1, 16, 64, 0, 4))
    with pytest.raises(LayoutError, match=r"tiles of sums take X staged, and weights in rows of runs|cannot be staged"):
        build_kernel(case.product, tile.tiling(16, 16))


BLOCKS = [(1, 1, 2), (2, 2, 4), (2, 4, 8), (1, 4, 5), (2, 8, 16), (3, 3, 12)]


@pytest.mark.parametrize(("rows", "columns", "loads"), BLOCKS)
def test_blocks_load_few_tiles(rows, columns, loads):
    found = best_block(rows, columns, registers=8)
    assert found.registers <= 8 and found.rows <= rows and found.columns <= columns
    assert found.loads(rows, columns) == loads


TILE = "i in range(0, 16), j in range(0, 16), k in range(0, 16), l in range(0, 4)"
OUTER = {
    # by what it shows: how often two loops around a product of tiles run, and where its sums and its factors are
    "all sums meet all factors": (5, 3, "r, s", "r", "s"),
    "sums move alone": (5, 1, "r, s", "s", "s"),
    "sums move with half of the steps": (4, 1, "r // 2, s", "r", "r"),
    "everything moves at once": (3, 2, "r, s", "r", "r"),
    "nothing moves but the depth": (2, 3, "0, 0", "r", "s"),
}


@pytest.mark.parametrize("name", OUTER)
def test_any_loops_around_tiles_compute_what_they_say(name):
    rows, columns, sums, of_a, of_b = OUTER[name]
    text = f"""
    kernel tiles(a: int8[5, 16, 16, 4], b: int8[5, 16, 16, 4]) -> c: int32[5, 3, 16, 16]:
        for r in range(0, 5), s in range(0, 3), i in range(0, 16), j in range(0, 16):
            c[r, s, i, j] = 1
        for r in range(0, {rows}), s in range(0, {columns}), {TILE} as x86.tdpbssd.m16n16k64:
            c[{sums}, i, j] += a[{of_a}, i, k, l] * b[{of_b}, k, j, l]
    """
    kernel = parse_kernel(dedent(text).strip())
    random = np.random.default_rng(0)
    given = {name: random.integers(-128, 128, (5, 16, 16, 4), np.int8) for name in "ab"}
    wanted = np.ones((5, 3, 16, 16), np.int32)
    for r, s in product(range(rows), range(columns)):
        (place,), m, n = (eval(f"[({text})]", {"r": r, "s": s}) for text in (sums, of_a, of_b))
        a, b = given["a"][m[0]].astype(np.int32), given["b"][n[0]].astype(np.int32)
        wanted[place] += np.einsum("ikl,kjl->ij", a, b)
    lowered = lower(kernel, NATIVE.isa)
    found = Compiled(lowered, lowered.func)(given, {"c": wanted.shape})["c"]
    np.testing.assert_array_equal(found, wanted)


def test_loops_of_symbolic_extent_stay_around_tiles():
    text = """
    kernel tiles(a: int8[n, 16, 16, 4], b: int8[n, 16, 16, 4]) -> c: int32[16, 16]:
        for i in range(0, 16), j in range(0, 16):
            c[i, j] = 0
        for s in range(0, n), i in range(0, 16), j in range(0, 16), k in range(0, 16), l in range(0, 4):
            c[i, j] += a[s, i, k, l] * b[s, k, j, l]
    """
    kernel = tensorize(parse_kernel(dedent(text).strip()), "update", "x86.tdpbssd.m16n16k64")
    assert "for s in range(0, n):" in str(kernel)
    random = np.random.default_rng(0)
    given = {name: random.integers(-128, 128, (3, 16, 16, 4), np.int8) for name in "ab"}
    wanted = np.einsum("sikl,skjl->ij", *(array.astype(np.int32) for array in given.values()))
    lowered = lower(kernel, NATIVE.isa)
    np.testing.assert_array_equal(Compiled(lowered, lowered.func)(given, {"c": (16, 16)})["c"], wanted)


def test_sums_stay_in_registers_of_the_processor():
    """No register of tiles is loaded again but for factors, whatever LLVM makes of the loop over the depth."""
    way = WAYS["tdpbsud"]
    case, trace = next(tilings(way, dotted(sparse_numbers(32, 2048, 1.0), 32)))
    code = assembly(trace.apply(case.product, way.target.isa).func, way.target)
    products = re.findall(r"tdpbsud\s+%tmm\d, %tmm\d, %tmm(\d)", code)
    loads = re.findall(r"tileloadd.*%tmm(\d)", code)
    assert products and loads and not set(products) & set(loads)
