"""Instructions of tensor cores: the semantics as NumPy has them, and PTX that the assembler takes."""

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen.artifact import build
from sparsec.ir.instruction import Instruction
from sparsec.schedules.intrinsics import INSTRUCTIONS, cuda
from sparsec.targets import GPUS, Target
from tests.schedules.single_instructions import draw, expect, plan_of

NAMES = [name for name in INSTRUCTIONS if name.startswith("cuda.")]
EMULATED = Target.parse("emulate:sm_90")


def numpy_answer(instruction: Instruction, operands: list[np.ndarray]) -> np.ndarray:
    if not instruction.statement.accumulate:
        (x,) = operands
        return x.T if "_trans_" in instruction.name else x
    *factors, start = operands
    a, b = factors[0].astype(start.dtype), factors[-1].astype(start.dtype)
    if "_sp_" in instruction.name:
        a = expand(a, factors[1], b.shape[2])
    return start + a @ b.reshape(len(b), -1).T


def expand(a: np.ndarray, index: np.ndarray, group: int) -> np.ndarray:
    """The matrix with its zeros."""
    full = np.zeros((*a.shape[:2], group), a.dtype)
    np.put_along_axis(full, index.astype(np.int64), a, axis=2)
    return full.reshape(len(a), -1)


def operands_of(instruction: Instruction) -> list[np.ndarray]:
    operands = draw(instruction)
    if "_sp_" in instruction.name:
        random, shape = np.random.default_rng(1), operands[1].shape
        kept, group = shape[2], operands[2].shape[2]
        pairs = np.array([[p, q] for p in range(4) for q in range(p + 1, 4)]) if kept == 2 else np.array([[0], [1]])
        operands[1] = pairs[random.integers(0, len(pairs), prod(shape) // kept)].reshape(shape).astype(np.uint8)
        assert operands[1].max() == group - 1
    return operands


@pytest.mark.parametrize("name", NAMES)
def test_its_semantics_are_a_product_or_a_move(name: str) -> None:
    instruction = INSTRUCTIONS[name]
    operands = operands_of(instruction)
    wanted = numpy_answer(instruction, operands)
    np.testing.assert_array_equal(expect(instruction, operands), wanted)


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    """What each instruction makes of its operands where it is emulated, all of them in one artifact."""
    instructions = [INSTRUCTIONS[name] for name in NAMES]
    operands = [operand for instruction in instructions for operand in operands_of(instruction)]
    found = build(plan_of(instructions, EMULATED)).load(threads=1)(*operands)
    return dict(zip(NAMES, found, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_emulated(name: str, answers: dict[str, np.ndarray], ran: Callable[[str, str], None]) -> None:
    instruction = INSTRUCTIONS[name]
    np.testing.assert_array_equal(answers[name], numpy_answer(instruction, operands_of(instruction)))
    ran(name, "emulated")


@pytest.mark.parametrize("name", NAMES)
def test_its_operands_fill_registers(name: str) -> None:
    """Four registers of a lane for a and c, two for b, as PTX has it."""
    instruction = INSTRUCTIONS[name]
    count = {"a": 4, "b": 4 if "_sp_" in name else 2, "c": 4, "x": 1, "e": 1}
    if ".x2" in name:
        count["a"] = 2
    for operand in {"a", "b", "c"} & instruction.semantics.buffers.keys():
        assert instruction.pieces(operand) == count[operand]
    assert any(instruction.runs_on(gpu.isa) for gpu in GPUS.values()) == ("mma" not in name or "tf32" not in name)


def module_of(instruction: Instruction, architecture: str) -> str:
    """A kernel in PTX that loads all operands, carries out the instruction and stores what it gives."""
    (output,) = instruction.semantics.outputs
    names = [buffer.name for buffer in instruction.semantics.inputs]
    lists = {name: [f"%{name}{n}" for n in range(instruction.pieces(name))] for name in (*names, output.name)}
    lists |= {name: [f"%{name}0"] for name in ("e", "x") if name in lists}
    kind = "b32" if output.dtype != "float32" or "ldmatrix" in instruction.name else "f32"
    registers = [f".reg .b32 {', '.join(lists[name])};" for name in names]
    registers.append(f".reg .{kind} {', '.join(lists[output.name])};")
    order, loads = [r for name in names for r in lists[name]], []
    for number, register in enumerate(order):
        loads.append(f"ld.param.b32 {register}, [p+{4 * number}];")
    if instruction.statement.accumulate:
        loads += [f"ld.param.{kind} {r}, [p+{4 * (len(order) + n)}];" for n, r in enumerate(lists[output.name])]
    text = instruction.emit(*(lists[name] for name in names), lists[output.name])
    stores = [f"st.global.{kind} [%to+{4 * n}], {r};" for n, r in enumerate(lists[output.name])]
    lines = [
        ".version 8.5",
        f".target {architecture}",
        ".address_size 64",
        ".visible .entry kernel(.param .align 8 .b8 p[128], .param .u64 to) {",
        *registers,
        ".reg .u64 %to;",
        "ld.param.u64 %to, [to];",
        *loads,
        text,
        *stores,
        "ret;",
        "}",
    ]
    return "\n".join(lines) + "\n"


@cache
def no_assembler() -> str:
    return "" if shutil.which("ptxas") else "there is no ptxas; it comes with the CUDA toolkit"


@pytest.mark.skipif(bool(no_assembler()), reason=no_assembler())
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a"])
def test_the_assembler_takes_what_the_architecture_has(architecture: str, tmp_path: Path) -> None:
    def is_taken(instruction: Instruction) -> bool:
        (tmp_path / "kernel.ptx").write_text(module_of(instruction, architecture))
        command = ["ptxas", f"-arch={architecture}", "kernel.ptx", "-o", "kernel.cubin"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    isa = GPUS[architecture.rstrip("a")].isa | {"tf32"}
    wrong = [name for name in NAMES if is_taken(INSTRUCTIONS[name]) != INSTRUCTIONS[name].runs_on(isa)]
    assert not wrong


def test_the_table_is_whole() -> None:
    assert len(NAMES) == 2 * len(cuda.TYPES) + 2 * len(cuda.LOADED) + 2
