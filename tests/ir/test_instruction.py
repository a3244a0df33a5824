"""Declarations of instructions, and what is none."""

import pytest

from sparsec.errors import KernelError
from sparsec.ir.instruction import INSTRUCTIONS, find_instruction, instruction, parse_semantics
from sparsec.schedules import intrinsics

assert intrinsics  # declares them

SEMANTICS = """
kernel step(a: uint8[16, 4], b: int8[16, 4]) -> c: int32[16]:
    for i in range(0, 16), j in range(0, 4):
        c[i] += a[i, j] * b[i, j]
"""


@pytest.mark.parametrize(
    ("part", "replacement"),
    [
        ("j in range(0, 4)", "j in range(1, 4)"),
        ("j in range(0, 4)", "j in range(0, 4, 2)"),
        ("i in range(0, 16), j in range(0, 4)", "i in range(0, 16), j in range(0, 4) parallel"),
        ("a: uint8[16, 4]", "a: uint8[n, 4]"),
        ("        c[i] += a[i, j] * b[i, j]", "        if j < 3:\n            c[i] += a[i, j] * b[i, j]"),
        ("        c[i] +=", "        c[i] = 0\n        c[i] +="),
    ],
)
def test_semantics_are_one_nest_of_constant_loops(part, replacement):
    assert SEMANTICS.count(part) == 1
    with pytest.raises(KernelError, match=r"Kernel step.*(does not say what an instruction computes|would all write)"):
        parse_semantics(SEMANTICS.replace(part, replacement))


def test_semantics_must_mean_something():
    with pytest.raises(KernelError, match=r"the index i of a reaches 16, outside of 0 to 15"):
        parse_semantics(SEMANTICS.replace("range(0, 16)", "range(0, 17)").replace("int32[16]", "int32[17]"))


def test_a_declaration_is_found_by_its_name_and_made_once():
    declare = instruction(SEMANTICS, name="test.step.512", features=("this", "one|other"))
    try:
        declared = declare(lambda a, b, c: c)
        assert find_instruction("test.step.512") is declared
        assert declared.family == "test.step"
        assert declared.extents == (16, 4)
        assert [declared.pieces(operand) for operand in "abc"] == [1, 1, 1]
        assert declared.runs_on(("this", "other", "more")) and declared.runs_on(("one", "this"))
        assert not declared.runs_on(("this",)) and not declared.runs_on(("one", "other"))
        with pytest.raises(KernelError, match=r"There is an instruction test\.step\.512 already"):
            declare(lambda a, b, c: c)
    finally:
        del INSTRUCTIONS["test.step.512"]


def test_what_is_not_declared_or_for_any_types_is_refused():
    with pytest.raises(KernelError, match=r"There is no instruction x86\.nothing; .* one of .*fma\.<lanes>"):
        find_instruction("x86.nothing")
    with pytest.raises(KernelError, match=r"The instruction fma\.16 is for any element types"):
        find_instruction("fma.16")
