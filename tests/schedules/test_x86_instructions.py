"""Instructions of x86 do what their semantics say, on this processor or emulated, and are what they are called."""

import re

import numpy as np
import pytest
import tvm

from sparsec.codegen.artifact import build
from sparsec.codegen.lower import lower
from sparsec.ir.instruction import Instruction
from sparsec.schedules.intrinsics import INSTRUCTIONS
from sparsec.targets import Target
from tests.schedules.single_instructions import draw, expect, plan_of

NATIVE = Target.parse("native")
SERVER = Target.parse("sapphirerapids")
NAMES = [name for name in INSTRUCTIONS if name.startswith("x86.")]
HERE = [name for name in NAMES if INSTRUCTIONS[name].runs_on(NATIVE.isa)]


def extremes(instruction: Instruction) -> list[np.ndarray]:
    """Operands whose bytes are the least and the greatest, of which sums of products overflow what is too narrow."""
    random = np.random.default_rng(1)
    operands = []
    for operand in draw(instruction):
        if np.issubdtype(operand.dtype, np.integer) and operand.itemsize < 4:
            limits = np.iinfo(operand.dtype)
            least = limits.min + (operand.dtype == np.int16)  # twice the square of -2¹⁵ overflows the sum by itself
            operand = random.choice(np.array([least, limits.max], operand.dtype), operand.shape)
        operands.append(operand)
    return operands


def numpy_answer(instruction: Instruction, operands: list[np.ndarray]) -> np.ndarray:
    """What the reference manuals say, in NumPy."""
    if not instruction.statement.accumulate:
        (x,) = operands
        if "transpose" in instruction.name:
            return x.T
        if x.ndim == 1:  # the segments of vectors, by turns
            vectors = x.size * 32 // instruction.bits
            return x.reshape(vectors, -1, 4).swapaxes(0, 1).ravel()
        rows, columns = x.shape  # within each segment of 16 bytes, a part of it for each vector
        vectors = 2 * rows if instruction.name.startswith("x86.interleave2_uint8_as_int16") else rows
        if columns * x.itemsize <= 16:
            return x.T
        parts = x.reshape(rows, -1, vectors, 16 // x.itemsize // vectors)
        return parts.transpose(2, 1, 3, 0).reshape(columns, rows)
    a, b, start = operands
    if "vpopcntd" in instruction.name:
        bits = (a & b if "_and" in instruction.name else a ^ b)[:, None] >> np.arange(32, dtype=np.uint32) & 1
        return start + bits.sum(axis=1, dtype=np.uint32)
    a, b = a.astype(start.dtype), b.astype(start.dtype)
    if instruction.writer:
        return start + a * b
    if a.ndim == 3:
        return start + np.einsum("ikl,kjl->ij", a, b)
    return start + (a * b).sum(axis=1, dtype=start.dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("operands_of", [draw, extremes])
def test_its_semantics_are_those_of_the_manual(name, operands_of):
    instruction = INSTRUCTIONS[name]
    operands = operands_of(instruction)
    np.testing.assert_array_equal(expect(instruction, operands), numpy_answer(instruction, operands))


@pytest.fixture(scope="module")
def answers():
    """What each instruction makes of its operands on this machine, all of them in one artifact, and as loops."""
    found = {}
    for names, target in ((HERE, NATIVE), (NAMES, Target.parse("emulate:sapphirerapids"))):
        instructions = [INSTRUCTIONS[name] for name in names]
        session = build(plan_of(instructions, target)).load(threads=1)
        for operands_of in (draw, extremes):
            results = session(*(operand for instruction in instructions for operand in operands_of(instruction)))
            found[target.emits == NATIVE.isa, operands_of] = dict(zip(names, results, strict=True))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("operands_of", [draw, extremes])
def test_it_does_what_its_semantics_say(name, operands_of, answers, ran):
    instruction = INSTRUCTIONS[name]
    wanted = expect(instruction, operands_of(instruction))
    np.testing.assert_array_equal(answers[False, operands_of][name], wanted)
    ran(name, "emulated")
    if name in HERE:
        np.testing.assert_array_equal(answers[True, operands_of][name], wanted)
        ran(name, "hardware")


MNEMONICS = {"interleave4": "vpunpck[lh]bw", "interleave2": "vpunpck[lh](wd|bw)", "straighten4": "v(shuf|perm|insert)"}
MNEMONICS |= {"straighten2": "v(shuf|perm|insert)", "transpose": "v(punpck|shuf|perm)", "vpopcntd": "vpopcntd"}
MNEMONICS |= {"fragments": "vfmadd"}  # in loops, where no code is written around it
MNEMONICS |= {"vpmaddwd": "v(pmaddwd|pdpwssd)"}  # with VNNI, LLVM lets one instruction multiply and add


@pytest.mark.parametrize("name", NAMES)
def test_the_processor_has_it_and_the_assembly_names_it(name):
    instruction = INSTRUCTIONS[name]
    assert instruction.runs_on(SERVER.isa)
    _, module = lower(plan_of([instruction], SERVER).module, SERVER)
    text = tvm.get_global_func("target.build.llvm")(module, SERVER.tvm()).inspect_source("s")
    word = name.split(".")[1].split("_")[0]
    register = (
        "%tmm" if instruction.tiles else {64: "%xmm", 128: "%xmm", 256: "%ymm", 512: "%zmm"}[instruction.bits]
    )
    assert re.search(rf"^\s+(\{{vex\}}\s+)?{MNEMONICS.get(word, word)}\S*\s.*{register}", text, re.MULTILINE)
