"""Instructions: what a machine instruction computes, as a kernel, and how it is emitted.

The semantics are one nest of loops over dense buffers of constant shape, with one assignment in it, so that an
instruction can be matched against the loops of other kernels, and runs anywhere:

    @instruction(
        \"\"\"
        kernel vpdpbusd(a: uint8[16, 4], b: int8[16, 4]) -> c: int32[16]:
            for i in range(0, 16), j in range(0, 4):
                c[i] += a[i, j] * b[i, j]
        \"\"\",
        name="x86.vpdpbusd.512",
        features=("avx512vnni",),
    )
    def vpdpbusd(a, b, c):
        return tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", c, a, b)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import prod
from textwrap import dedent
from typing import Any

import numpy as np

from sparsec.errors import KernelError
from sparsec.ir.fragments import Writer
from sparsec.ir.kernel import Assign, For, Kernel, Range, Stmt
from sparsec.ir.parser import parse_kernel
from sparsec.ir.tiles import TileUnit
from sparsec.ir.verifier import verify

Emit = Callable[..., Any]


@dataclass(frozen=True)
class Instruction:
    """One machine instruction, or a short run of them that acts as one.

    Parameters
    ----------
    name : by which kernels and traces name it; what is before the last dot is its family, such as `x86.vpdpbusd`
    semantics : a kernel with one nest of constant loops from 0 and one assignment, its axes the outermost first
    features : what LLVM calls the extensions of the target that it needs, all of them; of `one|other` either
    emit : takes the operands in the order of the kernel, and last what the output holds if it is added to; returns the
        new value of the output. Each is a TIR vector of the elements in row-major order, or, where it takes more than
        a register, a list of such vectors. Of `tiles` it takes the numbers of registers that hold them, that of the
        output first, and writes the statement itself.
    bits : the size of a register, or of a row of one that holds a tile
    tiles : the unit whose registers its operands are in, where these are no vectors
    writer : writes fragments around it, for nests whose walks are spelled out; None where it is emitted in loops
    """

    name: str
    semantics: Kernel
    features: tuple[str, ...]
    emit: Emit = field(compare=False)
    bits: int = 512
    tiles: TileUnit | None = field(default=None, compare=False)
    writer: Writer | None = field(default=None, compare=False)

    @property
    def family(self) -> str:
        """What instructions that differ in their width only have in common."""
        return self.name.rpartition(".")[0]

    @property
    def nest(self) -> For:
        """The loops of the semantics."""
        (nest,) = self.semantics.body
        assert isinstance(nest, For)
        return nest

    @property
    def statement(self) -> Assign:
        """The assignment inside the loops."""
        (statement,) = self.nest.body
        assert isinstance(statement, Assign)
        return statement

    @property
    def extents(self) -> tuple[int, ...]:
        """How often each axis runs."""
        return tuple(_extent(axis) for axis in self.nest.axes)

    def pieces(self, operand: str) -> int:
        """Return how many registers an operand takes."""
        buffer = self.semantics.buffers[operand]
        bits = 8 * np.dtype(buffer.dtype).itemsize * prod(buffer.extents)
        return max(1, bits // self.bits)

    def runs_on(self, features: Collection[str]) -> bool:
        """Say whether a target with these features has it."""
        return all(not set(feature.split("|")).isdisjoint(features) for feature in self.features)


INSTRUCTIONS: dict[str, Instruction] = {}
"""All that are declared with a fixed width and types, by name."""

FAMILIES: dict[str, Callable[..., Instruction]] = {}
"""What makes the instructions that there are for any number of lanes and types of operands, by family."""


def instruction(
    semantics: str,
    *,
    name: str,
    features: tuple[str, ...] = (),
    bits: int = 512,
    tiles: TileUnit | None = None,
    writer: Writer | None = None,
) -> Callable[[Emit], Instruction]:
    """Declare an instruction by the text of its semantics; decorates what emits it.

    Raises
    ------
    KernelError : for semantics that are no nest of constant loops around an assignment, or a name that is taken
    """

    def declare(emit: Emit) -> Instruction:
        if name in INSTRUCTIONS:
            raise KernelError(f"There is an instruction {name} already; declare it once.")
        declared = Instruction(name, parse_semantics(semantics), features, emit, bits, tiles, writer)
        INSTRUCTIONS[name] = declared
        return declared

    return declare


def parse_semantics(text: str) -> Kernel:
    """Read what an instruction computes.

    Raises
    ------
    KernelError : if it is not one nest of constant loops from 0 around one assignment
    """
    kernel = parse_kernel(dedent(text).strip())
    verify(kernel)
    buffers = kernel.buffers.values()
    if not _is_nest(kernel.body) or len(kernel.outputs) != 1 or kernel.symbols or any(b.layout for b in buffers):
        raise KernelError(
            f"Kernel {kernel.name} does not say what an instruction computes: that is one nest of loops over ranges "
            "from 0 to constants, with one assignment in it, to the one output, and buffers of constant shape."
        )
    return kernel


def is_declared(name: str) -> bool:
    """Whether there is an instruction of this name, or a family that makes it."""
    family, _, lanes = name.rpartition(".")
    return name in INSTRUCTIONS or (family in FAMILIES and lanes.isdecimal())


def declared_names() -> list[str]:
    """Return the names of all instructions; of a family that makes them, `family.<lanes>`."""
    return sorted({*INSTRUCTIONS, *(f"{family}.<lanes>" for family in FAMILIES)})


def find_instruction(name: str, types: tuple[str, ...] = ()) -> Instruction:
    """Return an instruction by name, made for operands of these element types, the output last, if it is for any.

    >>> import sparsec.schedules.intrinsics
    >>> find_instruction("x86.vpdpbusd.512").extents
    (16, 4)

    Raises
    ------
    KernelError : if there is none of this name, or it is for any types and none were given
    """
    if name in INSTRUCTIONS:
        return INSTRUCTIONS[name]
    if not is_declared(name):
        known = ", ".join(declared_names())
        raise KernelError(f"There is no instruction {name}; import the module that declares it, or use one of {known}.")
    if not types:
        raise KernelError(f"The instruction {name} is for any element types; say those of its operands.")
    family, _, lanes = name.rpartition(".")
    return FAMILIES[family](int(lanes), *types)


def _is_nest(body: tuple[Stmt, ...]) -> bool:
    nest = body[0]
    if len(body) != 1 or not isinstance(nest, For) or len(nest.body) != 1 or not isinstance(nest.body[0], Assign):
        return False
    return not nest.parallel and all(isinstance(axis, Range) and _is_counted(axis) for axis in nest.axes)


def _is_counted(axis: Range) -> bool:
    return getattr(axis.start, "value", None) == 0 and hasattr(axis.stop, "value") and axis.step == 1


def _extent(axis: Any) -> int:
    return int(axis.stop.value)
