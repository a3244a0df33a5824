"""Steps: the moves that a trace is made of, each a frozen dataclass whose fields are its options.

Steps that know about zeros or instructions change the kernel; the others move TVM's `Schedule` of the lowered kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import Any, ClassVar

import tvm_ffi
from tvm import tirx
from tvm.s_tir import SBlock, Schedule
from tvm.s_tir.schedule import ScheduleError as TVMScheduleError
from tvm.tirx import IntImm

from sparsec.errors import ScheduleError
from sparsec.ir.kernel import Const, Expr, Kernel, Op, Var, expr
from sparsec.ir.product import Dots, Run, Tiling
from sparsec.schedules.tensorize import tensorize


@dataclass(frozen=True)
class Tile:
    """Cut the columns, and the rows of an unpacked weight, into tiles of these sizes, the largest first.

    With `stage`, the part of X that a depth block reads is copied into a buffer of its own; with a `stretch` of so many
    elements, once for all taps of a channel whose distances differ by multiples of it. With `rows_first`, all
    columns of a chunk or block of rows are computed before the next one. With `whole_rows`, the sums of a row are
    finished before the next row where the layout would cut the depth between them. With `skip_zeros`, weights that meet
    a vector of X that is zero are passed over. With `dots`, several depths are taken at once: the fields of `Dots`.
    With `spelled`, code has an instruction for each entry of a block of rows and each panel of so many columns.

    Before, for 37 columns:  `for m in range(0, 37)`
    After `Tile((16, 5))`:   `for m in range(0, 32, 16)`, `for m in range(32, 37, 5)`
    """

    columns: tuple[int, ...]
    rows: tuple[int, ...] = ()
    stage: bool = False
    rows_first: bool = False
    whole_rows: bool = False
    skip_zeros: bool = False
    dots: tuple[int, ...] = ()
    stretch: int | None = None
    spelled: int | None = None
    name: ClassVar[str] = "tile"

    def tiling(self, columns: int | str, rows: int | str) -> Tiling:
        """Return the runs of tiles; a symbolic extent keeps a run for each size."""
        row_runs = _runs(rows, self.rows) if self.rows else ()
        runs = _runs(columns, self.columns, overlap=bool(self.dots))
        dots = Dots(*self.dots) if self.dots else None
        flags = self.stage, self.rows_first, self.whole_rows, self.skip_zeros
        return Tiling(runs, row_runs, *flags, dots, self.stretch, self.spelled)


@dataclass(frozen=True)
class Vectorize:
    """Make the innermost loop of each block of this kind vector operations of so many lanes, unrolling what is around.

    Before:  `for v in range(64): init`
    After:   `for v0 in unroll(4): for v1 in vectorized(16): init`
    """

    block: str
    lanes: int
    name: ClassVar[str] = "vectorize"

    def apply(self, schedule: Schedule) -> None:
        for block in blocks(schedule, self.block):
            with _applying(self.name, self.block):
                schedule.vectorize(_lanes(schedule, block, self.lanes))


@dataclass(frozen=True)
class Tensorize:
    """Let an instruction carry out the loops around assignments of this kind; see `tensorize`.

    Before:  `for v in range(0, 64): acc[v] += W * X[v]`
    After:   `for v0 in range(0, 64, 16), v1 in range(0, 16) as fma.16: acc[v0 + v1] += W * X[v0 + v1]`
    """

    block: str
    instruction: str
    name: ClassVar[str] = "tensorize"

    def apply(self, kernel: Kernel) -> Kernel:
        return tensorize(kernel, self.block, self.instruction)


@dataclass(frozen=True)
class Accumulate:
    """Make vector operations of the innermost loop of each block of this kind, which reads the elements that it writes.

    TVM vectorises only what reads other buffers. The lanes of a lowered assignment are always apart.

    Before:  `for v in range(64): top[v] = max(top[v], S[v])`
    After:   `for v0 in unroll(4): for v1 in vectorized(16): top[16 * v0 + v1] = max(…)`
    """

    block: str
    lanes: int
    name: ClassVar[str] = "accumulate"

    def apply(self, schedule: Schedule) -> None:
        for block in blocks(schedule, self.block):
            if not own_loops(schedule, block):
                continue  # one element
            with _applying(self.name, self.block):
                schedule.annotate(_lanes(schedule, block, self.lanes), LANES, True)


def vectorize_lanes(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Make vector loops of those that `Accumulate` marked."""

    def vectorize(loop: tirx.For) -> tirx.For:
        if LANES not in loop.annotations:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.VECTORIZED, loop.body)

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, vectorize), order="post"))


