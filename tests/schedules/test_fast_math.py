"""Vectorised transcendental functions over the whole range of float32, in units of the last place."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import tvm
from scipy.special import erfc
from tvm import relax
from tvm.relax import op
from tvm.script import tirx as T

from sparsec.graph.epilogue import express
from sparsec.graph.graph import Node, Value
from sparsec.ir.named import CSR
from sparsec.ir.product import SUM
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.rules.generic import schedule
from sparsec.targets import Target
from tests.ir.product_cases import linear, sparse, trace
from tests.schedules.relax_groups import NATIVE, compiled, group, normal

_erf = np.vectorize(math.erf, otypes=["float64"])

# Every 4093rd float of either sign, what lies between, and the edges.
_BITS = np.arange(0, 0x7F800000, 4093, dtype="uint32").view("float32")
_EDGES = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 88.7, 88.8, -87.4, -103.9, -104.1, 1e-45, 3.93, 9.02])
SAMPLE = np.concatenate([_BITS, -_BITS, np.linspace(-110, 110, 40001, dtype="float32"), _EDGES])

WITH_AVX2, WITHOUT_FMA = Target.parse("x86-64-v3"), Target.parse("x86-64-v2")

FUNCTIONS = {
    "exp": (op.exp, np.exp, 1.0),
    "log": (op.log, np.log, 1.0),
    "sigmoid": (op.sigmoid, lambda x: np.exp(-np.logaddexp(0, -x)), 3.0),
    "tanh": (op.tanh, np.tanh, 5.0),
    "erf": (op.erf, _erf, 5.0),
    "rsqrt": (op.rsqrt, lambda x: 1 / np.sqrt(x), 1.5),
}


def ulps(got, exact):
    """The distance to the exact value, in the spacing of float32 there; 0 where both are the same NaN or infinity."""
    rounded = exact.astype("float32")
    spacing = np.spacing(np.abs(rounded)).astype("float64")
    same = (np.isnan(got) & np.isnan(rounded)) | (got == rounded)
    return np.where(same, 0, np.abs(got.astype("float64") - exact) / spacing)


@pytest.mark.parametrize("target", [NATIVE, WITHOUT_FMA], ids=["native", "without FMA"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_over_the_whole_range(name, target):
    if target.arch != NATIVE.arch:
        pytest.skip("code for x86-64 does not run here")
    ours, exact, bound = FUNCTIONS[name]
    (got,) = compiled(group(lambda emit, x: ours(x), SAMPLE.shape), target)([SAMPLE], SAMPLE)
    with np.errstate(all="ignore"):
        error = ulps(got, np.asarray(exact(SAMPLE.astype("float64"))))
    worst = int(np.argmax(np.nan_to_num(error, nan=np.inf)))
    assert error[worst] <= bound, f"{name}({SAMPLE[worst]}) = {got[worst]}: {error[worst]:.2f} ulp"


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.5, 2, 3, 7, -0.5, -1, -2, -3])
def test_constant_powers(exponent):
    x = np.linspace(0.1, 9, 1000, dtype="float32") * (1 if exponent % 1 else np.float32(-1))
    kernel = compiled(group(lambda emit, x: op.power(x, relax.const(exponent, "float32")), x.shape))
    assert "powf" not in kernel.assembly
    np.testing.assert_allclose(kernel([x], x)[0], x.astype("float64") ** exponent, rtol=5e-7)


def test_other_powers_are_left_to_the_library():
    x = np.linspace(0.1, 9, 100, dtype="float32")
    (got,) = compiled(group(lambda emit, x, y: op.power(x, y), x.shape, x.shape))([x, x[::-1].copy()], x)
    np.testing.assert_allclose(got, x ** x[::-1], rtol=1e-5)


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid"])
def test_saturating_functions_stay_in_range(name):
    (got,) = compiled(group(lambda emit, x: FUNCTIONS[name][0](x), SAMPLE.shape))([SAMPLE], SAMPLE)
    assert np.nanmax(np.abs(got)) <= 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_call_is_left(name):
    kernel = compiled(group(lambda emit, x: FUNCTIONS[name][0](x), (1024,)))
    assert "f@PLT" not in kernel.assembly


@pytest.mark.parametrize(
    ("target", "bound"),
    [(NATIVE, 2.5e-7), (WITH_AVX2, 2.5e-7), (WITHOUT_FMA, 3e-7)],
    ids=["native", "AVX2", "without FMA"],
)
def test_gelu_over_the_whole_range(target, bound):
    if target.arch != NATIVE.arch:
        pytest.skip("code for x86-64 does not run here")
    x = np.concatenate([np.linspace(-7, 7, 500001, dtype="float32"), SAMPLE])
    kernel = compiled(group(lambda emit, x: op.nn.gelu(x), x.shape), target)
    (got,) = kernel([x], x)
    infinite = ~np.isfinite(x)
    np.testing.assert_array_equal(got[infinite], np.where(x[infinite] > 0, np.inf, np.nan))  # C says NaN of -inf, too
    x, got = x[~infinite].astype("float64"), got[~infinite]
    error = np.abs(got - x * 0.5 * erfc(-x * 0.5**0.5)) - bound * np.abs(x)
    worst = int(np.argmax(error))
    assert error[worst] <= 1e-45, f"gelu({x[worst]}) = {got[worst]}"
    np.testing.assert_array_equal(got[x > 6], x[x > 6])
    np.testing.assert_array_equal(got[x < -6], 0)
    np.testing.assert_array_equal(np.signbit(got[x == 0]), np.signbit(x[x == 0]))
    assert "erff" not in kernel.assembly


HALF, ROOT = (relax.const(value, "float32") for value in (0.5, 0.5**0.5))
SUMS = {
    "as in an epilogue": (lambda x: HALF + op.erf(x * ROOT) * HALF, True),
    "halves in front": (lambda x: HALF * op.erf(ROOT * x) + HALF, True),
    "of a function": (lambda x: HALF + op.erf(op.tanh(op.exp(x)) * ROOT) * HALF, True),
    "of all of x": (lambda x: HALF + op.erf(x) * HALF, False),
    "of another height": (lambda x: HALF + op.erf(x * ROOT), False),
    "of tanh": (lambda x: HALF + op.tanh(x * ROOT) * HALF, False),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_normal_distribution_function_is_one_function(name):
    build, is_one = SUMS[name]
    text = schedule(group(lambda emit, x: build(x), (4, 64)), NATIVE).script()
    assert "T.erf" not in text
    assert _is_one_function(text) == is_one


def test_gelu_behind_a_product_is_one_function():
    gelu = Node("nn.gelu", [Value("x", (64,), "float32")], [Value("y", (64,), "float32")], {})
    case = linear(sparse(16, 32, 0.2), 64, layout=CSR)
    product = replace(case.product, epilogue=express(gelu, [SUM]))
    scheduled = trace(case).apply(product)
    assert "T.erf" in scheduled.func.script()
    assert _is_one_function(expand_math(scheduled.func).script())


def _is_one_function(text: str) -> bool:
    """Whether Φ is expanded in a function, which brings it between 0 and 1, rather than erf between -1 and 1."""
    return "T.erf" not in text and "< T.float32(0.0), T.float32(0.0)" in text


def test_roundings_of_bytes_are_vectors():
    def quantize(emit, x):
        return op.astype(op.clip(op.round(op.multiply(x, relax.const(3.7, "float32"))), 0, 255), "uint8")

    text = compiled(group(quantize, (64, 128)), Target.parse("znver5")).assembly
    assert re.search(r"vrndscaleps.*%zmm", text)
    assert "vpextrb" not in text


@T.prim_func(s_tir=True)
def six_vectors(x: T.Buffer((6, 8), "float32"), flag: T.Buffer((1,), "int32"), y: T.Buffer((6, 8), "float32")):
    for n in T.unroll(6):
        for v in T.vectorized(8):
            y[n, v] = T.if_then_else(flag[0] == 1, T.exp(x[n, v]), x[n, v])


@T.prim_func(s_tir=True)
def by_vector(x: T.Buffer((6, 8), "float32"), flag: T.Buffer((1,), "int32"), y: T.Buffer((6, 8), "float32")):
    for n in T.unroll(6):
        for v in T.vectorized(8):
            y[n, v] = T.if_then_else(n < flag[0], T.exp(x[n, v]), x[n, v])


@T.prim_func(s_tir=True)
def in_turn(x: T.Buffer((6, 8), "float32"), flag: T.Buffer((1,), "int32"), y: T.Buffer((6, 8), "float32")):
    for n in T.unroll(5):
        for v in T.vectorized(8):
            y[n + 1, v] = T.exp(y[n, v] * T.float32(-1)) + x[n, v]


def run(func, flag):
    """Call a function of those above, with an output that starts as ones."""
    x = normal(6, 8)
    y = tvm.runtime.tensor(np.ones_like(x))
    expanded = expand_math(func.with_attr("global_symbol", "main"))
    tvm.compile(tvm.IRModule({"main": expanded}), target=NATIVE.tvm())["main"](
        tvm.runtime.tensor(x), tvm.runtime.tensor(np.int32([flag])), y
    )
    return x, y.numpy(), expanded.script()


@pytest.mark.parametrize("flag", [0, 1])
def test_vectors_take_a_branch_together(flag):
    x, y, text = run(six_vectors, flag)
    np.testing.assert_allclose(y, np.exp(x) if flag else x, rtol=1e-6)
    assert text.count("if flag") == 1


def test_steps_are_taken_for_some_vectors_at_once():
    steps = re.findall(r"(step\d+)\[.*\] =", run(six_vectors, 1)[2])
    assert steps[:4] == ["step0", "step0", "step0", "step1"], "six vectors are two groups of three"


def test_each_vector_takes_a_branch_of_its_own():
    x, y, _ = run(by_vector, 4)
    np.testing.assert_allclose(y, np.where(np.arange(6)[:, None] < 4, np.exp(x), x), rtol=1e-6)


def test_vectors_that_read_earlier_ones_wait_for_them():
    x, y, _ = run(in_turn, 0)
    expected = np.ones_like(x)
    for n in range(5):
        expected[n + 1] = np.exp(-expected[n]) + x[n]
    np.testing.assert_allclose(y, expected, rtol=1e-5)
