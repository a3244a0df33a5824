"""Lowered kernels compute what the interpreter computes, and print as the golden text."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import KernelError
from sparsec.ir.interpreter import interpret
from sparsec.ir.lower import lower
from sparsec.ir.named import BITMAP, CSR, dense_blocks, fkw_by_channel
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.steps import Accumulate, Tile
from sparsec.schedules.trace import schedule_kernel
from tests.ir.kernel_texts import TEXTS
from tests.ir.layout_strategies import matrix_layouts
from tests.ir.named_layouts import depth_blocked
from tests.ir.product_cases import (
    CHOSEN,
    Compiled,
    attention,
    check,
    integers,
    linear,
    sparse,
    trace,
    widths,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "tir"


def agree(text, outputs, tolerance=0.0, **arrays):
    """Hold a kernel of text, lowered and compiled as it is, against the interpreter."""
    kernel = parse_kernel(text)
    wanted = interpret(kernel, arrays)
    lowered = lower(kernel)
    found = Compiled(lowered, lowered.func)(arrays, {name: wanted[name].shape for name in outputs})
    for name in outputs:
        np.testing.assert_allclose(found[name], wanted[name], rtol=tolerance, atol=tolerance)


# -- kernels of text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 37])
def test_gelu(n):
    agree(TEXTS["gelu"], ["Y"], 3e-6, X=integers(n) / 2)


def test_bits():
    text = """
    kernel bits(X: int8[64], mask: int32[64]) -> same: int32[64], count: int32[64]:
        for i in range(0, 64):
            same[i] = X[i] & mask[i] ^ 5
        for i in range(0, 64):
            count[i] = popcount(X[i] ^ mask[i]) + popcount(mask[i])
    """
    rng = np.random.default_rng(0)
    mask = rng.integers(-(2**31), 2**31, 64, dtype=np.int32)
    agree(text, ["same", "count"], X=rng.integers(-128, 128, 64, dtype=np.int8), mask=mask)


def test_linear_csr():
    agree(TEXTS["linear_csr"], ["Y"], W=sparse(64, 96, 0.2), X=integers(2, 3072), bias=integers(64))


@pytest.mark.parametrize(
    ("name", "shape"), [("matmul_bucketed", (20, 30)), ("matmul_row_vectors", (10, 24)), ("matmul_balanced", (12, 16))]
)
@pytest.mark.parametrize("columns", [1, 7])
def test_matmuls(name, shape, columns):
    dtype = np.float64 if name == "matmul_balanced" else np.float32
    agree(TEXTS[name], ["Y"], W=sparse(*shape, 0.3).astype(dtype), X=integers(shape[1], columns).astype(dtype))


def test_narrow_integers():
    random = np.random.default_rng(0)
    weight = np.where(random.random((16, 32)) < 0.3, random.integers(-128, 128, (16, 32)), 0).astype(np.int8)
    agree(TEXTS["matmul_int8"], ["Y"], W=weight, X=random.integers(0, 256, (32, 8)).astype(np.uint8))


def test_softmax():
    agree(TEXTS["softmax_columns"], ["Y", "total"], 1e-6, X=integers(5, 3))


def test_a_maximum_over_a_loop_has_no_lanes():
    """Vector operations on its iterations would all raise the same element at once."""
    text = """
kernel f(X: float32[5, 32]) -> Y: float32[5]:
    for i in range(0, 5):
        tile top: float32[1]:
            top[0] = 0.0
            for j in range(0, 32):
                top[0] = max(top[0], X[i, j])
            Y[i] = top[0]
"""
    x = integers(5, 32)
    scheduled = schedule_kernel(parse_kernel(text), [Accumulate("init|update|finish", 16)])
    found = Compiled(scheduled.lowered, scheduled.func)({"X": x}, {"Y": (5,)})["Y"]
    np.testing.assert_array_equal(found, x.max(axis=1))


def test_extrema_with_a_constant_keep_what_is_no_number():
    text = """
kernel f(X: float32[8]) -> Y: float32[8]:
    for i in range(0, 8):
        Y[i] = min(6.0, max(X[i], 0.0)) + max(0.0, min(X[i], 6.0))
