"""Nests whose walks are spelled out: what code has to know of them, read from the statements of a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from sparsec.errors import KernelError
from sparsec.ir.footprint import Scope
from sparsec.ir.fragment_ends import Ends, Whole, holds, read_whole
from sparsec.ir.fragments import Spelled, Writer, fragment_digits
from sparsec.ir.gather import evaluate
from sparsec.ir.instruction import INSTRUCTIONS
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
from sparsec.ir.printer import print_statement


@dataclass(frozen=True)
class SpelledNest:
    """A nest over panels, the columns of a block of rows, the rows, and lanes, around one product.

    Parameters
    ----------
    tiles : around it, by name
    before, after : the statements beside it, if there are any
    """

    kernel: Kernel
    nest: For
    tiles: Mapping[str, Buffer]
    before: Stmt | None
    after: Stmt | None

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
    def lanes(self) -> int:
        """The lanes of each panel whose results are stored, as bits."""
        count, first = Scope({}).extent(self.nest.axes[-1]) or 0, self.whole.first_lane if self.whole else 0
        return (1 << count) - (1 << first)

    @property
    def count(self) -> int:
        """How many panels there are."""
        return 1 if self.panels is None else Scope({}).extent(self.panels) or 0

    @property
    def row(self) -> str:
        """The variable of the rows of a block where sums are started and finished."""
        return self.before.axes[0].var if isinstance(self.before, For) else ""

    @cached_property
    def whole(self) -> Whole | None:
        """What fragments do to start and finish the sums, where the statements beside the nest are that and no more."""
        _, rows = self.walks
        sums = substitute(self.step.target, {rows.var: Var(self.row)})
        assert isinstance(sums, Load)
        whole = read_whole(self.before, self.after, sums, Var(self.row), Var(self.nest.axes[-1].var))
        return whole if whole and self.buffer(whole.y).dtype == self.buffer(sums).dtype else None

    def buffer(self, load: Load) -> Buffer:
        """Return what a load reads, an operand or a tile."""
        return self.tiles.get(load.buffer) or self.kernel.buffers[load.buffer]

    def start(self, load: Load) -> Load:
        """Return the first element of an operand in the first panel, at the first depth and row."""
        return substitute(load, {name: Const(0) for name in self.inner})  # type: ignore[return-value]

    @property
    def inner(self) -> list[str]:
        """The variables of the nest, and the coordinates of the operand, by their printed names."""
        lane = self.nest.axes[-1]
        coordinates = (f"{self.weight.name}.{dim}" for dim in self.layout.dims)
        panels = [] if self.panels is None else [self.panels.var]
        return [*panels, *(walk.var for walk in self.walks), lane.var, self.row, *coordinates]

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
        buffer = self.buffer(load)
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
        layout, shape = self.layout, self.weight.extents
        if layout.sizes(shape)[-1] > writer.sums:
            raise self.refused(f"its blocks have more than {writer.sums} rows")
        everywhere = np.ones(prod(layout.sizes(shape)[:-2]), bool)
        whole, operand, offsets = self.whole, (layout, shape, self.weight.dtype), self.offsets()
        if whole is None:
            apart = self.apart(self.step.target, self.walks[1].var)
            return Spelled(*operand, offsets, everywhere, everywhere, None, apart, passes, writer)
        ends = Ends(
            whole.of_rows is not None,
            0 if whole.of_all is None else self.apart(whole.of_all, self.row),
            whole.limits,
            whole.valid is not None,
        )
        digits = {f"p{level}": digit for level, digit in enumerate(fragment_digits(layout, shape))}
        first, last = (
            everywhere if condition is None else np.broadcast_to(holds(condition, digits), everywhere.shape)
            for condition in (whole.first, whole.last)
        )
        apart = self.apart(whole.y, self.row)
        return Spelled(*operand, offsets, first, last, ends, apart, passes, writer)

    def refused(self, reason: str) -> KernelError:
        return KernelError(
            f"Kernel {self.kernel.name}, `{print_statement(self.nest)}`: it cannot be spelled out, because {reason}."
        )


def spelled_nests(kernel: Kernel) -> Iterator[SpelledNest]:
    """Yield the nests of a kernel that name an instruction which fragments are written around."""

    def inside(body: Sequence[Stmt], tiles: Mapping[str, Buffer]) -> Iterator[SpelledNest]:
        for before, stmt, after in zip((None, *body), body, (*body[1:], None), strict=False):
            if isinstance(stmt, For) and stmt.instruction in INSTRUCTIONS and INSTRUCTIONS[stmt.instruction].writer:
                yield SpelledNest(kernel, stmt, tiles, before, after)
            elif not isinstance(stmt, Assign):
                here = {stmt.name: Buffer(stmt.name, stmt.dtype, stmt.shape)} if isinstance(stmt, Tile) else {}
                yield from inside(stmt.body, {**tiles, **here})

    return inside(kernel.body, {})


def spelled_operands(nests: Sequence[SpelledNest]) -> dict[str, Spelled]:
    """Return how the operands of nests become code, by name.

    Raises
    ------
    KernelError : where no code can be written for one, or not the same for all its nests
    """
    found: dict[str, Spelled] = {}
    passes = max((nest.count for nest in nests), default=0)
    for nest in nests:
        writer = INSTRUCTIONS[nest.nest.instruction].writer
        assert writer is not None
        spelled = nest.spelled(writer, passes)
        if not found.setdefault(nest.weight.name, spelled).agrees(spelled):
            raise nest.refused("another nest over the operand has X or sums at other distances")
    return found
