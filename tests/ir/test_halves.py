"""Half precision is for storage: loads convert, sums are float32, and what is stored is rounded once."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from sparsec.ir.interpreter import interpret
from sparsec.ir.named import COO, CSR, dense_blocks
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.types import FLOATS, HALVES, arithmetic, sums, widest
from tests.ir.halves import TYPES, stored_as
from tests.ir.product_cases import CHOSEN, Compiled, attention, check, interpreted, linear, sparse, trace

SAME = [(half,) * 3 for half in HALVES]
names = "-".join


def run(text: str, inputs: str, output: str, **arrays: np.ndarray) -> np.ndarray:
    kernel = parse_kernel(f"kernel f({inputs}) -> {output}:\n    for i in range(0, 4):\n        {text}\n")
    assert parse_kernel(str(kernel)) == kernel
    return interpret(kernel, arrays)["Y"]


@pytest.mark.parametrize("half", HALVES)
def test_what_is_stored_is_rounded_once_to_nearest_even(half):
    one = np.float32(1)
    unit = np.finfo(np.float16).eps if half == "float16" else np.float32(2**-7)
    x = np.array([one + unit / 2, one + unit * 1.5, one + unit * 0.51, np.nan], np.float32)
    found = run("Y[i] = X[i]", "X: float32[4]", f"Y: {half}[4]", X=x).astype(np.float32)
    np.testing.assert_array_equal(found, [1, 1 + 2 * unit, 1 + unit, np.nan])


@pytest.mark.parametrize("half", HALVES)
def test_arithmetic_is_float32(half):
    x = np.array([256, 2048, 1, 3], half)
    found = run("Y[i] = X[i] + 1.0 - X[i]", f"X: {half}[4]", f"Y: {half}[4]", X=x)
    np.testing.assert_array_equal(found.astype(np.float32), np.ones(4))


@pytest.mark.parametrize("half", HALVES)
def test_a_sum_in_half_precision_is_rounded_each_time(half):
    sums = "acc[0] = 4096.0", "acc[0] += X[i]", "acc[0] += X[i]", "Y[i] = acc[0]"
    text = "\n            ".join((f"tile acc: {half}[1]:", *sums))
    found = run(text, "X: float32[4]", "Y: float32[4]", X=np.full(4, 1.5, np.float32))
    np.testing.assert_array_equal(found, np.full(4, 4096.0))


@pytest.mark.parametrize("types", [*SAME, ("bfloat16", "float16", "float32")], ids=names)
@pytest.mark.parametrize("layout", CHOSEN.values(), ids=CHOSEN)
def test_every_layout_means_the_same(layout, types):
    case = stored_as(linear(sparse(13, 24, 0.3), 19, 2, "scale and bias", layout), *types)
    case.agrees(interpreted(trace(case).apply(case.product).kernel, case))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layout", [CHOSEN["buckets of blocks in chunks and parts"], dense_blocks(4)], ids=str)
def test_layouts_compile_with_weights_of_half_precision(layout, half):
    check(stored_as(linear(sparse(13, 24, 0.3), 37, 2, "residual", layout), half, "float32", "float32"))


@pytest.mark.parametrize("types", list(product(TYPES, repeat=3)), ids=names)
def test_all_types_compile_together(types):
    check(stored_as(linear(sparse(13, 24, 0.3), 37, 2, "bias and relu", CSR), *types))


@pytest.mark.parametrize("types", [*SAME, ("bfloat16", "float16", "float32")], ids=names)
@pytest.mark.parametrize("symbolic", [(), ("rows", "columns")], ids=["constant", "symbolic"])
def test_activations_as_weights(types, symbolic):
    case = stored_as(attention(2, 16, 24, 37, True, "scale and bias", symbolic), *types)
    check(case, trace(case, rows=(4, 1) if symbolic else (4,)))


@pytest.mark.parametrize("types", [("float16", "float32", "float32"), ("bfloat16",) * 3], ids=names)
@pytest.mark.parametrize("layout", [CSR, dense_blocks(4)], ids=str)
def test_any_weights_within_the_bounds_of_the_formats(layout, types):
    """Sums of n terms are off by n units of float32, which is 2⁻²⁴, and the result by one of its own type."""
    units = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
    random = np.random.default_rng(0)
    case = stored_as(linear(sparse(13, 24, 0.5), 37, 1, "none", layout), *types)
    weight = case.arrays["W"] * random.standard_normal((13, 24)).astype(types[0])
    x = random.standard_normal(case.arrays["X"].shape).astype(types[1])
    exact = weight.astype(np.float64) @ x.astype(np.float64).reshape(24, 37)
    size = np.abs(weight.astype(np.float64)) @ np.abs(x.astype(np.float64)).reshape(24, 37)
    schedule = trace(case).apply(case.product)
    arrays = {**case.arrays, "W": weight, "X": x}
    compiled = Compiled(schedule.lowered, schedule.func)(arrays, {"Y": case.expected.shape})
    for found in (interpret(schedule.kernel, arrays)["Y"], compiled["Y"]):
        error = np.abs(found.astype(np.float64).reshape(13, 37) - exact)
        assert (error <= 24 * units["float32"] * size * 1.01 + units[types[2]] * np.abs(exact)).all()


def test_types():
    assert [arithmetic(dtype) for dtype in FLOATS] == ["float32", "float32", "float32", "float64"]
    assert [sums(dtype) for dtype in ("bfloat16", "int8", "uint8", "int64")] == ["float32", "int32", "int32", "int64"]
    assert widest(["int8", "float16"]) == widest(["bfloat16", "float16"]) == "float32"
    assert widest(["int8"]) is None


SPREAD = {  # layouts whose sums do not stay in registers
    "in parts": CHOSEN["buckets in parts"],
    "in chunks and parts": CHOSEN["buckets of blocks in chunks and parts"],
    "by columns": parse_layout("(i, k) -> (k : dense, i : compressed)"),
    "of entries": COO,
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", SPREAD)
def test_sums_rest_in_float32(name, half):
    """2048 + 1 is no half, so that one more 1 would be lost if the sum were kept as one."""
    weight = np.zeros((13, 24), np.float32)
    weight[3] = 1
    case = stored_as(linear(weight, 37, 2, "bias and relu", SPREAD[name]), half, half, half)
    x = np.ones((2, 24, 37), half)
    x[:, 0], x[:, 1] = 2048, -1023
    case.arrays["X"][...] = x.reshape(2, -1)
    total = np.zeros((2, 13, 37))
    total[:, 3] = 2048 - 1023 + 22
    expected = np.maximum(total + case.arrays["bias"].astype(np.float64)[:, None], 0).astype(np.float32).astype(half)
    found = check(replace(case, expected=expected.reshape(2, -1)))
    assert "tile sums: float32[13, 32]" in str(found.kernel)


def test_integers_are_added_up_in_32_bits():
    case = linear(sparse(13, 24, 0.5), 37, 2, "none", CHOSEN["buckets in parts"])
    typed = stored_as(case, "int8", "uint8", "int32")
    typed.arrays["X"][...] = np.abs(case.arrays["X"]) + 100
    exact = case.arrays["W"] @ typed.arrays["X"].reshape(2, 24, 37).astype(np.int32)
    check(replace(typed, expected=exact.astype(np.int32).reshape(2, -1)))
