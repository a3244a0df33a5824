"""Instructions of AArch64 do under QEMU what their semantics say, and are the instructions that they are called."""

import re

import numpy as np
import pytest
import tvm

from sparsec.codegen.artifact import build
from sparsec.codegen.lower import lower
from sparsec.schedules.intrinsics import INSTRUCTIONS
from sparsec.targets import Target
from tests import qemu
from tests.schedules.single_instructions import draw, expect, plan_of

TARGET = Target.parse("armv8.6")
NAMES = [name for name in INSTRUCTIONS if name.startswith("arm.")]


@pytest.mark.parametrize("name", NAMES)
def test_the_processor_has_it_and_the_assembly_names_it(name: str) -> None:
    instruction = INSTRUCTIONS[name]
    assert instruction.runs_on(TARGET.isa)
    plan = plan_of([instruction], TARGET)
    _, module = lower(plan.module, TARGET)
    text = tvm.get_global_func("target.build.llvm")(module, TARGET.tvm()).inspect_source("s")
    mnemonic = "zip[12]" if "interleave" in name else name.split(".")[1]
    assert re.search(rf"^\s+{mnemonic}\s+v", text, re.MULTILINE)


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    """What each instruction makes of what is drawn for it, all of them in one program."""
    instructions = [INSTRUCTIONS[name] for name in NAMES]
    operands = [operand for instruction in instructions for operand in draw(instruction)]
    return dict(zip(NAMES, qemu.run(build(plan_of(instructions, TARGET)), *operands), strict=True))


@pytest.mark.skipif(bool(qemu.missing()), reason=qemu.missing())
@pytest.mark.parametrize("name", NAMES)
def test_it_does_what_its_semantics_say(name: str, answers: dict[str, np.ndarray]) -> None:
    instruction = INSTRUCTIONS[name]
    np.testing.assert_array_equal(answers[name], expect(instruction, draw(instruction)))
