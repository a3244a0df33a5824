"""The interpreter computes what NumPy computes, over every layout."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import KernelError
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Assign, Buffer, Const, Coordinate, For, If, Kernel, Load, Range, Stored, Var, Walk, call
from sparsec.ir.named import COO, CSR, bsr
from sparsec.ir.parser import parse_kernel
from sparsec.ir.verifier import verify
from tests.ir.kernel_texts import TEXTS
from tests.ir.layout_strategies import layouts
from tests.ir.named_layouts import CSC, DENSE, bucketed, csr_kblocked, row_vectors

NAMED = [DENSE, CSR, CSC, COO, bsr(4, 2), row_vectors(4), csr_kblocked(8), bucketed(8)]


def golden(name):
    return parse_kernel(TEXTS[name])


def sparse(shape, density=0.2, seed=0, dtype=np.float32):
    random = np.random.default_rng(seed)
    values = random.integers(-8, 8, shape)  # small integers, so that float32 sums are exact in any order
    return np.where(random.random(shape) < density, values, 0).astype(dtype)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# -- any layout ----------------------------------------------------------------------------------------------------


def matmul(layout, shape, columns):
    """Y = W X, by one loop per level of W, padding left out."""
    rows, depth = shape
    i, k, v = Coordinate("W", "i"), Coordinate("W", "k"), Var("v")
    y = Load("Y", (i, v))
    update = Assign(y, Stored("W") * Load("X", (k, v)), accumulate=True)
    lanes = For((Range("v", Const(0), Var("n")),), (update,))
    inside = If(call("and", call("<", i, rows), call("<", k, depth)), (lanes,))
    clear = Assign(Load("Y", (Var("r"), v)), Const(0.0))
    weight = Buffer("W", "float32", shape, layout)
    return Kernel(
        "matmul",
        (weight, Buffer("X", "float32", (depth, columns))),
        (Buffer("Y", "float32", (rows, columns)),),
        (
            For((Range("r", Const(0), Const(rows)), Range("v", Const(0), Var("n"))), (clear,)),
            For(tuple(Walk(f"p{level}", "W", level) for level in range(len(layout.levels))), (inside,)),
        ),
    )


def check_matmul(layout, shape, density, columns, seed):
    kernel = matmul(layout, shape, "n")
    verify(kernel)
    assert parse_kernel(str(kernel)) == kernel
    weight, x = sparse(shape, density, seed), sparse((shape[1], columns), 1.0, seed + 1)
    assert np.array_equal(interpret(kernel, {"W": weight, "X": x})["Y"], weight @ x)


@settings(max_examples=60, deadline=None)
@given(
    layouts(2).filter(lambda layout: len(layout.dims) == 2),
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(1, 4),
    st.integers(0, 1000),
)
def test_a_matmul_over_any_layout_is_numpy_s(layout, shape, density, columns, seed):
    check_matmul(layout, shape, density, columns, seed)


@pytest.mark.parametrize("layout", NAMED, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (12, 16), (13, 11)], ids=str)
def test_a_matmul_over_named_layouts_is_numpy_s(layout, shape):
    check_matmul(layout, shape, 0.3, 3, 0)


# -- golden kernels ------------------------------------------------------------------------------------------------


def test_linear_csr_keeps_the_float32_sums_of_its_loops():
    weight, x, bias = sparse((64, 96)) * np.float32(0.1), normal(2, 3072), normal(64, seed=2)
    expected = np.zeros((2, 64, 32), dtype=np.float32)
    for i, k in zip(*np.nonzero(weight), strict=True):
        expected[:, i] += weight[i, k] * x.reshape(2, 96, 32)[:, k]
    expected = np.maximum(expected + bias[:, None], np.float32(0))
    start = time.perf_counter()
    found = interpret(golden("linear_csr"), {"W": CSR.pack(weight), "X": x, "bias": bias})
    assert time.perf_counter() - start < 2
    assert found.keys() == {"Y"}
    assert np.array_equal(found["Y"], expected.reshape(2, 2048))


@pytest.mark.parametrize("columns", [1, 4, 7])
@pytest.mark.parametrize(
    ("name", "shape"), [("matmul_bucketed", (20, 30)), ("matmul_row_vectors", (10, 24)), ("matmul_balanced", (12, 16))]
)
def test_golden_matmuls_over_symbolic_columns(name, shape, columns):
    dtype = np.float64 if name == "matmul_balanced" else np.float32
    weight, x = sparse(shape, dtype=dtype), sparse((shape[1], columns), 1.0, seed=3, dtype=dtype)
    assert np.array_equal(interpret(golden(name), {"W": weight, "X": x})["Y"], weight @ x)


def test_narrow_integers_multiply_in_the_type_of_the_accumulator():
    weight, x = np.full((16, 32), -128, dtype=np.int8), np.full((32, 8), 255, dtype=np.uint8)
    found = interpret(golden("matmul_int8"), {"W": weight, "X": x})["Y"]
    assert found.dtype == np.int32
    assert np.array_equal(found, np.full((16, 8), -128 * 255 * 32))


def test_softmax_of_columns():
    x = normal(5, 3)
    found = interpret(golden("softmax_columns"), {"X": x})
    exponentials = np.exp(x - x.max(axis=0))
    np.testing.assert_allclose(found["total"], exponentials.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["Y"], exponentials / exponentials.sum(axis=0), rtol=1e-6)


def test_gelu():
    x = normal(9)
    expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    np.testing.assert_allclose(interpret(golden("gelu"), {"X": x})["Y"], expected, rtol=1e-5, atol=1e-7)


# -- the meaning of single things ----------------------------------------------------------------------------------


def run(body, inputs="X: float32[4]", output="Y: float32[4]", **arrays):
    """Run a kernel of one output with the given lines as its body."""
    kernel = parse_kernel(f"kernel f({inputs}) -> {output}:\n" + "\n".join(f"    {line}" for line in body.split("\n")))
    return interpret(kernel, arrays)["Y"]


X = np.array([-2.0, -0.5, 0.25, 3.0], dtype=np.float32)
LOOP = "for i in range(0, 4):\n    "


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abs(X[i])", np.abs(X)),
        ("erf(X[i])", np.array([math.erf(x) for x in X], dtype=np.float32)),
        ("exp(X[i])", np.exp(X)),
        ("log(abs(X[i]))", np.log(np.abs(X))),
        ("max(X[i], 0.1)", np.maximum(X, np.float32(0.1))),
        ("min(X[i], 0.1)", np.minimum(X, np.float32(0.1))),
        ("pow(X[i], 2.0)", X * X),
        ("rsqrt(X[i] * X[i])", 1 / np.abs(X)),
        ("select(X[i] < 0.0, X[i] * 0.5, X[i])", np.where(X < 0, X / 2, X)),
        ("select(0.0 <= X[i] and i < 3, 1.0, 0.0)", np.array([0, 0, 1, 0], dtype=np.float32)),
        ("select(i == 0, X[1], X[2])", np.array([-0.5, 0.25, 0.25, 0.25], dtype=np.float32)),
        ("sigmoid(X[i])", 1 / (1 + np.exp(-X))),
        ("sqrt(abs(X[i]))", np.sqrt(np.abs(X))),
        ("tanh(X[i])", np.tanh(X)),
        ("X[i] / 0.3", X / np.float32(0.3)),
        ("X[(i * 3 + 1) % 4]", X[[1, 0, 3, 2]]),
        ("X[(i - 4) // 2 + 2]", X[[0, 0, 1, 1]]),
    ],
)
@pytest.mark.parametrize("target", ["Y[i]", "Y[i * 1]"], ids=["abreast", "one by one"])
def test_functions_over_floats(target, value, expected):
    found = run(f"{LOOP}{target} = {value}", X=X)
    assert found.dtype == np.float32
    np.testing.assert_array_max_ulp(found, expected.astype(np.float32), maxulp=1)


@pytest.mark.parametrize("target", ["Y[i]", "Y[i * 1]"], ids=["abreast", "one by one"])
def test_integers_wrap_around_and_round_down(target):
    x = np.array([2**31 - 1, -7, -(2**31), 5], dtype=np.int32)
    with np.errstate(over="ignore"):
        for value, expected in [
            ("X[i] + 1", x + np.int32(1)),
            ("X[i] * X[i]", x * x),
            ("X[i] // 2", x // 2),
            ("X[i] % 3", x % 3),
            ("X[i] & 12 ^ i", (x & 12) ^ np.arange(4, dtype=np.int32)),
            ("popcount(X[i])", np.array([31, 30, 1, 2])),
            ("X[i] + i", x + np.arange(4, dtype=np.int32)),
            ("select(X[i] < 0, 0 - X[i], X[i])", np.abs(x)),
        ]:
            found = run(f"{LOOP}{target} = {value}", "X: int32[4]", "Y: int32[4]", X=x)
            assert np.array_equal(found, expected), value


def test_floats_round_after_every_operation():
    x = np.array([1e8], dtype=np.float32)
    assert run("Y[0] = X[0] + 1.0 - X[0]", "X: float32[1]", "Y: float32[1]", X=x).tolist() == [0.0]
    half = np.array([2048], dtype=np.float16)
    assert run("Y[0] = X[0] + 1.0", "X: float16[1]", "Y: float16[1]", X=half).tolist() == [2048.0]
    assert run("Y[0] = X[0] + 1.0", "X: float16[1]", "Y: float32[1]", X=half).tolist() == [2049.0]


def test_a_sum_whose_iterations_meet_in_one_element_is_taken_in_order():
    assert run("Y[0] = 0.0\nfor i in range(0, 4):\n    Y[0] += X[i]", output="Y: float32[1]", X=X).tolist() == [0.75]
    prefix = run("Y[0] = X[0]\nfor i in range(1, 4):\n    Y[i] = Y[i - 1] + X[i]", X=X)
    assert np.array_equal(prefix, np.cumsum(X))


def test_loops_have_steps_and_limits_that_depend_on_other_loops():
    clear = "for i in range(0, 4):\n    Y[i] = 0.0\n"
    found = run(clear + "for i in range(0, 4, 3):\n    for j in range(i, 4, 2):\n        Y[j] += X[i]", X=X)
    assert found.tolist() == [-2.0, 0.0, -2.0, 3.0]


def test_a_condition_on_the_innermost_index_leaves_the_others_alone():
    found = run("for i in range(0, 4):\n    if i < 2:\n        Y[i] = X[i + 2]", X=X)
    assert found[:2].tolist() == [0.25, 3.0]
    assert np.isnan(found[2:]).all()


def test_select_evaluates_only_the_side_that_it_takes():
    for target in ("Y[i]", "Y[i * 1]"):
        found = run(f"{LOOP}{target} = select(i < 3, X[i + 1], 0.0)", X=X)
        assert found.tolist() == [-0.5, 0.25, 3.0, 0.0]


def test_memory_that_was_not_written_shows():
    assert np.isnan(run("tile t: float32[2]:\n    t[0] = 1.0\n    Y[0] = t[1]", X=X)).all()
    found = run("Y[0] = 1", "X: float32[4]", "Y: int8[2]", X=X)
    assert found.tolist() == [1, 127]


def test_a_tile_is_new_in_every_iteration():
    tile = "for i in range(0, 4):\n    tile t: float32[2]:\n"
    found = run(f"{tile}        if i == 0:\n            t[0] = 1.0\n        Y[i] = t[0]", X=X)
    assert found[0] == 1
    assert np.isnan(found[1:]).all()


def test_dimensions_that_no_input_has_are_passed_as_symbols():
    kernel = parse_kernel("kernel f() -> Y: float32[n]:\n    for i in range(0, n):\n        Y[i] = 1.0")
    assert interpret(kernel, {}, symbols={"n": 3})["Y"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(KernelError, match="no input that tells n; pass it in symbols"):
        interpret(kernel, {})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "needs the input W"),
        ({"W": sparse((10, 24)), "X": normal(24, 3), "V": X}, "has no input V"),
        ({"W": sparse((10, 24)), "X": normal(24, 3).astype(np.float64)}, "X .* must have type float32, not float64"),
        ({"W": sparse((10, 24)), "X": normal(24)}, "X .* must have 2 dimensions, not 1"),
        ({"W": sparse((10, 24)), "X": normal(23, 3)}, "X .* has extent 23 where 24 is 24"),
        ({"W": sparse((9, 24)), "X": normal(24, 3)}, "W .* has extent 9 where 10 is 10"),
        ({"W": CSR.pack(sparse((10, 24))), "X": normal(24, 3)}, "W .* is packed as .*, but the kernel takes it"),
        ({"W": sparse((10, 24)), "X": CSR.pack(normal(24, 3))}, "X .* is packed as .*, but the kernel takes it dense"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(arrays, message):
    with pytest.raises(KernelError, match=message):
        interpret(golden("matmul_row_vectors"), arrays)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "for i in range(0, n):\n    Y[0] = X[i + 1]",
            r"fails in `Y\[0\] = X\[i \+ 1\]`: X\[i \+ 1\] has the index 4 in a",
        ),
        ("for i in range(0, n):\n    Y[i] = X[i - 1]", "has the index -1 in a dimension of extent 4"),
        ("for i in range(0, n):\n    Y[i * 2] = 1.0", r"Y\[i \* 2\] has the index 4 in a dimension of extent 4"),
        ("if X[n] < 0.0:\n    Y[0] = 1.0", r"fails in `if X\[n\] < 0.0:`"),
    ],
)
def test_an_index_that_runs_out_of_bounds_is_an_error(body, message):
    with pytest.raises(KernelError, match=message):
        run(body, "X: float32[n]", X=X)


def test_a_kernel_that_does_not_verify_is_not_run():
    with pytest.raises(KernelError, match=r"line 2, `Y.*x is not defined here"):
        run("Y[0] = x", X=X)
