"""Kernels that mean something verify; each that does not is refused for its own reason, at its own line."""

from dataclasses import replace

import pytest

from sparsec.errors import KernelError
from sparsec.ir.kernel import Assign, Buffer, Const, For, Kernel, Load, Op, Range, Tile, Var
from sparsec.ir.parser import parse_kernel
from sparsec.ir.verifier import verify
from tests.ir.kernel_texts import TEXTS

KERNEL = """\
kernel f(W: float32[8, 6] @ "(i, k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : dense)",
         X: float32[6, n],
         table: int32[8], codes: int8[n]) -> Y: float32[8, n], Z: int32[n]:
    for p in W[0], c in range(0, n) parallel:
        tile acc: float32[4]:
            for r in W[2]:
                acc[r] = 0.0
            for k in W[1], r in W[2]:
                acc[r] += W * X[W.k, c]
            for r in W[2]:
                if W.i < 8:
                    Y[W.i, c] = acc[r]
    for c in range(0, n):
        Z[c] = codes[c] * 2
        for q in range(0, 4):
            Y[q * 2 + 1, c] = Y[table[q], c]
"""

# Each replaces a part of KERNEL; the line is that of the printed kernel, whose header takes two lines.
INVALID = [
    # names
    ("Y[q * 2 + 1, c] =", "V[q, c] =", 15, "V is neither a tile nor an output, so nothing can be assigned to it"),
    ("acc[r] += W", "acc[r] += y", 8, "y is not defined here"),
    ("acc[r] += W *", "acc[r] += acc *", 8, "acc is not a number"),
    ("Y[table[q], c]", "other[q]", 15, "other is not defined here"),
    ("Y[table[q], c]", "q[c]", 15, "q is not an array"),
    ("= acc[r]", "= acc[k]", 11, "k is not defined here"),
    ("for q in range(0, 4)", "for c in range(0, 4)", 14, "c is already in use; rename one of the two"),
    ("for q in range(0, 4)", "for n in range(0, 4)", 14, "n is already in use"),
    ("tile acc: float32[4]", "tile X: float32[4]", 4, "X is already in use"),
    ("codes: int8[n]", "X: int8[n]", 2, "X is already in use"),
    ("codes: int8[n]", "n: int8[n]", 1, "n is already in use"),
    # parameters
    ("X: float32[6, n]", "X: float31[6, n]", 1, "float31 is not an element type; use one of bfloat16, float16"),
    ("tile acc: float32[4]", "tile acc: f32[4]", 4, "f32 is not an element type"),
    ("X: float32[6, n]", "X: float32[0, n]", 1, "every dimension must be at least 1"),
    ("W: float32[8, 6]", "W: float32[n, 6]", 1, "a packed parameter must have a constant shape"),
    ("W: float32[8, 6]", "W: float32[8, 6, 2]", 1, "cannot hold shape (8, 6, 2)"),
    (", Z: int32[n]", ', Z: int32[4] @ "(i) -> (i : dense)"', 2, "an output cannot be packed; write to a dense one"),
    ("Z[c] = codes[c] * 2", "Y[0, c] = 1.0", 2, "nothing is ever assigned to this output"),
    # walks
    (
        "for r in W[2]:\n                acc[r] = 0.0",
        "for r in X[2]:\n                acc[r] = 0.0",
        5,
        "X has no layout",
    ),
    ("for k in W[1]", "for k in V[1]", 7, "V is not defined here"),
    ("for k in W[1]", "for k in W[3]", 7, "W has the levels 0 to 2"),
    ("for k in W[1]", "for k in W[0]", 7, "level 0 of W is already walked by a loop around this one"),
    ("for p in W[0], c in range(0, n) parallel", "for p in W[1], c in range(0, n)", 3, "before level 0; walk that one"),
    ("for k in W[1], r in W[2]", "for r in W[2]", 8, "W has no value here, because its level 1 is not walked"),
    ("Y[table[q], c]", "Y[position(W), c]", 15, "W has no value here, because its level 0 is not walked"),
    ("Y[table[q], c]", "Y[position(X), c]", 15, "X has no layout"),
    ("for k in W[1]", "for k in W[1] at 3", 7, "level 1 of W is not dense, so its coordinates must be searched for"),
    ("for k in W[1], r in W[2]", "for k in W[1], r in W[2] at 0.5", 7, "the coordinate 0.5 is not an integer"),
    ("for p in W[0], c", "for p in W[0] at 1, c", 3, "a parallel nest cannot walk a sparse level, as p does"),
    ("acc[r] = 0.0", "acc[r] = W", 6, "W has no value here, because its level 1 is not walked"),
    ("Y[table[q], c]", "W", 15, "W has no value here, because its level 0 is not walked"),
    ("acc[r] = 0.0", "acc[r] = X[W.k, c]", 6, "W.k is not known here, because level 1 is not walked"),
    ("X[W.k, c]", "X[W.j, c]", 8, "W has the dimensions i, k, not j"),
    ("X[W.k, c]", "X[Y.k, c]", 8, "Y has no layout"),
    ("acc[r] += W", "acc[r] += X", 8, "X has no layout"),
    ("acc[r] += W", "acc[r] += W[p, r]", 8, "W is packed; walk its levels and write W for the value found there"),
    # elements
    ("X[W.k, c]", "X[W.k]", 8, "X[W.k] has 1 indices, and X has 2 dimensions"),
    ("X[W.k, c]", "X[1.0, c]", 8, "the index 1.0 of X is not an integer"),
    ("X[W.k, c]", "X[acc[r], c]", 8, "the index acc[r] of X is not an integer"),
    ("Y[table[q], c]", "Y[8, c]", 15, "the index 8 of Y reaches 8, outside of 0 to 7"),
    ("Y[table[q], c]", "Y[q - 4, c]", 15, "the index q - 4 of Y reaches -4, outside of 0 to 7"),
    ("Y[q * 2 + 1, c]", "Y[q * 2 + 2, c]", 15, "the index q * 2 + 2 of Y reaches 8, outside of 0 to 7"),
    ("X[W.k, c]", "X[W.k + 1, c]", 8, "the index W.k + 1 of X reaches 6, outside of 0 to 5"),
    ("Y[table[q], c]", "select(q < 4, Y[9, c], 0.0)", 15, "the index 9 of Y reaches 9, outside of 0 to 7"),
    # assignments
    ("Y[q * 2 + 1, c] =", "X[q, c] =", 15, "X is an input, which cannot be assigned to"),
    ("Y[q * 2 + 1, c] =", "q[0] +=", 15, "q is neither a tile nor an output"),
    ("codes[c] * 2", "X[0, c]", 13, "a value of kind float cannot be assigned to Z, which is int32"),
    ("Y[table[q], c]", "table[q]", 15, "a value of kind int cannot be assigned to Y, which is float32"),
    ("Y[table[q], c]", "1", 15, "a value of kind int cannot be assigned to Y, which is float32"),
    ("Y[table[q], c]", "q < 2", 15, "a value of kind bool cannot be assigned to Y, which is float32"),
    ("W: float32[8, 6]", "W: float64[8, 6]", 8, "W is float64, which does not fit float32"),
    ("codes[c] * 2", "codes[c] * 2147483648", 13, "2147483648 does not fit int32"),
    # expressions
    ("codes[c] * 2", "codes[c] * 2.0", 13, "`codes[c] * 2.0` mixes integers and floats; write constants"),
    ("codes[c] * 2", "codes[c] / 2", 13, "`codes[c] / 2` is for floats only"),
    ("codes[c] * 2", "sqrt(codes[c])", 13, "`sqrt(codes[c])` is for floats only"),
    ("W * X[W.k, c]", "popcount(X[W.k, c])", 8, "`popcount(X[W.k, c])` is for integers only"),
    ("codes[c] * 2", "codes[c] // 0", 13, "`codes[c] // 0` divides by zero"),
    ("W * X[W.k, c]", "W // X[W.k, c]", 8, "`W // X[W.k, c]` is for integers only"),
    ("codes[c] * 2", "codes[c] + (c < 2)", 13, "use select(condition, a, b)"),
    ("codes[c] * 2", "sin(codes[c])", 13, "sin is not a function; there are abs, erf"),
    ("codes[c] * 2", "max(codes[c])", 13, "max takes 2 operands, not 1"),
    ("codes[c] * 2", "select(c, 1, 2)", 13, "the condition c must be a comparison"),
    ("codes[c] * 2", "select(c < 1 and 2, 1, 2)", 13, "the operands of `c < 1 and 2` must be comparisons"),
    ("if W.i < 8", "if W.i", 10, "the condition W.i must be a comparison"),
    ("if W.i < 8", "if W.i < 8.0", 10, "`W.i < 8.0` mixes integers and floats"),
    # loops and tiles
    ("for q in range(0, 4)", "for q in range(0, 4, 0)", 14, "the step of q must be a constant of at least 1"),
    ("for q in range(0, 4)", "for q in range(0.0, 4)", 14, "the limits of q must be integers"),
    ("tile acc: float32[4]", "tile acc: float32[0]", 4, "the shape of a tile must be constant and positive"),
    ("for q in range(0, 4)", "for q in range(0, c) parallel", 14, "must be constant or symbolic in a parallel nest"),
    ("for q in range(0, 4)", "for q in range(0, table[0]) parallel", 14, "must be constant or symbolic in a parallel"),
    ("for k in W[1], r in W[2]", "for k in W[1], r in W[2] parallel", 7, "cannot stand inside another one"),
    ("    for c in range(0, n):\n", "    for p in W[0], k in W[1] parallel:\n", 12, "cannot walk a sparse level, as k"),
    # instructions
    ("for q in range(0, 4)", "for q in range(0, n) as fma.4", 14, "an instruction takes the place of a nest of const"),
    ("c in range(0, n) parallel", "c in range(0, n) parallel as fma.4", 3, "an instruction takes the place of a nest"),
    ("for c in range(0, n):", "for c in range(0, 4) as fma.4:", 12, "nest of constant loops around one assignment"),
    ("Y[W.i, c] = acc[r]", "Y[W.i, 0] = acc[r]", 11, "iterations of the parallel axis c would all write this element"),
    (
        "    for c in range(0, n):\n",
        "    for c in range(0, n), s in range(0, 4) parallel:\n",
        13,
        "the parallel axis s would",
    ),
]


