"""Kernels print as the golden text, and every expression prints so that it reads back."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.kernel import (
    ARITHMETIC,
    COMPARISONS,
    Assign,
    Buffer,
    Const,
    Coordinate,
    For,
    If,
    Kernel,
    Load,
    Op,
    Range,
    Stored,
    Tile,
    Var,
    Walk,
    call,
)
from sparsec.ir.named import CSR
from sparsec.ir.parser import parse_kernel
from sparsec.ir.printer import print_expression, print_kernel
from tests.ir.kernel_texts import TEXTS
from tests.ir.named_layouts import row_vectors


def linear_csr():
    b, m, v = Var("b"), Var("m"), Var("v")
    acc, i, k = Load("acc", (v,)), Coordinate("W", "i"), Coordinate("W", "k")
    lanes = (Range("v", Const(0), Const(16)),)
    product = Stored("W") * Load("X", (b, k * 32 + m + v))
    result = call("max", acc + Load("bias", (i,)), 0.0)
    tile = Tile(
        "acc",
        "float32",
        (16,),
        (
            For(lanes, (Assign(acc, Const(0.0)),)),
            For((Walk("k", "W", 1),), (For(lanes, (Assign(acc, product, accumulate=True),)),)),
            For(lanes, (Assign(Load("Y", (b, i * 32 + m + v)), result),)),
        ),
    )
    nest = (Range("b", Const(0), Const(2)), Range("m", Const(0), Const(32), 16))
    return Kernel(
        "linear_csr",
        (
            Buffer("W", "float32", (64, 96), CSR),
            Buffer("X", "float32", (2, 3072)),
            Buffer("bias", "float32", (64,)),
        ),
        (Buffer("Y", "float32", (2, 2048)),),
        (For(nest, (For((Walk("i", "W", 0),), (tile,)),), parallel=True),),
    )


def matmul_row_vectors():
    acc, i = Load("acc", (Var("r"),)), Coordinate("W", "i")
    rows = (Walk("r", "W", 2),)
    product = Stored("W") * Load("X", (Coordinate("W", "k"), Var("c")))
    store = If(call("<", i, 10), (Assign(Load("Y", (i, Var("c"))), acc),))
    tile = Tile(
        "acc",
        "float32",
        (4,),
        (
            For(rows, (Assign(acc, Const(0.0)),)),
            For((Walk("k", "W", 1), *rows), (Assign(acc, product, accumulate=True),)),
            For(rows, (store,)),
        ),
    )
    return Kernel(
        "matmul_row_vectors",
        (Buffer("W", "float32", (10, 24), row_vectors(4)), Buffer("X", "float32", (24, "n"))),
        (Buffer("Y", "float32", (10, "n")),),
        (For((Walk("p", "W", 0), Range("c", Const(0), Var("n"))), (tile,), parallel=True),),
    )


@pytest.mark.parametrize("kernel", [linear_csr(), matmul_row_vectors()], ids=lambda kernel: kernel.name)
def test_kernels_print_as_the_golden_text(kernel):
    assert str(kernel) + "\n" == TEXTS[kernel.name]
    assert parse_kernel(str(kernel)) == kernel


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_golden_text_is_what_is_printed_again(text):
    assert print_kernel(parse_kernel(text)) + "\n" == text


def test_a_long_header_breaks_between_parameters_and_keeps_them_aligned():
    many = tuple(Buffer(f"operand_{n}", "float32", (128, "columns")) for n in range(6))
    text = str(Kernel("add", many[:4], many[4:], (Assign(Load("operand_4", ()), Const(1.0)),)))
    header = text.split("\n")[:-1]
    assert len(header) == 2
    assert all(len(line) <= 120 for line in header)
    assert [line.index("operand") for line in header] == [11, 11]
    assert parse_kernel(text).inputs == many[:4]
    assert parse_kernel(text).outputs == many[4:]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Var("a") - (Var("b") - Var("c")), "a - (b - c)"),
        (Var("a") - Var("b") - Var("c"), "a - b - c"),
        ((Var("a") + 1) * 2, "(a + 1) * 2"),
        (Var("a") * 2 // 3 % 4, "a * 2 // 3 % 4"),
        (Var("a") * (Var("b") // 3), "a * (b // 3)"),
        (Var("a") - Const(-1), "a - -1"),
        (call("and", call("<", Var("a"), 1), call("==", Var("a") + 2, 3)), "a < 1 and a + 2 == 3"),
        (call("==", call("<", Var("a"), 1), Var("b")), "(a < 1) == b"),
        (call("select", call("<=", Var("a"), 1), 1.0, -math.inf), "select(a <= 1, 1.0, -inf)"),
        (Load("X", ()), "X[]"),
        (Stored("W") * Load("X", (Coordinate("W", "k"), Var("v"))), "W * X[W.k, v]"),
        (Const(1e-05), "1e-05"),
        (Const(1e22), "1e+22"),
    ],
)
def test_expressions_have_no_parenthesis_too_many(value, text):
    assert print_expression(value) == text


names = st.sampled_from(["a", "b", "i"])
leaves = st.one_of(
    st.integers(-(2**63), 2**63).map(Const),
    st.floats(allow_nan=False).map(Const),
    names.map(Var),
    st.just(Stored("W")),
    st.builds(Coordinate, st.just("W"), names),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Op, st.sampled_from(ARITHMETIC + COMPARISONS), st.tuples(inner, inner)),
        st.builds(Op, st.sampled_from(["max", "min", "pow"]), st.tuples(inner, inner)),
        st.builds(Op, st.just("select"), st.tuples(inner, inner, inner)),
        st.builds(Load, st.sampled_from(["X", "acc"]), st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(expressions)
def test_any_expression_reads_back(value):
    weight = Buffer("W", "float32", (4, 4), CSR)
    kernel = Kernel("f", (weight,), (Buffer("Y", "float32", ()),), (Assign(Load("Y", ()), value),))
    found = parse_kernel(str(kernel))
    assert repr(found) == repr(kernel)  # values alone would call 1 and 1.0 equal


def test_not_a_number_reads_back():
    text = "kernel f() -> Y: float32[]:\n    Y[] = nan"
    kernel = parse_kernel(text)
    (assign,) = kernel.body
    assert math.isnan(assign.value.value)
    assert str(kernel) == text
