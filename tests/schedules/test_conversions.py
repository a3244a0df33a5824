"""Conversions of half precision become vector instructions, one for each broadcast weight and each vector of X."""

import re

import pytest

from sparsec.ir.named import CSR, dense_blocks
from sparsec.schedules.rules.product import propose
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.halves import stored_as
from tests.ir.product_cases import Case, linear, sparse
from tests.schedules.assembly import assembly, hottest, spills

VECTORS = 4  # in a tile of columns
FMA = {"znver4": "vfmadd", "haswell": "vfmadd", "aarch64": "fmla"}
WIDEN = {  # what makes float32 of a vector of halves
    ("znver4", "float16"): r"vcvtph2ps\t.*%zmm\d+$",
    ("haswell", "float16"): r"vcvtph2ps\t.*%ymm\d+$",
    ("aarch64", "float16"): r"fcvtl2?\tv\d+\.4s",
    ("znver4", "bfloat16"): r"vpslld\t.*%zmm\d+$",
    ("haswell", "bfloat16"): r"vpslld\t.*%ymm\d+$",
    ("aarch64", "bfloat16"): r"shll2?\tv\d+\.4s",
}


def text(case: Case, target: Target) -> str:
    lanes = target.lanes("float32")
    moves = (Vectorize("init", lanes), Tensorize("update", f"fma.{lanes}"), Vectorize("finish", lanes))
    return assembly(Trace((Tile((VECTORS * lanes,)), *moves)).apply(case.product).func, target)


def count(pattern: str, loop: str) -> int:
    return sum(re.search(rf"^\t{pattern}", line) is not None for line in loop.split("\n"))


@pytest.mark.parametrize(("name", "half"), WIDEN)
def test_a_weight_is_converted_once_for_all_vectors(name, half):
    case = stored_as(linear(sparse(16, 48, 0.2), 64, layout=CSR), half, "float32", "float32")
    loop = hottest(text(case, Target.parse(name)), FMA[name])
    assert not re.search(r"\t(call|bl)\b", loop) and not spills(loop)
    weights = count(FMA[name], loop) // VECTORS
    assert weights and count(FMA[name], loop) == weights * VECTORS
    if half == "float16":
        broadcast = r"ld1r\t.*4h" if name == "aarch64" else r"vpbroadcastw\t"
        assert count(WIDEN[name, half], loop) == count(broadcast, loop) == weights
    else:  # broadcast twice into each element, of which one half is cleared
        broadcast = r"ld1r\t.*8h" if name == "aarch64" else r"vpbroadcastw\t"
        assert count(broadcast, loop) == weights
        assert count(r"(and\tv|vpandd?\t|vpblendw\t|vpunpcklwd\t)", loop) == weights


@pytest.mark.parametrize(("name", "half"), WIDEN)
def test_a_vector_of_x_is_converted_once_for_all_rows(name, half):
    rows = 4
    case = stored_as(linear(sparse(16, 48, 1.0), 64, layout=dense_blocks(rows)), "float32", half, "float32")
    loop = hottest(text(case, Target.parse(name)), FMA[name])
    assert not re.search(r"\t(call|bl)\b", loop)
    assert count(WIDEN[name, half], loop) * rows == count(FMA[name], loop) > 0


@pytest.mark.parametrize("types", [("bfloat16", "float32"), ("float32", "float16")], ids="-".join)
def test_conversions_have_a_price(types):
    case = linear(sparse(64, 96, 1.0), 64)
    matrix, target = case.arrays["W"], Target.parse("znver4")
    plain = propose(case.product, matrix, target)
    half = propose(stored_as(case, *types, "float32").product, matrix.astype(types[0]), target)
    assert plain.seconds < half.seconds < 2 * plain.seconds


@pytest.mark.parametrize("name", ["znver4", "haswell", "aarch64"])
def test_results_are_rounded_by_vectors(name):
    register = {"znver4": "%zmm", "haswell": "%ymm"}
    instruction = rf"vcvtps2ph\t\$4, {register[name]}" if name in register else r"fcvtn2?\tv"
    case = stored_as(linear(sparse(16, 48, 0.2), 64, layout=CSR), "float32", "float32", "float16")
    assert count(instruction, text(case, Target.parse(name))) >= VECTORS


@pytest.mark.parametrize("name", ["znver4", "haswell", "aarch64"])
def test_rounding_to_bfloat16_calls_nothing(name):
    case = stored_as(linear(sparse(16, 48, 0.2), 64, layout=CSR), "float32", "float32", "bfloat16")
    found = text(case, Target.parse(name))
    assert not re.search(r"\t(call|callq|bl)\t.*(trunc|extend)", found)