def test_the_kernel_that_the_invalid_ones_come_from_is_valid():
    verify(parse_kernel(KERNEL))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_golden_kernels_verify(text):
    verify(parse_kernel(text))


@pytest.mark.parametrize(("part", "replacement", "line", "message"), INVALID)
def test_a_kernel_without_meaning_is_refused(part, replacement, line, message):
    assert KERNEL.count(part) == 1
    kernel = parse_kernel(KERNEL.replace(part, replacement))
    with pytest.raises(KernelError) as caught:
        verify(kernel)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"Kernel f, line {line}, `")
    quoted = str(caught.value).split("`")[1]
    assert quoted in str(kernel).split("\n")[line - 1]


def kernel_of(*body):
    return Kernel("f", (), (Buffer("Y", "float32", (2,)),), body)


ASSIGN = Assign(Load("Y", (Const(0),)), Const(1.0))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (replace(kernel_of(ASSIGN), outputs=()), "a kernel needs an output to write to"),
        (replace(kernel_of(ASSIGN), name="a-b"), "'a-b' cannot be a name"),
        (kernel_of(), "there is no statement inside"),
        (kernel_of(For((), (ASSIGN,))), "a loop needs an axis"),
        (kernel_of(For((Range("i", Const(0), Const(2)),), ())), "there is no statement inside"),
        (kernel_of(For((Range("i", Const(0), Const(2), Var("n")),), (ASSIGN,))), "the step of i must be a constant"),
        (kernel_of(Tile("t", "float32", ("n",), (ASSIGN,))), "the shape of a tile must be constant and positive"),
        (kernel_of(For((Range("for", Const(0), Const(2)),), (ASSIGN,))), "'for' cannot be a name"),
        (kernel_of(For((Range("i.o", Const(0), Const(2)),), (ASSIGN,))), "'i.o' cannot be a name"),
        (kernel_of(replace(ASSIGN, value=Op("<", (Const(1.0),)))), "< takes 2 operands, not 1"),
    ],
)
def test_nodes_that_no_text_gives_are_refused(kernel, message):
    with pytest.raises(KernelError, match=r"^Kernel .*, line [12]") as caught:
        verify(kernel)
    assert message in str(caught.value)


def test_a_condition_or_a_select_guards_an_index_that_could_be_outside():
    text = "kernel f(X: float32[4]) -> Y: float32[4]:\n    for i in range(0, 4):\n        "
    verify(parse_kernel(text + "Y[i] = select(i < 3, X[i + 1], 0.0)"))
    verify(parse_kernel(text + "if i < 3:\n            Y[i] = X[i + 1]"))
    with pytest.raises(KernelError, match="reaches 4, outside of 0 to 3"):
        verify(parse_kernel(text + "Y[i] = X[i + 1]"))