"""
    agree(text, ["Y"], X=np.float32([np.nan, 1, -1, np.inf, -np.inf, 0, 2, 9]))


# -- products ------------------------------------------------------------------------------------------------------


def unscheduled(case, width=16, rows=()):
    """Compile a product without any step of a schedule."""
    product = case.product
    tile = Tile(widths(product.columns, width), rows)
    lowered = lower(build_kernel(product, tile.tiling(product.columns, product.rows)))
    Compiled(lowered, lowered.func).agrees(case)


@pytest.mark.parametrize("layout", CHOSEN.values(), ids=CHOSEN)
def test_chosen_layouts(layout):
    weight = sparse(13, 24, 0.3)
    weight[3] = 0
    unscheduled(linear(weight, 19, 2, "bias and relu", layout))


@settings(deadline=None, derandomize=True, max_examples=15)
@given(matrix_layouts(), st.tuples(st.integers(1, 13), st.integers(1, 13)), st.sampled_from([0.0, 0.2, 1.0]))
def test_any_layout(layout, shape, density):
    unscheduled(linear(sparse(*shape, density), 5, 1, "scale and bias", layout))


@pytest.mark.parametrize("layout", [CSR, dense_blocks(4)], ids=str)
def test_what_is_no_number_stays_in_its_row(layout):
    weight = sparse(6, 8, 0.3)
    weight[1, 2], weight[3, 4], weight[4, 5] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        case = linear(weight, 20, 1, "bias and relu", layout)
    unscheduled(case)
    assert np.isnan(case.expected.reshape(6, 20)[1]).all()
    check(case)


@pytest.mark.parametrize("transposed", [False, True])
def test_activations(transposed):
    unscheduled(attention(2, 7, 5, 19, transposed, "residual"), rows=(4, 3))


def test_a_symbol_may_be_called_as_the_depth():
    text = """
kernel f(W: float32[8, 16] @ "(i, k) -> (i : dense, k : compressed)", X: float32[16, 32], Z: float32[k])
         -> Y: float32[8, k]:
    for i in W[0]:
        for c in range(0, k):
            Y[W.i, c] = 0.0
        for q in W[1], c in range(0, k):
            Y[W.i, c] += W * X[W.k, 2 * c]
"""
    agree(text, ["Y"], W=sparse(8, 16, 0.3), X=integers(16, 32), Z=integers(9))


def test_what_does_not_verify_is_not_lowered():
    kernel = parse_kernel("kernel f(X: float32[4]) -> Y: float32[4]:\n    for i in range(0, 5):\n        Y[i] = X[i]")
    with pytest.raises(KernelError, match=re.escape("the index i of Y reaches 4")):
        lower(kernel)


WIDE = {
    "an index into X": 'X: float32[n, 65536, 32769], W: float32[4, 8] @ "(i, k) -> (i : dense, k : compressed)"',
    "an index in level1.indptr of W": 'W: float32[65536, 32768] @ "(i, k) -> (i : dense, k : compressed)"',
    "an index in level1.rank of W": 'W: float32[65536, 32768] @ "(i, k) -> (i : dense, k : bitmap)"',
    "an index in data of W": 'W: float32[65536, 32769] @ "(i, k) -> (i : dense, k : dense)"',
}


@pytest.mark.parametrize("what", WIDE)
def test_what_32_bits_could_not_lead_to_is_refused(what):
    walk = "    for i in W[0]:\n        for k in W[1]:\n            Y[W.i] = W"
    kernel = parse_kernel(f"kernel f({WIDE[what]}) -> Y: float32[65536]:\n{walk}")
    with pytest.raises(KernelError, match=rf"{what} could be \d{{10}}, .*; split the operator"):
        lower(kernel)


# -- golden text ---------------------------------------------------------------------------------------------------


FKW = fkw_by_channel(8)
SHOWN = {
    "linear_buckets": linear(sparse(12, 24, 0.3), 40, 1, "bias and relu", depth_blocked(8, 2, 4, 3)),
    "linear_panels": linear(sparse(10, 8, 1.0), 16, 2, "none", dense_blocks(4)),
    "linear_bitmap": linear(sparse(12, 24, 0.3), 16, layout=BITMAP),
    "linear_kernels": linear(FKW.holds(sparse(12, 18, 0.5) != 0).astype(np.float32), 16, layout=FKW),
    "matmul": attention(2, 8, 16, 32, True, symbolic=("batch", "columns")),
}


@pytest.mark.parametrize("stage", ["lowered", "scheduled"])
@pytest.mark.parametrize("name", SHOWN)
def test_kernels_print_as_the_golden_tir(name, stage, request):
    case = SHOWN[name]
    scheduled = trace(case, 32, (8,) if name == "matmul" else ()).apply(case.product)
    func = scheduled.lowered.func if stage == "lowered" else scheduled.func
    text = func.script() + "\n"
    path = GOLDEN / f"{name}.{stage}.py"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
