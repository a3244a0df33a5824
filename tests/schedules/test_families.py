"""Every family of layouts: what it holds, how often its loops run, and that its kernels compute what NumPy does."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.layouts_masks import STRUCTURES
from sparsec.graph.given_layouts import read_layout
from sparsec.ir.layout import Layout
from sparsec.report.kinds import kind_of
from sparsec.schedules.rules.cuts import Panel
from sparsec.schedules.rules.families import FAMILIES
from sparsec.schedules.rules.given import count_loops, propose_given
from sparsec.schedules.rules.product import contenders, propose
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target
from tests.ir.product_cases import Case, check, integers, linear, sparse

TARGET = Target.parse("znver5")
ONE_COLUMN = "unstructured, one column"
HOME = {  # a structure that each family is for
    "dense": "unstructured",
    "bucketed rows": "unstructured",
    "spelled out": "unstructured",
    "SELL:8": ONE_COLUMN,
    "SELL:16": ONE_COLUMN,
    "SELL:32": ONE_COLUMN,
    "2x1 blocks": "4x1 blocks",
    "4x1 blocks": "4x1 blocks",
    "8x1 blocks": "8x1 blocks",
    "1x4 blocks": "4x4 blocks",
    "4x4 blocks": "4x4 blocks",
    "8x4 blocks": "4x4 blocks",
    "1x9 blocks": "patterns",
    "4x9 blocks": "patterns",
    "8x9 blocks": "patterns",
    "tile-wise, two-sided": "tile-wise two-sided",
    "TEW": "tile-element-wise",
    "N:M": "2:4",
    "TVW": "tile-vector-wise",
    "bitmap": "unstructured",
    "FKW by channel": "patterns",
    "V:N:M": "16:2:8",
    "permuted diagonal": "diagonals",
    "combined columns": "combined columns",
}


def pruned(structure: str, rows: int = 32, depth: int = 144, columns: int = 40) -> Case:
    """A product whose weight has zeros of a structure; one of patterns has nine taps."""
    if structure == ONE_COLUMN:
        structure, columns = "unstructured", 1
    make, (kept, *_) = STRUCTURES[structure]
    weight = np.abs(integers(rows, depth)) + 1
    weight *= make(np.random.default_rng(0), rows, depth, kept)
    return linear(weight.astype(np.float32), columns, taps=9 if structure == "patterns" else 1)


def test_every_family_has_a_structure() -> None:
    assert {family.name for family in FAMILIES} == HOME.keys()


@pytest.mark.parametrize("structure", sorted({*HOME.values()}))
def test_kernels_compute_what_numpy_does(structure: str) -> None:
    # Column combining is found again by a heuristic, which needs more to go by.
    case = pruned(structure, 96, 192) if structure == "combined columns" else pruned(structure)
    found = contenders(case.product, case.arrays["W"], Target.parse("native"), every=True)
    homes = {family for family, home in HOME.items() if home == structure}
    if not Target.parse("native").has("avx512f"):
        homes -= {"spelled out"}  # no other extension has an instruction that code is written around
    assert homes <= {proposal.family for (proposal,) in found.values()}
    for (proposal,) in found.values():
        if proposal.family in homes:
            check(replace(case, product=proposal.product), proposal.trace)


@pytest.mark.parametrize("structure", [*sorted(STRUCTURES), ONE_COLUMN])
def test_loops_are_counted_as_they_run(structure: str) -> None:
    """What families count from a mask is what the stored arrays and the order of the loops say."""
    case = pruned(structure)
    weight = Weight(case.arrays["W"])
    panel = Panel(case.product, 16, TARGET)
    counted = 0
    for family in FAMILIES:
        for nest in family.nests(weight, panel):
            layout = nest.layout()
            if isinstance(layout, Layout) and not nest.scatter and nest.name != "dense":
                loops = count_loops(layout, weight.mask, TARGET, width=min(16, case.product.columns))
                assert (nest.rows, nest.steps, nest.opens) == (loops.rows, loops.steps, loops.opens), layout
                counted += 1
    assert counted


@pytest.mark.parametrize("structure", [*sorted(STRUCTURES), ONE_COLUMN])
def test_a_name_means_one_kind_of_layouts(structure: str) -> None:
    """Reports name a layout by its notation as families name it, and layouts are given by that name."""
    case = pruned(structure)
    for family in FAMILIES:
        for width in (16, 64):
            for nest in family.nests(Weight(case.arrays["W"]), Panel(case.product, width, TARGET)):
                layout = str(nest.layout())
                assert nest.name == kind_of(layout), layout
    weight = case.arrays["W"]
    for (proposal,) in contenders(case.product, weight, TARGET, every=True).values():
        given = propose_given(case.product, weight, replace(read_layout(proposal.name), name=proposal.name), TARGET)
        assert (given.name, given.product.layout) == (proposal.name, proposal.product.layout)


def test_what_is_worth_pricing_is_few() -> None:
    """Compile time does not grow by families that cannot win."""
    case = linear(sparse(64, 256, 0.1), 32)
    weight = Weight(case.arrays["W"])
    assert [family.name for family in FAMILIES if family.worth(weight, case.product)] == [
        "dense", "bucketed rows", "spelled out", "2x1 blocks", "4x1 blocks", "8x1 blocks", "N:M", "FKW by channel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("structure", "family"),
    [("tile-wise two-sided", "tile-wise, two-sided"), ("patterns", "FKW by channel"), ("8x1 blocks", "8x1 blocks")],
)
def test_families_win_at_home(structure: str, family: str) -> None:
    case = pruned(structure, 256, 288, 128)
    assert propose(case.product, case.arrays["W"], TARGET).family == family
