"""Nests whose walks are spelled out: what code has to know of them, read from the statements of a kernel.

for r in …, v in …: acc[r, v] = bias[…]                                      starts sums
for n in …, p1 in W[1], p2 in W[2], v in … as x86.fragments.512:             the nest
    acc[p2, n * 16 + v] += W * X[…]
for r in …, n in …, v in …: Y[…] = max(acc[r, n * 16 + v], 0.0)              finishes them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from sparsec.errors import KernelError
from sparsec.ir.footprint import Scope
from sparsec.ir.fragment_ends import Ends, NestEnds, holds, read_ends
from sparsec.ir.fragments import CodePacking, Frame, Writer, fragment_digits, fragment_heights
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
    Var,
    Walk,
    substitute,
    walk_expressions,
)
from sparsec.ir.layout import Layout
from sparsec.ir.printer import print_statement

FARTHEST = np.iinfo(np.int32).max  # bytes that an instruction reaches


@dataclass(frozen=True)
class SpelledNest:
    """A nest over panels, the columns of a block of rows, the rows, and lanes, around one product.

    Parameters
    ----------
    around : the statements that it stands in, the outermost first
    before, after : the statements beside it, if there are any
    """

    kernel: Kernel
    nest: For
    around: tuple[Stmt, ...]
    before: Stmt | None
    after: Stmt | None

    # -- the nest --------------------------------------------------------------------------------------------------

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
        layout = self.kernel.buffers[walks[0].buffer].layout if walks else None
        levels = len(layout.levels) if layout else 0
        if [walk.level for walk in walks] != [levels - 2, levels - 1] or len({walk.buffer for walk in walks}) != 1:
            raise self.refused("it does not walk the last two levels of an operand")
        return walks[0], walks[1]

    @property
    def lane(self) -> Range:
        """The axis of the lanes of a panel."""
        lane = self.nest.axes[-1]
        if not isinstance(lane, Range):
            raise self.refused("lanes are not its innermost loop")
        return lane

    @property
    def lanes(self) -> int:
        return Scope({}).extent(self.lane) or 0

    @property
    def panel(self) -> Range | None:
        """The axis over panels; None where there is one."""
        return next((axis for axis in self.nest.axes[:-1] if isinstance(axis, Range)), None)

    @property
    def panels(self) -> int:
        """How many panels there are."""
        return 1 if self.panel is None else Scope({}).extent(self.panel) or 0

    @property
    def stored_lanes(self) -> int:
        """The lanes of each panel whose results are stored, as bits."""
        ends = self.ends_in_code
        first = ends.finished[-1].start if ends else Const(0)
        assert isinstance(first, Const)
        return (1 << self.lanes) - (1 << int(first.value))

    # -- the operand -----------------------------------------------------------------------------------------------

    @property
    def weight(self) -> Buffer:
        return self.kernel.buffers[self.walks[0].buffer]

    @property
    def layout(self) -> Layout:
        assert self.weight.layout is not None
        return self.weight.layout

    @property
    def block(self) -> int:
        """Rows of a block."""
        return self.layout.sizes(self.weight.extents)[-1]

    @cached_property
    def digits(self) -> dict[str, np.ndarray]:
        """Where the walks around the nest stand for each fragment, by their variables."""
        digits = fragment_digits(self.layout, self.weight.extents)
        axes = (axis for stmt in self.around if isinstance(stmt, For) for axis in stmt.axes)
        walks = (axis for axis in axes if isinstance(axis, Walk) and axis.buffer == self.weight.name)
        return {walk.var: digits[walk.level] for walk in walks}

    # -- sums before and after -------------------------------------------------------------------------------------

    @property
    def row(self) -> str:
        """The variable of the rows of a block where sums are started and finished."""
        return self.before.axes[0].var if isinstance(self.before, For) else ""

    @cached_property
    def ends_in_code(self) -> NestEnds | None:
        """What fragments do to start and finish the sums; None where loops do."""
        sums = substitute(self.step.target, {self.walks[1].var: Var(self.row)})
        assert isinstance(sums, Load)
        types = {name: buffer.dtype for name, buffer in self.buffers.items()}
        found = read_ends(self.before, self.after, sums, Var(self.row), Var(self.lane.var), types)
        return found if found and self.is_whole(found) and self.is_in_vectors(found) else None

    def is_whole(self, ends: NestEnds) -> bool:
        """Whether all sums are started, and those that a panel alone has are finished, for all rows that there are."""
        counted = {self.row: self.block, self.lane.var: self.lanes} | (
            {self.panel.var: self.panels} if self.panel else {}
        )
        rows = np.arange(self.block)
        exist = rows < fragment_heights(self.layout, self.weight.extents)[:, None]
        here = {name: digit[:, None] for name, digit in self.digits.items()} | {self.row: rows}
        guarded = (holds(guard, here) for guard in ends.guards)
        return (
            all(
                {axis.var: axis.stop for axis in axes} == {name: Const(count) for name, count in counted.items()}
                and len(axes) == len(counted)
                and all(isinstance(axis.start, Const) and axis.step == 1 for axis in axes)
                for axes in (ends.started, ends.finished)
            )
            and all(axis.start == Const(0) for axis in (*ends.started, *ends.finished[:-1]))
            and ends.finished[-1].var == self.lane.var
            and all(found is not None and bool(np.all(found == exist)) for found in guarded)
            and (exist.all() or len(ends.guards) == 2)
            and all(
                condition is None or holds(condition, self.digits) is not None for condition in (ends.first, ends.last)
            )
        )

    def is_in_vectors(self, ends: NestEnds) -> bool:
        """Whether lanes and panels of what is read and written follow each other, and rows are equally far apart."""
        itemsize = np.dtype(self.weight.dtype).itemsize
        row, panel, lane = np.ix_(np.arange(self.block), np.arange(self.panels), np.arange(self.lanes))
        at = {self.row: row, self.lane.var: lane} | ({self.panel.var: panel} if self.panel else {})
        in_panels = panel * (self.lanes * itemsize) + lane * itemsize
        expected = [(ends.of_rows, row * itemsize), (ends.valid, in_panels)]
        for load in (ends.y, ends.of_all):
            expected.append((load, row * (self.apart(load, self.row) if load else 0) + in_panels))
        return all(
            bool(np.all(self.bytes_to(load, at, others) - self.bytes_to(load, {}, others) == place))
            for load, place in expected
            if load is not None
            for others in (0, 1)
        )

    # -- addresses -------------------------------------------------------------------------------------------------

    @cached_property
    def buffers(self) -> Mapping[str, Buffer]:
        """The buffers that can be named here, tiles around among them."""
        return Scope.of(self.kernel, self.around).buffers

    def start(self, load: Load) -> Load:
        """Return the first element of an operand in the first panel, at the first depth and row."""
        return substitute(load, {name: Const(0) for name in self.inner})  # type: ignore[return-value]

    @property
    def inner(self) -> list[str]:
        """The variables of the nest, and the coordinates of the operand, by their printed names."""
        coordinates = (f"{self.weight.name}.{dim}" for dim in self.layout.dims)
        panel = [self.panel.var] if self.panel else []
        return [*panel, *(walk.var for walk in self.walks), self.lane.var, self.row, *coordinates]

    def apart(self, load: Load, along: str) -> int:
        """Return the bytes between elements of an operand from one value of a variable of the nest to the next."""
        first, second = (self.bytes_to(load, {along: np.asarray(at)}) for at in (0, 1))
        return int(second - first)

    @cached_property
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

    @property
    def extent_of_panels(self) -> int:
        """The bytes from the first row of X to the end of the last one, where its panels take half of them or more.

        It is 0 elsewhere, and where rows do not follow each other, or were copied by the thread that reads them.
        """
        if self.x.buffer not in self.kernel.buffers:
            return 0
        offsets, taken = self.offsets, self.panels * self.lanes * np.dtype(self.weight.dtype).itemsize
        if offsets.min(initial=0) < 0 or np.diff(np.unique(offsets)).max(initial=0) > 2 * taken:
            return 0
        return int(offsets.max(initial=0)) + taken

    def bytes_to(self, load: Load, at: Mapping[str, np.ndarray], others: int = 0) -> np.ndarray:
        """Return where an operand is for some values of variables, `others` being that of all loops around."""
        buffer = self.buffers[load.buffer]
        names = {part.name: others for part in walk_expressions(load) if isinstance(part, Var)}
        names |= dict.fromkeys(self.inner, 0)
        bindings = {name: np.asarray(value) for name, value in names.items()} | dict(at)
        place = np.asarray(0)
        for index, size in zip(load.indices, buffer.shape, strict=True):
            place = place * (size if isinstance(size, int) else 1) + evaluate(index, bindings)
        return place * np.dtype(buffer.dtype).itemsize

    # -- code ------------------------------------------------------------------------------------------------------

    def packing(self, writer: Writer, passes: int) -> CodePacking:
        """Return how the operand becomes code.

        Raises
        ------
        KernelError : where no code can be written for it
        """
        layout, shape, found = self.layout, self.weight.extents, self.ends_in_code
        if self.block > writer.sums:
            raise self.refused(f"its blocks have more than {writer.sums} rows")
        always = np.ones(prod(layout.sizes(shape)[:-2]), bool)
        ends, first, last, sums_apart = None, always, always, self.apart(self.step.target, self.walks[1].var)
        if found:
            vectors_apart = self.apart(found.of_all, self.row) if found.of_all else 0
            ends = Ends(found.of_rows is not None, vectors_apart, found.limits, found.valid is not None)
            first, last = (
                always if condition is None else np.broadcast_to(holds(condition, self.digits), always.shape)  # type: ignore[arg-type]
                for condition in (found.first, found.last)
            )
            sums_apart = self.apart(found.y, self.row)
        offsets = self.offsets
        farthest = max(np.abs(offsets).max(initial=0), self.block * sums_apart)
        if max(farthest, self.block * ends.vectors_apart if ends else 0) + self.lanes * 8 > FARTHEST:
            raise self.refused("rows of X or of its results are more than 2 GB apart")
        frame = Frame(fragment_heights(layout, shape), first, last, ends, sums_apart, passes)
        return CodePacking(layout, shape, self.weight.dtype, offsets, frame, writer)

    def refused(self, reason: str) -> KernelError:
        return KernelError(
            f"Kernel {self.kernel.name}, `{print_statement(self.nest)}`: it cannot be spelled out, because {reason}."
        )


def spelled_nests(kernel: Kernel) -> Iterator[SpelledNest]:
    """Yield the nests of a kernel that name an instruction which fragments are written around."""

    def inside(body: Sequence[Stmt], around: tuple[Stmt, ...]) -> Iterator[SpelledNest]:
        for before, stmt, after in zip((None, *body), body, (*body[1:], None), strict=False):
            if isinstance(stmt, For) and _is_spelled(stmt):
                yield SpelledNest(kernel, stmt, around, before, after)
            elif not isinstance(stmt, Assign):
                yield from inside(stmt.body, (*around, stmt))

    return inside(kernel.body, ())


def _is_spelled(nest: For) -> bool:
    """Whether a nest walks entries, and names an instruction that fragments are written around."""
    instruction = INSTRUCTIONS.get(nest.instruction)
    walks = any(isinstance(axis, Walk) for axis in nest.axes)
    return walks and instruction is not None and instruction.writer is not None


def code_packings(nests: Sequence[SpelledNest]) -> dict[str, CodePacking]:
    """Return how the operands of nests become code, by name.

    Raises
    ------
    KernelError : where no code can be written for one, or not the same for all its nests
    """
    found: dict[str, CodePacking] = {}
    passes = max((nest.panels for nest in nests), default=0)
    for nest in nests:
        writer = INSTRUCTIONS[nest.nest.instruction].writer
        assert writer is not None
        packing = nest.packing(writer, passes)
        if not found.setdefault(nest.weight.name, packing).agrees(packing):
            raise nest.refused("another nest over the operand has other code")
    return found
