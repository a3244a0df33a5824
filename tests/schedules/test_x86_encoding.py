"""Machine code that is written by NumPy: each instruction is what an assembler makes of its text.

An assembler takes the shortest of several encodings, and `x86_encoding` one of a size that does not depend on the
numbers in it. So texts say by `{disp8}`, `{disp32}` and `{vex3}` which one is meant where there is a choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen.zig import zig_cc
from sparsec.runtime.elf import _HEADER, _SECTION
from sparsec.schedules.intrinsics import x86_encoding as x86
from sparsec.schedules.intrinsics.x86_encoding import Evex, Steps

BASES = {"rax": x86.RAX, "rcx": x86.RCX, "rdx": x86.RDX, "rsi": x86.RSI, "rdi": x86.RDI}
HIGH_BASES = {"r8": x86.R8, "r9": x86.R9, "r10": x86.R10, "r11": x86.R11}
REGISTERS = (0, 7, 8, 15, 16, 23, 24, 31)  # of each eight that the bits of a prefix tell apart
SLOT = 16  # bytes that each instruction has in what is assembled; no instruction is longer
Instructions = Iterator[tuple[str, bytes]]


def assembled(lines: Sequence[str], folder: Path) -> list[bytes]:
    """What an assembler makes of each line, followed by `int3` up to a whole slot."""
    text = "".join(f".balign {SLOT}, 0xcc\n{line}\n" for line in (*lines, "int3"))
    (folder / "code.S").write_text(f".intel_syntax noprefix\n.text\n{text}")
    flags = ["-c", "-mcpu=skylake_avx512", "-o", "code.o", "code.S"]
    done = zig_cc("x86_64-linux-gnu", flags, folder)
    assert not done.returncode, done.stderr
    code = section(".text", (folder / "code.o").read_bytes())
    return [code[SLOT * n : SLOT * (n + 1)] for n in range(len(lines))]


def section(name: str, data: bytes) -> bytes:
    """The contents of a section of an object file."""
    header = _HEADER.unpack_from(data)
    table = [_SECTION.unpack_from(data, header[6] + n * _SECTION.size) for n in range(header[12])]
    names = table[header[13]][4]
    (found,) = [row for row in table if data[names + row[0] :].startswith(name.encode() + b"\0")]
    return data[found[4] : found[4] + found[5]]


def one(steps: Steps) -> bytes:
    """The code of a single place."""
    code, (size,) = steps
    return code[0, :size].tobytes()


def displacements(unit: int) -> Iterator[tuple[int, str]]:
    """What lies in reach of a byte, at its borders and beyond, and the prefix that an assembler needs for it."""
    yield 0, "{disp8} "  # or it leaves zero out
    for units in (1, -1, 127, -128, 128, -129, 1000):
        yield units * unit, ""
    if unit > 1:
        yield from ((displacement, "") for displacement in (1, -1, unit - 1, 127 * unit + 1, -128 * unit + 1))
    yield from ((displacement, "") for displacement in (2**31 - 1, -(2**31)))


# -- each instruction, and its text --------------------------------------------------------------------------------


def in_memory(text: str, instruction: Evex, others: Sequence[int] = (0,), mask: int = 0) -> Instructions:
    """An instruction on registers and memory; a text may name `r` and `o`, registers, and `m`, an address."""
    for register, other in product(REGISTERS, others):
        for displacement, prefix in displacements(instruction.loads):
            code = one(instruction.at(register, other, x86.RSI, displacement, mask))
            yield prefix + text.format(r=register, o=other, m=f"[rsi + {displacement}]"), code
    for (name, base), (displacement, prefix) in product((BASES | HIGH_BASES).items(), displacements(instruction.loads)):
        code = one(instruction.at(9, others[-1], base, displacement, mask))
        yield prefix + text.format(r=9, o=others[-1], m=f"[{name} + {displacement}]"), code


def in_registers(text: str, instruction: Evex, others: Sequence[int] = REGISTERS) -> Instructions:
    for register, other, third in product(REGISTERS, others, REGISTERS):
        yield text.format(r=register, o=other, t=third), one(instruction.on(register, other, third))


def masked() -> Instructions:
    for register, third, mask in product(REGISTERS, REGISTERS, range(1, 8)):
        yield f"vmovaps zmm{register} {{k{mask}}}{{z}}, zmm{third}", one(x86.MOVE.on(register, 0, third, mask))
    for mask, register in product(range(8), REGISTERS):
        yield f"vptestmd k{mask}, zmm{register}, zmm{register}", one(x86.TEST.on(mask, register, register))
        yield f"vptestmd k{mask}, zmm5, zmm{register}", one(x86.TEST.on(mask, 5, register))


def additions() -> Instructions:
    for (name, base), by in product(
        [pair for pair in BASES.items() if pair[0] != "rax"],  # which has an encoding of its own
        (128, -129, 1024, 16384, -16384, 2**31 - 1, -(2**31)),  # others are shorter
    ):
        yield f"add {name}, {by}", one(x86.advance(base, np.array([by])))


def requests() -> Instructions:
    for (name, base), displacement in product((BASES | HIGH_BASES).items(), (0, 64, -64, 127, 128, 4095, 2**31 - 1)):
        for text, to_write in (("prefetcht0", False), ("prefetchw", True)):
            line = f"{{disp32}} {text} byte ptr [{name} + {displacement}]"
            yield line, one(x86.ask(base, np.array([displacement]), to_write))


def addresses() -> Instructions:
    for register, base in product((BASES | HIGH_BASES).items(), repeat=2):
        for displacement in (0, 8, 16, 127):
            text = f"{{disp8}} mov {register[0]}, qword ptr [{base[0]} + {displacement}]"
            yield text, x86.load_address(register[1], base[1], displacement)


def masks() -> Instructions:
    for (name, base), mask, displacement in product((BASES | HIGH_BASES).items(), range(8), (0, 24, 127)):
        text = f"{{vex3}} {{disp8}} kmovw k{mask}, word ptr [{name} + {displacement}]"
        yield text, x86.load_mask(mask, base, displacement)


def constants() -> Instructions:
    for register in REGISTERS:
        yield f"vpxord zmm{register}, zmm{register}, zmm{register}", x86.constant(register, 0.0)
        for value in (1.0, 6.0, -0.5, 3.4e38, -np.inf):
            bits = int(np.float32(value).view(np.uint32))
            yield f"mov eax, {bits}\nvpbroadcastd zmm{register}, eax", x86.constant(register, value)


KINDS = {
    "load": lambda: in_memory("vmovups zmm{r}, zmmword ptr {m}", x86.LOAD),
    "store": lambda: in_memory("vmovups zmmword ptr {m}, zmm{r}", x86.STORE),
    "store in a mask": lambda: in_memory("vmovups zmmword ptr {m} {{k2}}, zmm{r}", x86.STORE, mask=2),
    "store in the last mask": lambda: in_memory("vmovups zmmword ptr {m} {{k7}}, zmm{r}", x86.STORE, mask=7),
    "broadcast": lambda: in_memory("vbroadcastss zmm{r}, dword ptr {m}", x86.BROADCAST),
    "add": lambda: in_memory("vaddps zmm{r}, zmm{o}, dword ptr {m}{{1to16}}", x86.ADD, REGISTERS),
    "multiply and add": lambda: in_memory(
        "vfmadd231ps zmm{r}, zmm{o}, dword ptr {m}{{1to16}}", x86.MULTIPLY_ADD, REGISTERS
    ),
    "maximum": lambda: in_registers("vmaxps zmm{r}, zmm{o}, zmm{t}", x86.LIMIT["max"]),
    "minimum": lambda: in_registers("vminps zmm{r}, zmm{o}, zmm{t}", x86.LIMIT["min"]),
    "clear": lambda: in_registers("vpxord zmm{r}, zmm{o}, zmm{t}", x86.CLEAR),
    "move": lambda: in_registers("vmovaps zmm{r}, zmm{t}", x86.MOVE, (0,)),
    "spread": lambda: ((f"vpbroadcastd zmm{r}, eax", one(x86.SPREAD.on(r, 0, x86.RAX))) for r in range(32)),
    "masks of moves and tests": masked,
    "add to an address": additions,
    "ask for lines": requests,
    "load an address": addresses,
    "load a mask": masks,
    "constants": constants,
    "return": lambda: iter([("vzeroupper\nret", x86.RETURN)]),
    "trap": lambda: iter([("int3", x86.TRAP)]),
}


@pytest.fixture(scope="module")
def by_assembler(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The code of every text."""
    texts = list(dict.fromkeys(text for kind in KINDS.values() for text, _ in kind()))
    return dict(zip(texts, assembled(texts, tmp_path_factory.mktemp("assembler")), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_is_what_an_assembler_makes(kind: str, by_assembler: dict[str, bytes]) -> None:
    instructions = dict(KINDS[kind]())
    wrong = {
        text: (code.hex(" "), by_assembler[text].hex(" "))
        for text, code in instructions.items()
        if code.ljust(SLOT, b"\xcc") != by_assembler[text]
    }
    assert instructions and not wrong


# -- many at once --------------------------------------------------------------------------------------------------


def test_many_instructions_are_those_one_by_one() -> None:
    rows, displacements = np.array([0, 17, 31, 4]), np.array([0, 508, 512, -516])
    code, sizes = x86.MULTIPLY_ADD.at(rows, 30, x86.RSI, displacements)
    assert sizes.tolist() == [7, 7, 10, 10]
    for n, (row, displacement) in enumerate(zip(rows, displacements, strict=True)):
        assert code[n, : sizes[n]].tobytes() == one(x86.MULTIPLY_ADD.at(row, 30, x86.RSI, displacement))


def test_nothing_is_added_to_an_address_where_there_is_nothing_to_add() -> None:
    _, sizes = x86.advance(x86.RSI, np.array([0, 1024, 0]))
    assert sizes.tolist() == [0, 7, 0]


def test_steps_are_joined_place_by_place() -> None:
    first = np.array([[1, 2], [3, 4]], np.uint8), np.array([2, 1])
    second = np.array([[5], [6]], np.uint8), np.array([0, 1])
    code, sizes = x86.joined([first, second])
    assert (code.tolist(), sizes.tolist()) == ([1, 2, 3, 6], [2, 2])


def test_numbers_are_written_from_the_lowest_byte() -> None:
    assert x86.in_bytes(np.array([1, -2, 0x01020304])).tolist() == [[1, 0, 0, 0], [254, 255, 255, 255], [4, 3, 2, 1]]
