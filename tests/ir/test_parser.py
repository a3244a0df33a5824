"""Text that is not a kernel is refused with its place and what was expected there."""

import random

import pytest

from sparsec.errors import KernelError
from sparsec.ir.kernel import Assign, Const, Load, Op, Stored, Var
from sparsec.ir.parser import parse_kernel
from tests.ir.kernel_texts import TEXTS

HEADER = 'kernel f(W: float32[4, 4] @ "(i, k) -> (i : dense, k : compressed)") -> Y: float32[4]:\n'


def test_a_name_alone_is_a_stored_value_if_it_is_a_parameter():
    (assign,) = parse_kernel(HEADER + "    Y[i] = W * v").body
    assert assign == Assign(Load("Y", (Var("i"),)), Op("*", (Stored("W"), Var("v"))))


def test_spaces_comments_and_blank_lines_do_not_matter():
    header = "\n# doubles\nkernel f(X:float32[n])->Y:float32[n]:  # a line\n"
    assert str(parse_kernel(f"{header}\n  for i in range(0,n):\n\n     Y[i]=(X[i]*2.0)\n\n")) == (
        "kernel f(X: float32[n]) -> Y: float32[n]:\n    for i in range(0, n):\n        Y[i] = X[i] * 2.0"
    )


def test_operators_are_read_in_python_s_order():
    (assign,) = parse_kernel(HEADER + "    Y[0] = a - b * c - d < e and f == g").body
    assert str(assign.value) == str(
        Op(
            "and",
            (
                Op("<", ((Var("a") - Var("b") * Var("c")) - Var("d"), Var("e"))),
                Op("==", (Var("f"), Var("g"))),
            ),
        )
    )


def test_a_sign_belongs_to_its_number():
    (assign,) = parse_kernel(HEADER + "    Y[0] = a -1 - -2.5").body
    assert assign.value == Var("a") - Const(1) - Const(-2.5)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "expected 'kernel', found the end of the text"),
        ("kernel for()", 1, 8, "expected the name of the kernel, found 'for'"),
        ("kernel f(X float32[3]) -> Y: float32[3]:", 1, 12, "expected ':', found 'float32'"),
        ("kernel f(X: [3]) -> Y: float32[3]:", 1, 13, "expected an element type such as float32, found '['"),
        ("kernel f(X: float32[3.5]):", 1, 21, "expected a number or the name of a dimension, found '3.5'"),
        ("kernel f(X: float32[3]:", 1, 23, "expected ',' or ')', found ':'"),
        ("kernel f(X: float32[3] @ csr):", 1, 26, "expected a layout in double quotes"),
        ('kernel f(X: float32[3] @ "(i) -> (i : sparse)"):', 1, 26, "Cannot read the layout"),
        ('kernel f(X: float32[3] @ "(i) -> (i : dense)):', 1, 26, "expected a layout in double quotes"),
        ("kernel f() -> Y: float32[3]", 1, 28, "expected ':', found the end of the text"),
        ("kernel f() -> Y: float32[3]:", 1, 29, "expected a statement on the next line, indented more"),
        ("kernel f() -> Y: float32[3]:\nY[0] = 1.0", 2, 1, "expected a statement on the next line, indented more"),
        ("kernel f() -> Y: float32[3]: Y[0] = 1.0", 1, 30, "expected a statement on the next line, indented more"),
        (HEADER + "    Y[0] = 1.0\n  Y[1] = 1.0", 3, 3, "expected a statement in the column of the ones above"),
        (HEADER + "    Y[0] = 1.0\n      Y[1] = 1.0", 3, 7, "expected a statement at column 5, as the ones above"),
        (HEADER + "    Y[0] = 1.0 Y[1] = 1.0", 2, 16, "expected an operator or the end of the line, found 'Y'"),
        (HEADER + "    Y = 1.0", 2, 7, "expected '[', found '='"),
        (HEADER + "    Y[0] -= 1.0", 2, 10, "expected '=' or '+=', found '-'"),
        (HEADER + "    Y[0] = ", 2, 12, "expected a number, a name or '(', found the end of the text"),
        (HEADER + "    Y[0] = -x", 2, 13, "write 0 - x to negate a value"),
        (HEADER + "    Y[0] = (1.0", 2, 16, "expected ')', found the end of the text"),
        (HEADER + "    Y[0] = max(1.0, 2.0", 2, 24, "expected ',' or ')', found the end of the text"),
        (HEADER + "    Y[0] = 1.0 ? 2.0", 2, 16, "expected an operator or the end of the line, found '?'"),
        (HEADER + "    Y[0] = 1 < 2 < 3", 2, 18, "expected one comparison; join two with 'and'"),
        (HEADER + "    Y[0] = W.3", 2, 14, "expected the name of a dimension, found '3'"),
        (HEADER + "    for i range(0, 4):", 2, 11, "expected 'in', found 'range'"),
        (HEADER + "    for i in 4:", 2, 14, "expected range(start, stop) or a level of a packed parameter"),
        (HEADER + "    for i in range(4):", 2, 21, "expected ',', found ')'"),
        (HEADER + "    for i in range(0, 4, n):", 2, 26, "expected a constant step, found 'n'"),
        (HEADER + "    for i in W[n]:", 2, 16, "expected the number of a level, found 'n'"),
        (HEADER + "    for i in W[0] serial:", 2, 19, "expected ':', found 'serial'"),
        (HEADER + "    for i in range(0, 4) as:", 2, 28, "expected the name of an instruction, found ':'"),
        (HEADER + "    for i in range(0, 4) as x86.:", 2, 33, "expected a part of a name, found ':'"),
        (HEADER + "    for i in range(0, 4) as fma.16 parallel:", 2, 36, "expected ':', found 'parallel'"),
        (HEADER + "    tile acc: float32[n]:", 2, 23, "expected a constant extent, found 'n'"),
        (HEADER + "    while 1:", 2, 11, "expected '[', found '1'"),
        (HEADER + "    if 1 < 2:\n    Y[0] = 1.0", 3, 5, "expected a statement on the next line, indented more"),
    ],
)
def test_text_that_is_no_kernel_is_refused(text, line, column, message):
    with pytest.raises(KernelError) as caught:
        parse_kernel(text)
    assert str(caught.value).startswith(f"Cannot read the kernel at line {line}, column {column}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_damaged_text_is_read_or_refused_but_never_crashes(text):
    generator = random.Random(0)
    refused = 0
    for _ in range(200):
        start = generator.randrange(len(text))
        damaged = text[:start] + generator.choice(["", " ", "\n", "(", "]", ":", "0", "x", '"']) + text[start + 1 :]
        try:
            kernel = parse_kernel(damaged)
        except KernelError:
            refused += 1
        else:
            assert parse_kernel(str(kernel)) == kernel
    assert refused > 100
