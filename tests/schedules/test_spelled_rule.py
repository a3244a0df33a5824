"""Where the rule for products thinks of spelling entries out, how it cuts weights then, and what it says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from sparsec.ir.kernel import Buffer, For, Walk
from sparsec.ir.layout import Layout
from sparsec.ir.product import Product
from sparsec.schedules.intrinsics import INSTRUCTIONS
from sparsec.schedules.rules.cuts import Panel
from sparsec.schedules.rules.options import options
from sparsec.schedules.rules.prices import Nest
from sparsec.schedules.rules.product import VECTORS, Proposal, candidates, contenders, propose
from sparsec.schedules.rules.spelled import find_writer, not_spelled, spelled_nests, spelled_widths
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.product_cases import EPILOGUES, Case, linear, sparse

NAME = "spelled out"
WITH = ("skylake-avx512", "znver4", "znver5")
WITHOUT = ("x86-64-v2", "haswell", "znver3", "aarch64", "neoverse-v1")
ZNVER4 = Target.parse("znver4")
TARGET_REASON = "the target has no instruction that multiplies by what it broadcasts from memory"


def layer(columns: int = 128, epilogue: str = "bias and relu", rows: int = 384, depth: int = 768) -> Case:
    """A linear layer of which nine in ten weights are pruned, anywhere."""
    return linear(sparse(rows, depth, 0.1), columns, 1, epilogue)


def spelled(case: Case, target: Target = ZNVER4) -> Proposal | None:
    (found,) = contenders(case.product, case.arrays["W"], target, every=True).get(NAME, [None])
    return found


def refusal(product: Product, weight: np.ndarray, target: Target = ZNVER4) -> str | None:
    chosen = propose(product, weight, target)
    (found,) = [option for option in options(product, weight, target, chosen) if option.family == NAME]
    return found.refusal


# -- where it applies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH)
def test_scattered_entries_are_spelled_out_on_avx512(name: str) -> None:
    case = layer()
    proposal = propose(case.product, case.arrays["W"], Target.parse(name))
    assert (proposal.family, proposal.name) == (NAME, NAME)
    assert str(proposal.product.layout).endswith(": compressed)")
    assert proposal.seconds < proposal.dense_seconds / 2
    assert proposal.trace.steps[0].spelled  # type: ignore[union-attr]
    assert refusal(case.product, case.arrays["W"], Target.parse(name)) is None


@pytest.mark.parametrize("name", WITHOUT)
def test_other_targets_have_no_instruction_for_it(name: str) -> None:
    case, target = layer(), Target.parse(name)
    assert spelled(case, target) is None and find_writer(case.product, target) is None
    assert refusal(case.product, case.arrays["W"], target) == TARGET_REASON


def test_few_columns_and_symbolic_ones_are_no_panels() -> None:
    for columns in (1, 15):
        case = layer(columns)
        assert spelled(case) is None
        said = refusal(case.product, case.arrays["W"])
        assert said == f"a panel of columns is a vector of them, and there are {columns}"
    assert spelled(layer(16)) is not None
    symbolic = linear(sparse(384, 768, 0.1), 128, symbolic=("columns",))
    assert spelled(symbolic) is None
    assert (
        refusal(symbolic.product, symbolic.arrays["W"])
        == "a panel of columns is a vector of them, and there are columns"
    )


@pytest.mark.parametrize(
    ("weight", "x", "said"),
    [
        ("int8", "float32", "float32 and int8"),
        ("float16", "float32", "float16 and float32"),
        ("float32", "bfloat16", "bfloat16 and float32"),
    ],
)
def test_other_types_are_not_written(weight: str, x: str, said: str) -> None:
    case = layer()
    stored = replace(case.product.weight, dtype=weight)
    product = replace(case.product, weight=stored, x=replace(case.product.x, dtype=x))
    assert find_writer(product, ZNVER4) is None
    assert refusal(product, case.arrays["W"]) == f"code is written for float32 alone, and not for {said}"


def test_a_weight_without_entries_has_nothing_to_spell_out() -> None:
    case = linear(np.zeros((64, 64), np.float32), 64)
    assert spelled(case) is None
    assert refusal(case.product, case.arrays["W"]) == "the weight has no entries"


def test_a_single_row_is_no_block() -> None:
    case = layer(rows=1)
    assert spelled(case) is None
    assert refusal(case.product, case.arrays["W"]) == "a single row is no block of rows"


def test_images_that_no_instruction_reaches_across_are_refused() -> None:
    case = layer()
    product = replace(case.product, x=Buffer("X", "float32", (1, 768 * 2**20)))
    assert find_writer(product, ZNVER4) is None
    assert not_spelled(Weight(case.arrays["W"]), product) == (
        "an image of X or Y has more than the 2147483647 bytes that an instruction reaches"
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_depth_of_few_is_cut_into_parts_of_more_than_one(depth: int) -> None:
    case = linear(np.ones((100, depth), np.float32), 64)
    for nest in nests(case):
        assert nest.layout and nest.layout().pack(case.arrays["W"]).nbytes


def test_a_dense_weight_stays_dense() -> None:
    case = linear(np.ones((384, 768), np.float32), 128)
    assert propose(case.product, case.arrays["W"], ZNVER4).family == "dense"


def test_it_is_worth_measuring() -> None:
    case = layer()
    names = [proposal.name for proposal in candidates(case.product, case.arrays["W"], ZNVER4)]
    assert NAME in names and "dense" in names


# -- how it cuts ---------------------------------------------------------------------------------------------------


def nests(case: Case, width: int = 64, target: Target = ZNVER4) -> Iterator[Nest]:
    return spelled_nests(Weight(case.arrays["W"]), Panel(case.product, width, target))


@pytest.mark.parametrize("rows", [2, 7, 30, 31, 61, 384])
def test_blocks_have_as_many_rows_as_registers_hold_shared_out_evenly(rows: int) -> None:
    most = INSTRUCTIONS["x86.fragments.512"].writer
    assert most is not None and most.sums == 30
    for nest in nests(layer(rows=rows)):
        assert nest.rows == -(-rows // -(-rows // most.sums))
        assert nest.entries == np.count_nonzero(sparse(rows, 768, 0.1))


@pytest.mark.parametrize("cores", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("rows", [2, 16, 32, 100])
def test_there_is_a_layout_for_any_number_of_cores(cores: int, rows: int) -> None:
    """Chunks may be no more than a block."""
    case, target = linear(sparse(rows, 96, 0.2), 32), replace(ZNVER4, cores=cores)
    for nest in nests(case, 32, target):
        layout = nest.layout() if nest.layout else None
        assert isinstance(layout, Layout)
        kernel = Trace((Tile((32,), (), nest.stage, spelled=16),)).kernel(case.product.stored_as(layout))
        (loops,) = kernel.body
        assert isinstance(loops, For) and loops.parallel
        levels = [axis.level for axis in loops.axes if isinstance(axis, Walk)]
        tasks = prod(layout.sizes((rows, 96))[level] for level in levels)
        assert nest.tasks == tasks or (nest.part == 96 and not nest.stage and nest.opens <= tasks)


def test_what_is_counted_is_what_layouts_hold() -> None:
    case = layer(rows=100, depth=144)
    found = list(nests(case))
    assert {nest.stage for nest in found} == {False, True}
    for nest in found:
        layout = nest.layout() if nest.layout else None
        assert isinstance(layout, Layout)
        packed, level = layout.pack(case.arrays["W"]), len(layout.levels) - 2
        assert nest.steps == len(packed.arrays[f"level{level}.indices"])
        assert nest.opens == len(packed.arrays[f"level{level}.indptr"]) - 1
        assert nest.part == min((d.divisor for d in layout.digits("k") if d.divisor > 1), default=144)
        assert len(packed.arrays["data"]) == nest.entries


def test_taps_of_a_filter_stay_in_one_part() -> None:
    case = linear(sparse(64, 64 * 9, 0.1), 224, taps=9)
    found = list(nests(case))
    assert len({nest.part for nest in found}) > 1 and all(nest.part % 9 == 0 for nest in found)


@pytest.mark.parametrize(
    ("columns", "width", "found"),
    [(128, 64, (64,)), (100, 64, (64, 36)), (49, 64, (49,)), (72, 64, ()), (16, 16, (16,)), (15, 16, ())],
)
def test_each_tile_has_a_whole_panel(columns: int, width: int, found: tuple[int, ...]) -> None:
    assert spelled_widths(layer(columns).product, width, 16) == found


def test_some_tiles_cover_any_number_of_columns_from_a_vector_on() -> None:
    product = layer(16).product
    for columns in range(16, 2000):
        assert any(spelled_widths(replace(product, columns=columns), 16 * vectors, 16) for vectors in VECTORS), columns


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_loops_that_fragments_leave_are_made_vectors_of(epilogue: str) -> None:
    """Every proposal can be applied, with all that it names."""
    case = layer(epilogue=epilogue, rows=60, depth=96)
    proposals = contenders(case.product, case.arrays["W"], ZNVER4, count=99, every=True)[NAME]
    tiles = [proposal.trace.steps[0] for proposal in proposals]
    assert {tile.stage for tile in tiles if isinstance(tile, Tile)} == {False, True}
    for proposal in proposals:
        scheduled = proposal.trace.apply(proposal.product, ZNVER4.emits)
        assert list(scheduled.lowered.codes) == ["W"]
        by_loops = Vectorize("finish", 16) in proposal.trace.steps
        assert by_loops == (epilogue in ("scale and bias", "residual", "mask of columns", "gelu"))
        assert Tensorize("update", "x86.fragments.512") in proposal.trace.steps


# -- what proposals say --------------------------------------------------------------------------------------------


def test_a_trace_can_be_written_and_read() -> None:
    proposal = spelled(layer())
    assert proposal is not None
    assert '"spelled": 16' in proposal.trace.to_json()
    assert Trace.from_json(proposal.trace.to_json()) == proposal.trace


def test_a_trace_of_before_has_nothing_spelled_out() -> None:
    text = '[["tile", {"columns": [64], "rows": [], "stage": false}], ["vectorize", {"block": "init", "lanes": 16}]]'
    tile = Trace.from_json(text).steps[0]
    assert isinstance(tile, Tile) and not tile.spelled


@pytest.mark.parametrize("columns", [16, 37, 128])
@pytest.mark.parametrize("epilogue", ["bias and relu", "scale and bias", "residual and relu"])
def test_bytes_are_those_of_the_arrays_that_the_kernel_takes(columns: int, epilogue: str) -> None:
    case = layer(columns, epilogue, rows=100, depth=200)
    weight = case.arrays["W"]
    for proposal in contenders(case.product, weight, ZNVER4, count=6, every=True)[NAME]:
        arrays = proposal.trace.apply(proposal.product, ZNVER4.emits).pack("W", weight)
        assert list(arrays) == ["starts", "code", "data"]
        assert proposal.nbytes(weight) == sum(array.nbytes for array in arrays.values())
        assert len(arrays["code"]) % 64 == 0 and len(arrays["data"]) == np.count_nonzero(weight)


@pytest.mark.parametrize("columns", [16, 128])
def test_options_show_what_it_takes(columns: int) -> None:
    case = layer(columns, rows=96, depth=128)
    weight = case.arrays["W"]
    proposal = spelled(case)
    listed = options(case.product, weight, ZNVER4, propose(case.product, weight, ZNVER4))
    (option,) = [option for option in listed if option.name == NAME]
    assert proposal is not None and option.refusal is None and option.weighed
    assert (option.layout, option.seconds) == (str(proposal.product.layout), proposal.seconds)
    assert option.nbytes == proposal.nbytes(weight)


def test_more_entries_cost_more() -> None:
    found = [spelled(linear(sparse(384, 768, density), 128)) for density in (0.02, 0.05, 0.1, 0.2, 0.4)]
    seconds = [proposal.seconds for proposal in found if proposal]
    assert len(seconds) == 5 and seconds == sorted(seconds)
