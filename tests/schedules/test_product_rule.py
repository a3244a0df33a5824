"""What the rule for products chooses: dense or sparse by density, blocks where there are some, tiles in registers."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.levels import Dense
from sparsec.ir.lower import lower
from sparsec.ir.named import dense_blocks
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.rules.cuts import Panel, find_cuts, in_rows
from sparsec.schedules.rules.families import FAMILIES
from sparsec.schedules.rules.given import propose_given
from sparsec.schedules.rules.prices import Prices, has_few_columns, tiles
from sparsec.schedules.rules.product import Proposal, _activation_nest, column_widths, contenders, propose
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target
from tests.ir.product_cases import NATIVE, Case, Compiled, attention, check, interpreted, linear, sparse
from tests.schedules.assembly import assembly, inner_loops, spills

NAMES = ["x86-64-v2", "haswell", "skylake-avx512", "znver4", "znver5", "aarch64", "neoverse-v1"]
TARGETS = {name: Target.parse(name) for name in NAMES}


def proposed(case: Case, target: Target = TARGETS["znver5"]) -> Proposal:
    constant = case.product.weight_index == ()
    return propose(case.product, case.arrays["W"] if constant else None, target)


def is_dense(proposal: Proposal) -> bool:
    layout = proposal.product.layout
    return layout is None or all(isinstance(level, Dense) for _, level in layout.levels)


def blocks(rows: int, depth: int, density: float, r: int) -> np.ndarray:
    """A matrix whose nonzeros stand in r × 1 blocks."""
    return np.repeat(sparse(rows // r, depth, density), r, axis=0)


# -- layouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(768, 768, 128), (256, 64, 3136), (512, 1024, 49), (64, 128, 16)], ids=str)
def test_density_decides(name, shape):
    rows, depth, columns = shape
    full = proposed(linear(np.ones((rows, depth), np.float32), columns), TARGETS[name])
    assert is_dense(full)
    assert full.seconds == full.dense_seconds
    pruned = proposed(linear(sparse(rows, depth, 0.1), columns), TARGETS[name])
    assert not is_dense(pruned)
    assert pruned.seconds < 0.95 * pruned.dense_seconds
    assert pruned.dense_seconds == full.dense_seconds


def test_dense_layouts_are_priced_alone_where_these_alone_are_wanted(monkeypatch):
    def refuse(weight, panel):
        raise AssertionError("a sparse family is priced")

    case = linear(sparse(256, 256, 0.05), 128)
    (dense,) = contenders(case.product, case.arrays["W"], TARGETS["znver5"])["dense"]
    families = [family if family.name == "dense" else replace(family, nests=refuse) for family in FAMILIES]
    monkeypatch.setattr("sparsec.schedules.rules.product.FAMILIES", families)
    assert propose(case.product, case.arrays["W"], TARGETS["znver5"], only_dense=True) == dense


def test_fewer_nonzeros_are_never_slower():
    times = [proposed(linear(sparse(256, 256, density), 128)).seconds for density in (0, 0.01, 0.1, 0.2, 0.5, 1)]
    assert times == sorted(times)


@pytest.mark.parametrize(  # on Zen 5 entries of two rows are spelled out
    ("name", "r"), [("neoverse-v1", 2), ("neoverse-v1", 4), ("neoverse-v1", 8), ("znver5", 4), ("znver5", 8)]
)
def test_blocks_are_found(name, r):
    target = TARGETS[name]
    blocked = proposed(linear(blocks(256, 256, 0.1, r), 128), target)
    layout = blocked.product.layout
    assert str(layout).endswith(f"i mod {r} : dense)")
    scattered = proposed(linear(sparse(256, 256, 0.1), 128), target)
    assert f"i mod {r} :" not in str(scattered.product.layout)
    assert blocked.seconds < scattered.seconds


def test_a_layout_costs_as_much_where_it_is_given():
    case, target = linear(blocks(768, 768, 0.1, 4), 128), TARGETS["znver4"]
    chosen = propose(case.product, case.arrays["W"], target)
    assert "i mod 4" in str(chosen.product.layout) and not chosen.trace.steps[0].stage
    found = propose_given(case.product, case.arrays["W"], chosen.product.layout, target)
    assert found.seconds == pytest.approx(chosen.seconds, rel=0.02)


def test_taps_stay_together_in_a_part():
    case = linear(sparse(64, 4608, 0.1), 3136, taps=9)
    layout = proposed(case).product.layout
    parts = [digit.divisor for digit in layout.digits("k") if digit.divisor > 1]
    staged = proposed(case).trace.steps[0].stage
    assert staged or all(part % 9 == 0 for part in parts)


@pytest.mark.parametrize("name", ["haswell", "znver5"])
def test_a_dense_tile_reads_copies_of_x_that_stay_in_l1(name):
    """Rows of X that are a power of two apart meet in few sets of L1."""
    target = TARGETS[name]
    proposal = proposed(linear(np.ones((768, 3072), np.float32), 128), target)
    tile, layout = proposal.trace.steps[0], proposal.product.layout
    part = max(digit.divisor for digit in layout.digits("k"))
    rows = max(digit.divisor for digit in layout.digits("i"))
    assert tile.stage
    assert part * (rows + tile.columns[0]) * 4 <= target.l1_bytes


def test_taps_of_a_large_filter_are_in_two_loops():
    layouts = (dense_blocks(4, taps) for taps in (9, 49))
    assert [[digit.divisor for digit in layout.digits("k")] for layout in layouts] == [[9, 1], [49, 7, 1]]
    check(linear(sparse(13, 2 * 49, 0.3), 37, layout=dense_blocks(4, 49), taps=49))


@pytest.mark.parametrize("cores", [1, 4, 16])
def test_there_is_work_for_every_core(cores):
    target = replace(TARGETS["znver5"], cores=cores)
    proposal = proposed(linear(sparse(1024, 256, 0.1), 128), target)
    layout, (tile, *_) = proposal.product.layout, proposal.trace.steps
    chunks = layout.sizes((1024, 256))[0] if layout.levels[0][0].dim == "i" else 1
    assert chunks * (128 // tile.columns[0]) >= cores


def test_few_panels_may_be_cut_for_cores_or_for_l2_alone():
    product = linear(sparse(1024, 256, 0.1), 128).product
    one, four = (Panel(product, 64, replace(TARGETS["znver4"], cores=cores)) for cores in (1, 4))
    assert one.chunk_sizes(1024, 1, 2) == {0}
    assert four.chunk_sizes(1024, 1, 2) == {0, 256}
    assert four.chunk_sizes(1 << 14, 1, 2) == {1 << 11}  # 4 MB of sums, of which half of L2 keeps an eighth


@pytest.mark.parametrize("columns, found", [(8, (8,)), (24, (24,)), (40, (40,)), (216, (64, 24)), (37, (32, 5))])
def test_what_is_left_of_columns_may_be_whole_units(columns, found):
    product = linear(sparse(64, 96, 0.2), columns).product
    v = min(4, -(-columns // 16))
    assert column_widths(product, v, TARGETS["znver4"]) == found
    assert all(width % 16 == 0 or width < 16 for width in column_widths(product, v, TARGETS["znver5"]))


def test_a_part_of_a_unit_costs_as_much_as_a_whole_one():
    product = linear(sparse(64, 96, 0.2), 40).product
    costs = {name: tiles(product, (40,), TARGETS[name]) for name in ("znver4", "znver5")}
    assert costs == {"znver4": [(1, 2.5)], "znver5": [(1, 3)]}
    assert not has_few_columns(linear(sparse(64, 96, 0.2), 8).product, TARGETS["znver4"])


@pytest.mark.parametrize("m", [2, 4, 8])
def test_copied_parts_of_filters_may_be_few_channels(m):
    product = replace(linear(sparse(64, 576, 0.2), 64).product, taps=9)
    weight, panel = Weight(np.tile(np.arange(m) < 1, (64, 576 // m))), Panel(product, 64, TARGETS["znver4"])
    parts = [cut.part for cut in find_cuts(weight, panel, 1, m, copies=True, whole=True) if cut.copy]
    assert min(parts) <= 8 * 9


def test_parts_have_more_than_one_group():
    product = linear(sparse(64, 128, 0.2), 64).product
    weight, panel = Weight(np.tile(np.arange(8) < 4, (64, 16))), Panel(product, 64, TARGETS["znver4"])
    cuts = list(find_cuts(weight, panel, 1, 8, copies=True, whole=True))
    assert min(cut.part for cut in cuts) == 16
    assert all(in_rows(cut, "dense", "dense", 8, "structured[4]") for cut in cuts)


def test_rows_that_are_left_read_the_copy_that_the_others_do():
    target = TARGETS["haswell"]

    def left(stage: bool) -> float:
        """What 5 rows cost more behind tiles of 8."""
        products = (attention(1, rows, 64, 129).product for rows in (16, 21))
        whole, more = (Prices(each, target)(_activation_nest(each, 8, stage), (16, 1)) for each in products)
        return more - whole

    assert left(stage=True) < left(stage=False), "loads from a copy are aligned, and it is made once"


# -- odd shapes ----------------------------------------------------------------------------------------------------

EXTENTS = st.sampled_from([1, 2, 3, 7, 15, 16, 17, 31, 64, 97])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    target=st.sampled_from(sorted(TARGETS)),
    cores=st.sampled_from([1, 2, 32]),
    rows=EXTENTS,
    depth=EXTENTS,
    columns=EXTENTS,
    batch=st.sampled_from([1, 3]),
    symbolic=st.sets(st.sampled_from(["batch", "columns"])),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_any_shape_has_a_schedule(target, cores, rows, depth, columns, batch, symbolic, density):
    case = linear(sparse(rows, depth, density), columns, batch, "bias and relu", symbolic=tuple(symbolic))
    _is_sound(proposed(case, replace(TARGETS[target], cores=cores)), TARGETS[target])


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    target=st.sampled_from(sorted(TARGETS)),
    extents=st.tuples(st.sampled_from([1, 3]), EXTENTS, EXTENTS, EXTENTS),
    symbolic=st.sets(st.sampled_from(["batch", "rows", "depth", "columns"])),
)
def test_any_activation_has_a_schedule(target, extents, symbolic):
    _is_sound(proposed(attention(*extents, symbolic=tuple(symbolic)), TARGETS[target]), TARGETS[target])


def _is_sound(proposal: Proposal, target: Target) -> None:
    for seconds in (proposal.seconds, proposal.dense_seconds):
        assert 0 < seconds < math.inf
    assert proposal.seconds <= proposal.dense_seconds
    product, tile = proposal.product, proposal.trace.steps[0]
    kernel = build_kernel(product, tile.tiling(product.columns, product.rows))
    lower(kernel)
    block = tile.rows or (_rows_of(proposal),)
    vectors = -(-tile.columns[0] // target.lanes("float32"))
    assert max(block) * vectors + vectors + 1 <= target.vector_registers


def _rows_of(proposal: Proposal) -> int:
    """How many rows the dense levels inside the depth loops hold."""
    levels = proposal.product.layout.levels
    last = max(n for n, (digit, _) in enumerate(levels) if digit.dim == "k")
    return math.prod(digit.size for digit, _ in levels[last + 1 :])


# -- what is chosen, compiled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(
    ("shape", "density", "batch"),
    [
        ((64, 256, 128), 0.1, 1),
        ((97, 31, 37), 0.1, 1),
        ((31, 97, 17), 0.3, 2),
        ((64, 64, 16), 1.0, 1),
        ((17, 64, 3), 0.2, 1),
        ((40, 200, 1), 0.1, 3),
        ((40, 64, 1), 1.0, 1),
        ((1, 64, 50), 0.2, 1),
        ((50, 1, 50), 0.5, 1),
        ((13, 17, 19), 0.0, 1),
    ],
    ids=str,
)
def test_proposals_compute_what_numpy_does(shape, density, batch, cores):
    rows, depth, columns = shape
    case = linear(sparse(rows, depth, density), columns, batch, "bias and relu")
    proposal = proposed(case, replace(NATIVE, cores=cores))
    check(replace(case, product=proposal.product), proposal.trace)


@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("name", ["x86-64-v2", "haswell"])
def test_proposals_for_narrower_vectors(name, density):
    if not TARGETS[name].isa <= NATIVE.isa:
        pytest.skip(f"this machine cannot run code for {name}")
    for columns, symbolic in [(37, ()), (50, ("columns",))]:
        case = linear(sparse(24, 32, density), columns, 1, "bias and relu", symbolic=symbolic)
        proposal = proposed(case, TARGETS[name])
        scheduled = proposal.trace.apply(proposal.product)
        Compiled(scheduled.lowered, scheduled.func, TARGETS[name]).agrees(case)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_proposals_for_symbolic_columns(density):
    """One kernel for every batch and every number of columns."""
    cases = [
        linear(sparse(24, 32, density), columns, batch, "scale and bias", symbolic=("batch", "columns"))
        for batch, columns in [(1, 1), (2, 5), (1, 16), (1, 130)]
    ]
    proposal = proposed(cases[0], NATIVE)
    scheduled = proposal.trace.apply(proposal.product)
    run = Compiled(scheduled.lowered, scheduled.func)
    for case in cases:
        case.agrees(interpreted(scheduled.kernel, case))
        run.agrees(case)


@pytest.mark.parametrize("symbolic", [(), ("rows", "columns")], ids=str)
def test_proposals_for_activations(symbolic):
    case = attention(2, 19, 8, 33, True, symbolic=symbolic)
    proposal = proposed(case, NATIVE)
    check(replace(case, product=proposal.product), proposal.trace)


def test_rows_that_meet_in_few_sets_of_the_cache_are_copied():
    def stages(columns):
        return proposed(attention(12, 128, 128, columns, True), TARGETS["haswell"]).trace.steps[0].stage

    assert stages(128), "rows 512 bytes apart start in eight sets"
    assert not stages(144), "rows 576 bytes apart start in any"


@pytest.mark.parametrize("name", ["haswell", "znver4", "znver5", "neoverse-v1"])
@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("shape", [(256, 256, 128), (64, 576, 3136), (128, 64, 49)], ids=str)
def test_sums_stay_in_registers(name, density, shape):
    rows, depth, columns = shape
    target = TARGETS[name]
    case = linear(sparse(rows, depth, density), columns, 1, "bias and relu")
    found = [proposal for (proposal,) in contenders(case.product, case.arrays["W"], target).values()]
    by_loops = [proposal for proposal in found if not proposal.trace.steps[0].spelled]
    proposal = min(by_loops, key=lambda proposal: proposal.seconds)
    instruction = "fmla" if target.arch == "aarch64" else "vfmadd"
    loops = inner_loops(assembly(proposal.trace.apply(proposal.product).func, target))
    loops = [loop for loop in loops if f"\t{instruction}" in loop]
    tile = _rows_of(proposal) * (proposal.trace.steps[0].columns[0] // target.lanes("float32"))
    assert any(loop.count(f"\t{instruction}") % tile == 0 for loop in loops)
    # A copied part of X for the last column alone is so small that it is on the stack; its sums are scalars.
    assert not any(spills(loop) for loop in loops if not re.search(r"vfmadd\d+ss", loop))


@pytest.mark.parametrize("target", ["haswell", "skylake-avx512", "znver4"])
@pytest.mark.parametrize(("columns", "family"), [(1, "SELL"), *((n, "bucketed rows") for n in (2, 4, 32))])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.2])
def test_entries_of_rows_stand_side_by_side_for_one_column(target, columns, family, density):
    case = linear(sparse(768, 768, density), columns)
    chosen = propose(case.product, case.arrays["W"], TARGETS[target])
    if columns == 2 and TARGETS[target].multiplies_two_lines:
        family = "SELL"  # which takes 60 µs where rows take 66, measured on Sapphire Rapids
    assert family in chosen.family


def test_slices_are_dealt_to_the_cores():
    case = linear(sparse(768, 768, 0.1), 1)
    target = replace(TARGETS["znver4"], cores=4)
    assert "alike[32, 4]" in str(propose(case.product, case.arrays["W"], target).product.weight.layout)