WRITTEN_OUT = 64
"""Vectors that are written out at most."""

LANES = "sparsec.lanes"
"""The annotation of a loop that is to be one vector operation."""

Step = Tile | Vectorize | Accumulate | Tensorize
STEPS: dict[str, Any] = {step.name: step for step in (Tile, Vectorize, Accumulate, Tensorize)}


def blocks(schedule: Schedule, kind: str) -> list[Any]:
    """Return the blocks that lowering named `kind`, `kind_2`, …, or one of `kind|other`; raise if there is none."""
    names: list[str] = []
    (func,) = schedule.mod.functions.values()
    tvm_ffi.structural_walk(func.body, (SBlock, lambda block: names.append(block.name_hint)))
    found = [schedule.get_sblock(name) for name in names if re.fullmatch(rf"({kind})(_\d+)?", name)]
    if not found:
        raise ScheduleError(f"the kernel has no block {kind!r}")
    return found


@contextmanager
def _applying(step: str, block: str) -> Iterator[None]:
    """Say in one sentence which step failed on which block, and why."""
    try:
        yield
    except TVMScheduleError as error:
        found = re.search(r"Error message: (.*)", str(error))
        reason = found[1].rstrip(".") if found else str(error).split("\n")[0]
        raise ScheduleError(f"{step} does not apply to the block {block!r}: {reason}") from error


def own_loops(schedule: Schedule, block: Any) -> list[Any]:
    """Return the loops that bind the variables of a block."""
    loops = schedule.get_loops(block)
    return list(loops[len(loops) - len(schedule.get(block).iter_vars) :])


def _lanes(schedule: Schedule, block: Any, lanes: int) -> Any:
    """Split the innermost loop into vectors and unroll the loops of the block around them; return the vector loop.

    Vectors are narrower where that divides the loop, since TVM makes no vectors of what a condition guards. Loops that
    have many of them stay loops.
    """
    inside = own_loops(schedule, block)
    if not inside or not all(isinstance(schedule.get(loop).extent, IntImm) for loop in inside):
        raise ScheduleError(f"the block {schedule.get(block).name_hint!r} has no loops of constant extent of its own")
    extent = int(schedule.get(inside[-1]).extent)
    if extent > lanes:
        lanes = next((n for n in (lanes, lanes // 2, lanes // 4) if n and extent % n == 0), lanes)
        outer, vector = schedule.split(inside[-1], [None, lanes])
        inside[-1:] = [outer, vector]
    *around, vector = inside
    counts = accumulate((int(schedule.get(loop).extent) for loop in reversed(around)), mul)
    for loop, count in zip(reversed(around), counts, strict=True):
        if count <= WRITTEN_OUT:
            schedule.unroll(loop)
    return vector


def _runs(extent: int | str, sizes: tuple[int, ...], overlap: bool = False) -> tuple[Run, ...]:
    """Cover an extent by runs of tiles; for a symbolic one each size must divide the one before it.

    With `overlap`, what is left over is the end of one more tile, which computes some columns again.
    """
    runs: list[Run] = []
    start: Expr = Const(0)
    for larger, size in pairwise(sizes):
        if isinstance(extent, str) and larger % size:
            raise ScheduleError(f"tiles of {sizes} cannot cover the symbol {extent}: {size} does not divide {larger}")
    for size in sizes:
        if isinstance(start, Const) and isinstance(extent, int):
            stop: Expr = Const(start.value + (extent - start.value) // size * size)
        else:
            stop = Var(str(extent)) if size == 1 else Op("*", (Op("//", (Var(str(extent)), expr(size))), expr(size)))
        if stop != start:
            runs.append((start, stop, size))
        start = stop
    if overlap and isinstance(extent, int) and start != Const(extent) and sizes[-1] <= extent:
        return (*runs, (Const(extent - sizes[-1]), Const(extent), sizes[-1]))
    if start != (Var(extent) if isinstance(extent, str) else Const(extent)):
        raise ScheduleError(f"tiles of {sizes} do not cover an extent of {extent}; add a tile of 1")
    return tuple(runs)
