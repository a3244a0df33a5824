"""Which instruction a product takes on each processor, and the layouts and tiles that feed it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.report.kinds import kind_of
from sparsec.schedules.rules.dot_prices import dot_cycles
from sparsec.schedules.rules.dots import dot_panels, dot_widths, find_dot
from sparsec.schedules.rules.options import NO_TILES, options
from sparsec.schedules.rules.product import contenders, propose
from sparsec.schedules.steps import Tensorize
from sparsec.targets import Target
from tests.ir.dot_cases import dotted, sparse_numbers
from tests.ir.product_cases import Case

ZNVER5 = Target.parse("znver5")


def case_of(
    x: str, weight: str, rows: int = 32, depth: int = 64, columns: int = 128, density: float = 1.0, taps: int = 1
) -> Case:
    return dotted(sparse_numbers(rows, depth, density, weight), columns, x=x, taps=taps)


FOUND = [
    # target, type of X and W, instruction, and its rows × columns × depths
    ("x86-64-v2", "uint8", "int8", None, None),
    ("haswell", "uint8", "int8", "x86.vpmaddwd.256", (1, 8, 2)),
    ("haswell", "int8", "int8", None, None),
    ("x86-64-v3,+avxvnni", "uint8", "int8", "x86.vpdpbusd.256", (1, 8, 4)),
    ("skylake-avx512", "uint8", "int8", "x86.vpmaddwd.512", (1, 16, 2)),
    ("cascadelake", "uint8", "int8", "x86.vpdpbusd.512", (1, 16, 4)),
    ("znver5", "uint8", "int8", "x86.vpdpbusd.512", (1, 16, 4)),
    ("znver5", "bfloat16", "bfloat16", "x86.vdpbf16ps.512", (1, 16, 2)),
    ("znver5,-avx512bf16", "bfloat16", "bfloat16", None, None),
    ("cascadelake", "bfloat16", "bfloat16", None, None),
    ("znver5", "float16", "float16", None, None),
    ("aarch64", "int8", "int8", None, None),
    ("cortex-a72", "int8", "int8", None, None),
    ("neoverse-n1", "int8", "int8", "arm.sdot.128", (1, 4, 4)),
    ("neoverse-n1", "uint8", "int8", None, None),
    ("neoverse-n1", "bfloat16", "bfloat16", None, None),
    ("armv8.6", "int8", "int8", "arm.smmla.128", (2, 2, 8)),
    ("neoverse-v1", "uint8", "int8", "arm.usdot.128", (1, 4, 4)),
    ("neoverse-v1", "bfloat16", "bfloat16", "arm.bfmmla.128", (2, 2, 4)),
    ("emulate:sm_80", "int8", "int8", "cuda.mma_s8.m16n8k32", (16, 8, 32)),
    ("emulate:sm_90", "uint8", "int8", "cuda.mma_s8u8.m16n8k32", (16, 8, 32)),
    ("emulate:sm_90", "float16", "float16", "cuda.mma_f16.m16n8k16", (16, 8, 16)),
]


@pytest.mark.parametrize(("target", "x", "weight", "instruction", "shape"), FOUND)
def test_the_instruction_of_each_processor(target, x, weight, instruction, shape):
    case = case_of(x, weight)
    dot = find_dot(case.product, Target.parse(target))
    assert (dot and dot.instruction.name) == instruction
    assert (dot and (dot.rows, dot.columns, dot.depth)) == shape
    proposal = propose(case.product, case.arrays["W"], Target.parse(target))
    named = {step.instruction for step in proposal.trace.steps if isinstance(step, Tensorize)}
    assert instruction in named if instruction else all(name.startswith("fma.") for name in named)


def test_products_of_floats_are_rounded_in_between_only_where_that_is_allowed():
    product = case_of("bfloat16", "bfloat16").product
    assert find_dot(product, ZNVER5) is not None
    assert find_dot(replace(product, rounded=False), ZNVER5) is None


@pytest.mark.parametrize(
    ("target", "x", "rows", "columns", "density", "instruction"),
    [
        ("sapphirerapids", "uint8", 256, 128, 1.0, "x86.tdpbsud.m16n16k64"),
        ("sapphirerapids", "int8", 256, 128, 1.0, "x86.tdpbssd.m16n16k64"),
        ("sapphirerapids", "uint8", 256, 128, 0.02, "x86.vpdpbusd.512"),
        ("sapphirerapids", "uint8", 15, 128, 1.0, "x86.vpdpbusd.512"),
        ("sapphirerapids", "uint8", 256, 15, 1.0, "x86.vpdpbusd.512"),
        ("sapphirerapids,-amx-int8", "uint8", 256, 128, 1.0, "x86.vpdpbusd.512"),
    ],
)
def test_registers_of_tiles_hold_sums_of_dense_products(target, x, rows, columns, density, instruction):
    case = case_of(x, "int8", rows, 256, columns, density)
    proposal = propose(case.product, case.arrays["W"], Target.parse(target))
    updates = [s.instruction for s in proposal.trace.steps if isinstance(s, Tensorize) and s.block == "update"]
    assert updates == [instruction]


@pytest.mark.parametrize(
    ("rows", "columns", "instruction"), [(1, 64, "arm.sdot.128"), (2, 1, "arm.sdot.128"), (2, 2, "arm.smmla.128")]
)
def test_blocks_of_sums_must_be_filled(rows, columns, instruction):
    dot = find_dot(case_of("int8", "int8", rows, columns=columns).product, Target.parse("armv8.6"))
    assert dot is not None and dot.instruction.name == instruction


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    target=st.sampled_from(["haswell", "cascadelake", "znver5", "neoverse-n1", "armv8.6", "emulate:sm_90"]),
    columns=st.integers(1, 400),
)
def test_tiles_cover_all_columns_and_no_more(target, columns):
    """Each is a multiple of what the instruction takes; the last ones may overlap those before them."""
    x = Target.parse(target).activations
    product = case_of(x, "int8", 16, 32, columns).product
    dot = find_dot(product, Target.parse(target))
    if dot is None:
        return
    for widest in dot_panels(dot, Target.parse(target)):
        widths = dot_widths(dot, product, widest)
        assert widths == (1,) if columns < dot.columns else all(width % dot.columns == 0 for width in widths)
    tiling = propose(product, np.ones((16, 32), np.int8), Target.parse(target)).trace.steps[0].tiling(columns, 16)
    covered = np.zeros(columns, bool)
    for start, stop, width in tiling.columns:
        for first in range(int(start.value), int(stop.value), width):
            assert first + width <= columns
            covered[first : first + width] = True
    assert covered.all()


@pytest.mark.parametrize("density", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("taps", [1, 9])
def test_few_nonzeros_are_kept_in_runs(density, taps):
    case = case_of("uint8", "int8", 64, 288, 640, density, taps)
    proposal = propose(case.product, case.arrays["W"], ZNVER5)
    assert ("compressed[4]" in str(proposal.product.layout)) == (density < 1)
    assert proposal.seconds <= proposal.dense_seconds
    if density == 1.0 and taps == 9:  # the same tap of four channels
        assert "k mod 9 : dense" in str(proposal.product.layout)


def test_contenders_are_of_dense_panels_and_of_runs():
    case = case_of("uint8", "int8", 48, 64, 128, 0.2)
    found = contenders(case.product, case.arrays["W"], ZNVER5)
    assert {"dense", "bucketed rows", "2x1 blocks", "4x1 blocks"} <= set(found)
    for name, proposals in found.items():
        for proposal in proposals:
            assert "x86.vpdpbusd.512" in proposal.trace.to_json()
            assert kind_of(str(proposal.product.layout)) == name


def test_dense_panels_are_priced_alone_where_these_alone_are_wanted(monkeypatch):
    case = case_of("uint8", "int8", 48, 64, 128, 0.05)
    every, priced = contenders(case.product, case.arrays["W"], ZNVER5), []
    monkeypatch.setattr(
        "sparsec.schedules.rules.product.dot_cycles",
        lambda dot, nest, *rest: priced.append(nest.name) or dot_cycles(dot, nest, *rest),
    )
    assert propose(case.product, case.arrays["W"], ZNVER5, only_dense=True) == every["dense"][0]
    assert set(priced) == {"dense"}


REFUSED = [
    # target, columns, density, family, refusal
    ("znver5", 128, 0.2, "bitmap", "x86.vpdpbusd takes 4 depths at once, of dense panels or runs of columns"),
    ("znver5", 128, 0.2, "8x1 blocks", "the sums of 8 rows for x86.vpdpbusd do not fit in registers"),
    ("znver5", 128, 1.0, "bucketed rows", "there are hardly any zeros"),
    ("znver5", 5, 0.2, "bucketed rows", "x86.vpdpbusd takes 16 columns at once, and there are fewer"),
    ("armv8.6", 128, 0.2, "bucketed rows", "arm.smmla takes blocks of 2 rows, at most 16 of them"),
]


@pytest.mark.parametrize(("name", "columns", "density", "family", "refusal"), REFUSED)
def test_families_without_loops_for_the_instruction_say_why(name, columns, density, family, refusal):
    target = Target.parse(name)
    case = case_of(target.activations, "int8", 48, 64, columns, density)
    proposal = propose(case.product, case.arrays["W"], target)
    listed = options(case.product, case.arrays["W"], target, proposal)
    assert [option.family for option in listed if option.chosen] == [proposal.family]
    for option in listed:
        assert (option.layout == "") == (option.refusal is not None)
        assert option.refusal != NO_TILES, option.name
    assert {option.family: option.refusal for option in listed}[family] == refusal
