"""Spelling: nests whose walks are written as machine code, an instruction for each entry, and called as fragments."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.errors import KernelError
from sparsec.ir.emission import Emission
from sparsec.ir.footprint import Scope
from sparsec.ir.fragments import Spelled, Writer
from sparsec.ir.gather import evaluate
from sparsec.ir.instruction import INSTRUCTIONS, Instruction
from sparsec.ir.kernel import (
    Assign,
    Buffer,
    Const,
    For,
    Kernel,
    Load,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    substitute,
    walk_expressions,
)
from sparsec.ir.layout import Layout
from sparsec.ir.matcher import Refusal, match_innermost
from sparsec.ir.printer import print_statement

RUN = "sparsec_run_fragments"
"""The function of the runtime that calls fragments."""


@dataclass(frozen=True)
class SpelledNest:
    """A nest over panels, the columns of a block of rows, the rows, and lanes, around one product.

    Parameters
    ----------
    tiles : around it, by name
    """

    kernel: Kernel
    nest: For
    tiles: Mapping[str, Buffer]

    @property
    def step(self) -> Assign:
        (step,) = self.nest.body
        assert isinstance(step, Assign)
        return step

    @property
    def x(self) -> Load:
        """What is loaded of X."""
        loads = [part for part in walk_expressions(self.step.value) if isinstance(part, Load)]
        if len(loads) != 1 or Stored(self.weight.name) not in walk_expressions(self.step.value):
            raise self.refused("it does not multiply what is stored by one element of X")
        return loads[0]

    @cached_property
    def walks(self) -> tuple[Walk, Walk]:
        """Over columns, and over rows."""
        walks = [axis for axis in self.nest.axes if isinstance(axis, Walk)]
        levels = len(self.kernel.buffers[walks[0].buffer].layout.levels) if walks else 0  # type: ignore[union-attr]
        if [walk.level for walk in walks] != [levels - 2, levels - 1] or len({walk.buffer for walk in walks}) != 1:
            raise self.refused("it does not walk the last two levels of an operand")
        return walks[0], walks[1]

    @property
    def weight(self) -> Buffer:
        return self.kernel.buffers[self.walks[0].buffer]

    @property
    def layout(self) -> Layout:
        assert self.weight.layout is not None
        return self.weight.layout

    @property
    def panels(self) -> Range | None:
        """The axis over panels; None where there is one."""
        axes = [axis for axis in self.nest.axes[:-1] if isinstance(axis, Range)]
        return axes[0] if axes else None

    @property
    def count(self) -> int:
        """How many panels there are."""
        return 1 if self.panels is None else Scope({}).extent(self.panels) or 0

    def start(self, load: Load) -> Load:
        """Return the first element of an operand in the first panel, at the first depth and row."""
        return substitute(load, {name: Const(0) for name in self.inner})  # type: ignore[return-value]

    @property
    def inner(self) -> list[str]:
        """The variables of the nest, and the coordinates of the operand, by their printed names."""
        lane = self.nest.axes[-1]
        coordinates = (f"{self.weight.name}.{dim}" for dim in self.layout.dims)
        panels = [] if self.panels is None else [self.panels.var]
        return [*panels, *(walk.var for walk in self.walks), lane.var, *coordinates]

    def apart(self, load: Load, along: str) -> int:
        """Return the bytes between elements of an operand from one value of a variable of the nest to the next."""
        first, second = (self.bytes_to(load, {along: np.asarray(at)}) for at in (0, 1))
        return int(second - first)

    def offsets(self) -> np.ndarray:
        """Return the bytes from the start of a panel of X to the row of each depth, int64 [depth].

        Raises
        ------
        KernelError : where that depends on where the loops around the nest stand
        """
        rows, depth = self.weight.extents
        digit, _ = self.layout.levels[self.walks[0].level]
        depths = np.arange(self.layout.padded((rows, depth))[1])
        size = self.layout.sizes((rows, depth))[self.walks[0].level]
        at = {f"{self.weight.name}.{digit.dim}": depths, self.walks[0].var: depths // digit.divisor % size}
        found = [self.bytes_to(self.x, at, others) - self.bytes_to(self.x, {}, others) for others in (0, 1)]
        if not np.array_equal(*found):
            raise self.refused("its rows of X are not at constant distances from the first one")
        return np.broadcast_to(found[0], depths.shape).astype(np.int64)

    def bytes_to(self, load: Load, at: Mapping[str, np.ndarray], others: int = 0) -> np.ndarray:
        """Return where an operand is for some values of variables, `others` being that of all loops around."""
        buffer = self.tiles.get(load.buffer) or self.kernel.buffers[load.buffer]
        names = {part.name: others for part in walk_expressions(load) if isinstance(part, Var)}
        names |= dict.fromkeys(self.inner, 0)
        bindings = {name: np.asarray(value) for name, value in names.items()} | dict(at)
        place = np.asarray(0)
        for index, size in zip(load.indices, buffer.shape, strict=True):
            place = place * (size if isinstance(size, int) else 1) + evaluate(index, bindings)
        return place * np.dtype(buffer.dtype).itemsize

    def spelled(self, writer: Writer, passes: int) -> Spelled:
        """Return how the operand becomes code.

        Raises
        ------
        KernelError : where no code can be written for it
        """
        _, rows = self.walks
        sums_apart = self.apart(self.step.target, rows.var)
        if self.layout.sizes(self.weight.extents)[-1] > writer.sums:
            raise self.refused(f"its blocks have more than {writer.sums} rows")
        return Spelled(self.layout, self.weight.extents, self.weight.dtype, self.offsets(), sums_apart, passes, writer)

    def refused(self, reason: str) -> KernelError:
        return KernelError(
            f"Kernel {self.kernel.name}, `{print_statement(self.nest)}`: it cannot be spelled out, because {reason}."
        )


class Spelling(Emission):
    """Calls fragments for the nests that are spelled out.

    `spelled` says how an operand of such nests is packed, by name.
    """

    def __init__(self, kernel: Kernel, features: Collection[str] | None = None) -> None:
        super().__init__(kernel, features)
        self.spelled: dict[str, Spelled] = {}
        self.cleared: set[str] = set()  # tiles whose sums fragments are to start from zero
        found = [nest for nest in spelled_nests(kernel) if self.has(INSTRUCTIONS[nest.nest.instruction])]
        passes = max((nest.count for nest in found), default=0)
        for nest in found:
            writer = INSTRUCTIONS[nest.nest.instruction].writer
            assert writer is not None
            spelled = nest.spelled(writer, passes)
            if not self.spelled.setdefault(nest.weight.name, spelled).agrees(spelled):
                raise nest.refused("another nest over the operand has X or sums at other distances")
            self.gathers.pop(nest.weight.name, None)

    def body_of(self, tile: Tile) -> Sequence[Stmt]:
        """Return what a tile does but for clearing sums that nests which are spelled out clear by themselves."""
        first, *rest = tile.body
        if not rest or not isinstance(rest[0], For) or not self.is_spelled(rest[0]) or not _clears(first, tile):
            return tile.body
        self.cleared.add(tile.name)
        return rest

    def is_spelled(self, nest: For) -> bool:
        instruction = self.named(nest)
        return instruction is not None and instruction.writer is not None

    def emit(self, nest: For, instruction: Instruction) -> None:
        """Carry out a nest, by calls of fragments where its walks are spelled out."""
        if not instruction.writer:
            super().emit(nest, instruction)
            return
        match = match_innermost(nest, self.here, instruction)
        if isinstance(match, Refusal):
            raise KernelError(f"Kernel {self.kernel.name}, `{print_statement(nest)}`: {match.reason}.")
        found = SpelledNest(self.kernel, nest, {name: self.here.buffers[name] for name in self.tiles})
        if found.step.target.buffer not in self.cleared:
            raise found.refused("its sums are not cleared right before it")
        columns, _ = found.walks
        name, panels = found.weight.name, found.panels
        with self.scope() as frames:
            self.enter_block("fragments", frames)
            fiber = self.cursor(name, columns.level - 1).position if columns.level else 0
            steps = [0 if panels is None else found.apart(load, panels.var) for load in (found.x, found.step.target)]
            x, sums = (self.address(found.start(load)) for load in (found.x, found.step.target))
            arrays = (self.handles[f"{name}.{array}"] for array in ("code", "starts", "data"))
            code, starts, data = (tirx.address_of(array[0]) for array in arrays)
            values = data, np.dtype(found.weight.dtype).itemsize
            places = x, steps[0], sums, steps[1], found.count
            T.evaluate(tirx.call_extern("int32", RUN, code, starts, fiber, *values, *places))

    def address(self, load: Load) -> Any:
        handle = self.handles[load.buffer]
        return tirx.address_of(handle[tuple(self.place(load))])


def _clears(stmt: Stmt, tile: Tile) -> bool:
    """Whether a statement sets all elements of a tile to zero."""
    if not isinstance(stmt, For) or len(stmt.body) != 1:
        return False
    (clear,) = stmt.body
    if not isinstance(clear, Assign):
        return False
    whole = tuple(Range(axis.var, Const(0), Const(size)) for axis, size in zip(stmt.axes, tile.shape, strict=False))
    places = tuple(Var(axis.var) for axis in stmt.axes)
    return (clear.target, stmt.axes) == (Load(tile.name, places), whole) and clear.value in (Const(0), Const(0.0))


def spelled_nests(kernel: Kernel) -> Iterator[SpelledNest]:
    """Yield the nests of a kernel that name an instruction which fragments are written around."""

    def inside(body: Sequence[Stmt], tiles: Mapping[str, Buffer]) -> Iterator[SpelledNest]:
        for stmt in body:
            if isinstance(stmt, For) and stmt.instruction in INSTRUCTIONS and INSTRUCTIONS[stmt.instruction].writer:
                yield SpelledNest(kernel, stmt, tiles)
            elif not isinstance(stmt, Assign):
                here = {stmt.name: Buffer(stmt.name, stmt.dtype, stmt.shape)} if isinstance(stmt, Tile) else {}
                yield from inside(stmt.body, {**tiles, **here})

    return inside(kernel.body, {})
