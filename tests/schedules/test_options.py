"""Every family of layouts is an option for every weight, with what it takes or why it cannot hold it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.layouts_masks import STRUCTURES
from sparsec.ir.named import CSR, sell
from sparsec.ir.notation import parse_layout, parse_storage
from sparsec.schedules.rules.families import FAMILIES
from sparsec.schedules.rules.given import propose_given
from sparsec.schedules.rules.options import NO_TILES, Option, options
from sparsec.schedules.rules.product import contenders, propose
from sparsec.schedules.rules.sparse_activations import propose_skipping
from sparsec.targets import Target
from tests.ir.product_cases import Case, linear, sparse

TARGET = Target.parse("znver5")
BLOCKS = "(i, k) -> (k : dense, i floordiv {0} : compressed, i mod {0} : dense)"


def found(case: Case) -> list[Option]:
    matrix = case.arrays["W"]
    return options(case.product, matrix, TARGET, propose(case.product, matrix, TARGET))


@pytest.mark.parametrize("density", [0.05, 1.0])
def test_the_chosen_option_is_what_is_proposed(density: float) -> None:
    case = linear(sparse(128, 96, density), 128)
    (chosen,) = [option for option in found(case) if option.chosen]
    proposal = propose(case.product, case.arrays["W"], TARGET)
    assert (chosen.family, chosen.name) == (proposal.family, proposal.name)
    assert (chosen.layout, chosen.seconds) == (str(proposal.product.layout), proposal.seconds)


def test_a_given_layout_is_the_chosen_option() -> None:
    case = linear(sparse(128, 96, 0.2), 128)
    proposal = propose_given(case.product, case.arrays["W"], CSR, TARGET)
    able = options(case.product, case.arrays["W"], TARGET, proposal)
    (chosen,) = [option for option in able if option.chosen]
    assert (chosen.name, chosen.layout, chosen.seconds) == ("given", str(CSR), proposal.seconds)
    assert {family.name for family in FAMILIES} <= {option.family for option in able}


def test_a_layout_that_was_given_by_name_is_not_refused_as_well() -> None:
    case = linear(sparse(128, 96, 0.2), 128)  # of more columns than slices are worth while for
    given = propose_given(case.product, case.arrays["W"], replace(sell(8), name="SELL:8"), TARGET)
    (slices,) = [each for each in options(case.product, case.arrays["W"], TARGET, given) if each.name == "SELL:8"]
    assert slices.chosen and slices.refusal is None and slices.layout == str(sell(8))


def test_the_quickest_comes_first() -> None:
    able = found(linear(sparse(128, 96, 0.2), 128))
    seconds = [option.seconds for option in able if not option.refusal]
    assert seconds == sorted(seconds)
    assert len({option.name for option in able}) == len(able)


def test_what_is_quicker_than_the_choice_was_not_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [f for f in FAMILIES if f.name != "spelled out"]  # which is quicker than either
    never = [replace(f, worth=lambda weight, product: False) if f.name == "bucketed rows" else f for f in others]
    for rule in ("product", "options"):
        monkeypatch.setattr(f"sparsec.schedules.rules.{rule}.FAMILIES", never)
    for density in (0.1, 0.15, 0.2, 0.24):
        able = found(linear(sparse(128, 96, density), 128))
        (chosen,) = [option for option in able if option.chosen]
        assert chosen.name != "bucketed rows" and chosen.weighed
        before = able[: able.index(chosen)]
        assert "bucketed rows" in {option.name for option in before}
        assert not any(option.weighed for option in before)


@pytest.mark.parametrize("columns", [64, 1024])
def test_bytes_are_those_of_the_arrays_that_the_kernel_takes(columns: int) -> None:
    case = linear(sparse(96, 128, 0.1), columns)
    weight, by_layout = case.arrays["W"], {option.layout: option for option in found(case)}
    wider = 0
    for name, (proposal,) in contenders(case.product, weight, TARGET, every=True).items():
        scheduled = proposal.trace.apply(proposal.product)
        parts = proposal.product.parts(weight)
        arrays = [array for part in parts for array in scheduled.pack(part, parts[part]).values()]
        option = by_layout[str(proposal.product.layout)]
        assert option.nbytes == sum(array.nbytes for array in arrays), name
        packed = parse_storage(option.layout).pack(weight, 16)
        wider += packed.nbytes < option.nbytes and name != "spelled out"  # which holds code in place of indices
        np.testing.assert_array_equal(packed.unpack(), weight)
    assert bool(wider) == (columns == 1024)


SHAPES = [(96, 144), (97, 63), (16, 36), (1, 1), (3, 130), (20, 75)]


@pytest.mark.parametrize("density", [0, 0.01, 0.1, 0.3, 0.6, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_family_is_listed_or_says_why_not(shape: tuple[int, int], density: float) -> None:
    for taps in (1, 4, 9, 25):
        if shape[1] % taps == 0:
            check_families(linear(sparse(*shape, density), 40, taps=taps))


@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_every_family_is_listed_for_every_structure(structure: str) -> None:
    make, (kept, *_) = STRUCTURES[structure]
    mask = make(np.random.default_rng(0), 32, 144, kept)
    check_families(linear(mask.astype(np.float32), 40, taps=9 if structure == "patterns" else 1))


def check_families(case: Case) -> None:
    listed = found(case)
    assert len({option.name for option in listed}) == len(listed)
    assert {option.family for option in listed} == {family.name for family in FAMILIES}
    counts = Counter(option.family for option in listed)
    for option in listed:
        assert option.refusal is None or (counts[option.family] == 1 and option.name == option.family)
        assert option.refusal != NO_TILES and option.refusal != "", option.name


def test_a_family_stands_once() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_members_of_a_family_have_names_of_their_own() -> None:
    mask = np.tile([1, 1, 1, 1, 0, 0, 0, 0], (32, 8)).astype(np.float32)
    listed = [option for option in found(linear(mask, 40)) if option.family == "N:M"]
    assert {option.name for option in listed} == {"4:8", "8:16"}
    assert all(option.refusal is None for option in listed)


def test_a_family_that_cannot_hold_the_weight_says_why() -> None:
    refused = {o.name: o for o in found(linear(sparse(96, 64, 0.3), 64)) if o.refusal}
    assert "structured[2, 4] holds 2 in each fiber, and at i" in str(refused["N:M"].refusal)
    assert refused["FKW by channel"].refusal == "there are no kernels of several taps"
    assert (refused["N:M"].layout, refused["N:M"].nbytes, refused["N:M"].chosen) == ("", 0, False)


@pytest.mark.parametrize(
    ("rows", "depth", "taps", "refusals"),
    [
        (97, 64, 1, {"4x1 blocks": "97 rows are not a multiple of 4", "4x9 blocks": "97 rows are not a multiple of 4"}),
        (96, 63, 1, {"TVW": "63 columns are not a multiple of 4", "1x9 blocks": "kernels have 1 tap, not 9"}),
        (96, 72, 9, {"1x4 blocks": "groups of 4 columns would cut kernels of 9 taps"}),
    ],
)
def test_refusals_name_what_does_not_divide(rows: int, depth: int, taps: int, refusals: dict[str, str]) -> None:
    listed = {option.name: option.refusal for option in found(linear(sparse(rows, depth, 0.3), 40, taps=taps))}
    assert {name: listed[name] for name in refusals} == refusals


def test_results_in_half_precision_take_the_tiles_of_float32() -> None:
    case = linear(sparse(96, 64, 0.2), 100)
    halves = replace(case.product, y=replace(case.product.y, dtype="bfloat16"))
    single, half = (propose_given(product, case.arrays["W"], CSR, TARGET) for product in (case.product, halves))
    assert single.trace == half.trace and single.seconds == half.seconds


def test_products_that_skip_zeros_are_priced_in_any_layout() -> None:
    """Those that the rule knows cost what it found; others cost more where they hold more."""
    case = linear(sparse(96, 64, 0.2), 64)
    weight, product = case.arrays["W"], case.product
    free = propose_skipping(product, weight, None, TARGET)
    assert propose_skipping(product, weight, free.product.layout, TARGET) == free
    order = [free.product.layout, *map(parse_layout, (BLOCKS.format(r) for r in (16, 32)))]
    seconds = [propose_skipping(product, weight, layout, TARGET).seconds for layout in order]
    assert seconds == sorted(seconds) and len(set(seconds)) == 3
    symbolic = replace(product, columns="tokens")
    assert propose_skipping(symbolic, weight, None, TARGET).seconds == 2 * free.seconds  # of 128 columns
