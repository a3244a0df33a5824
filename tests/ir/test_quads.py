"""Quads: four coordinates and four values are a load each, and tiles of few vectors add up in several chains."""

import re

import numpy as np
import pytest

from sparsec.ir.named import CSR, sell
from sparsec.ir.quads import WALKED
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import PAGE, Target
from tests.ir.named_layouts import depth_blocked, row_vectors
from tests.ir.product_cases import check, linear, sparse
from tests.schedules.assembly import assembly, hottest, spills

HASWELL = Target.parse("haswell")


def schedule(columns: tuple[int, ...], stage: bool = False, lanes: int = 8) -> Trace:
    moves = (Vectorize("init", lanes), Tensorize("update", f"fma.{lanes}"), Vectorize("finish", lanes))
    return Trace((Tile(columns, stage=stage), *moves))


def rows(counts: list[int], depth: int = 48) -> np.ndarray:
    """A weight whose rows have so many entries."""
    weight = sparse(len(counts), depth, 1.1)
    weight[weight == 0] = 1
    for row, count in enumerate(counts):
        weight[row, np.random.default_rng(row).permutation(depth)[count:]] = 0
    return weight


@pytest.mark.parametrize("columns", [8, 16, 24, 32, 40, 64, 5, 13, 37])
def test_rows_of_any_length_are_exact(columns):
    widths = tuple(width for width in (columns // 8 * 8, columns % 8) if width)
    check(linear(rows([0, 1, 2, 3, 4, 5, 7, 8, 9, 48]), columns, layout=CSR), schedule(widths))


@pytest.mark.parametrize("columns, copies", [(8, 3), (16, 3), (24, 1), (32, 1), (40, 0), (64, 0)])
def test_few_sums_have_copies(columns, copies):
    case = linear(rows([9, 17]), columns, layout=CSR)
    func = schedule((columns,)).apply(case.product).func
    assert str(func).count(f'T.sblock_alloc_buffer(({columns},), scope="local")') == 1 + copies


def test_a_single_sum_has_copies_too():
    case = linear(rows([9, 17]), 1, layout=CSR)
    scheduled = check(case, Trace((Tile((1,)),)))
    assert str(scheduled.func).count('T.sblock_alloc_buffer((1,), scope="local")') == 1 + 3


def test_other_weights_load_no_quads_of_values():
    case = linear(rows([9, 17, 4, 4]), 32, layout=depth_blocked(48, r=2))
    assert "llvm.arithmetic.fence" not in str(schedule((32,)).apply(case.product).func)


def test_a_quad_is_one_load_of_values_and_one_of_coordinates():
    case = linear(sparse(64, 96, 0.2), 32, layout=CSR)
    loop = hottest(assembly(schedule((32,)).apply(case.product, HASWELL.emits).func, HASWELL), "vfmadd")
    assert loop.count("\tvfmadd") == 16
    assert loop.count("\tvbroadcastf128") == 1 and loop.count("\tvbroadcastss") == 0
    assert loop.count("\tvshufps") + loop.count("\tvpermilps") == 4
    assert not spills(loop)


def test_copied_rows_of_x_are_found_by_ready_offsets():
    case = linear(sparse(64, 96, 0.2), 80, layout=depth_blocked(48, parts=2))
    scheduled = check(case, schedule((48, 32), stage=True))
    table = scheduled.lowered.gathers["W"].table
    assert table.tolist() == [48 * digit for digit in range(48)], "in both tiles alike"
    loop = hottest(assembly(scheduled.func, HASWELL), "vfmadd")
    assert not any(f"\t{name}" in loop for name in ("shlq", "shll", "leaq", "imul"))


def test_offsets_that_need_more_bits_are_computed():
    case = linear(rows([9, 17], depth=1024), 128, layout=depth_blocked(1024))
    assert "W" not in check(case, schedule((128,), stage=True)).lowered.gathers


@pytest.mark.parametrize("width", [24, 56])
def test_halves_of_vectors_are_in_the_same_tile(width):
    case = linear(rows([0, 1, 3, 4, 9, 17, 48]), width, layout=CSR)
    scheduled = check(case, schedule((width,), lanes=16))
    kernel = str(scheduled.kernel)
    assert "fma.16" in kernel and "fma.8" in kernel and kernel.count("tile acc") == 1


def fetched(func) -> list[str]:
    """What is asked for, to L2."""
    return re.findall(r"prefetch\", T.address_of\((W_\w+)\[.*\]\), 0, 2, 1\)", str(func))


def test_each_row_asks_for_what_walks_of_its_length_read_on_the_next_page():
    case = linear(rows([9, 17, 4, 4]), 32, layout=CSR)
    func = schedule((32,)).apply(case.product).func
    assert fetched(func) == ["W_level1_indices"] * WALKED + ["W_data"] * WALKED
    text = str(func)
    assert f"+ {PAGE // 4}" in text and f"+ {PAGE // 2}" in text
    assert re.findall(r"if .* > (\d+):", text) == ["32", "64", "96", "16", "32", "48"]


@pytest.mark.parametrize("r, lines", [(2, WALKED), (4, 1), (8, 2)])
def test_quads_of_large_blocks_ask_for_as_much_as_they_read(r, lines):
    case = linear(sparse(16, 48, 0.4), 32, layout=row_vectors(r))
    assert fetched(check(case, schedule((32,))).func).count("W_data") == lines


def test_a_tile_without_whole_vectors_adds_to_its_sums_alone():
    case = linear(rows([9, 17]), 37, layout=CSR)
    func = check(case, schedule((37,))).func
    assert str(func).count('T.sblock_alloc_buffer((37,), scope="local")') == 1


def slices(columns: int, r: int = 8, lanes: int = 8) -> Trace:
    moves = (Vectorize("init", lanes), Tensorize("update", f"fma.{lanes}"), Vectorize("finish", 1))
    return Trace((Tile((columns,)), *moves))


@pytest.mark.parametrize("r", [4, 8, 16, 32])
@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("epilogue", ["none", "bias and relu", "residual"])
def test_slices_of_rows_are_exact(r, columns, epilogue):
    weight = rows([0, 1, 2, 3, 48, 5, 7, 8, 9, 0, 48] * 3)
    check(linear(weight, columns, epilogue=epilogue, layout=sell(r, 48)), slices(columns))


def test_slices_in_parts_are_exact():
    check(linear(rows([9, 17, 3, 1, 0, 4, 4, 48]), 1, layout=sell(8, 16)), slices(1))


def test_a_slot_is_one_load_of_values_and_a_load_for_each_element_of_x():
    case = linear(sparse(64, 96, 0.2), 1, layout=sell(8, 96))
    loop = hottest(assembly(slices(1).apply(case.product, HASWELL.emits).func, HASWELL), "vfmadd")
    assert loop.count("\tvfmadd") == 1
    assert loop.count("\tvmovss") == 2 and loop.count("\tvinsertps") == 6
    assert len(re.findall(r"\tmovq\s[0-9]*\(", loop)) == 2, "coordinates"
    assert loop.count("\tprefetch") == 2
    assert not spills(loop)
