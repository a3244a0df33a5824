"""Instructions of AArch64 do under QEMU what their semantics say, and are the instructions that they are called."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import tvm

from sparsec.codegen.artifact import build
from sparsec.codegen.lower import lower
from sparsec.schedules.intrinsics import INSTRUCTIONS
from sparsec.targets import Target
from tests import qemu
from tests.schedules.single_instructions import draw, expect, plan_of

Ran = Callable[[str, str], None]
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


def operands_of_all() -> list[np.ndarray]:
    return [operand for name in NAMES for operand in draw(INSTRUCTIONS[name])]


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    """What each instruction makes of what is drawn for it, all of them in one program."""
    artifact = build(plan_of([INSTRUCTIONS[name] for name in NAMES], TARGET))
    return dict(zip(NAMES, qemu.run(artifact, *operands_of_all()), strict=True))


@pytest.mark.skipif(bool(qemu.missing()), reason=qemu.missing())
@pytest.mark.parametrize("name", NAMES)
def test_it_does_what_its_semantics_say(name: str, answers: dict[str, np.ndarray], ran: Ran) -> None:
    instruction = INSTRUCTIONS[name]
    np.testing.assert_array_equal(answers[name], expect(instruction, draw(instruction)))
    ran(name, "qemu")


@pytest.fixture(scope="module")
def emulated() -> dict[str, np.ndarray]:
    """What the loops of each instruction make of the same on this machine."""
    artifact = build(plan_of([INSTRUCTIONS[name] for name in NAMES], Target.parse("emulate:armv8.6")))
    return dict(zip(NAMES, artifact.load(threads=1)(*operands_of_all()), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_emulated(name: str, emulated: dict[str, np.ndarray], ran: Ran) -> None:
    instruction = INSTRUCTIONS[name]
    np.testing.assert_array_equal(emulated[name], expect(instruction, draw(instruction)))
    ran(name, "emulated")
