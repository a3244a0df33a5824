"""Nests of loops and blocks in S-TIR, and what is known inside them.

Loops are opened as plain variables. A block binds all that are open, and finds values and cursors again in terms of its
own variables, so that to what it holds they are constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from sparsec.ir.kernel import Axis, Const, For, Kernel, Range, Walk
from sparsec.ir.standing import Standing


@dataclass
class Pending:
    """An axis whose loops are open, but not yet bound by a block, with their variables and extents."""

    axis: Axis
    variables: list[Any]
    extents: list[Any]


class Nesting(Standing):
    """Opens loops and blocks at one place after the other."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.pending: list[Pending] = []
        self.names: dict[str, int] = {}
        self.depth = 0  # how many tiles are open

    @contextmanager
    def scope(self) -> Iterator[ExitStack]:
        """Hold the frames opened inside, and forget at the end what they bound."""
        saved = dict(self.values), {name: dict(found) for name, found in self.cursors.items()}, self.pending
        ordered = dict(self.ordered)
        self.pending = list(self.pending)
        with ExitStack() as frames:
            yield frames
        self.values, self.cursors, self.pending = saved
        self.ordered = ordered

    def open(self, stmt: For, frames: ExitStack) -> None:
        """Open the loops of a nest outside any block; the indices are plain loop variables until a block binds them."""
        if stmt.parallel:
            self.open_parallel(stmt, frames)
            return
        for axis in stmt.axes:
            variables: list[Any] = []
            extents = []
            if isinstance(axis, Walk) and axis.at is not None:
                pass  # no loop
            elif isinstance(axis, Range):
                extents = [self.extent(axis)]
                variables = [frames.enter_context(T.serial(extents[0]))]
            else:
                for extent, variable in self.loops(axis, frames):
                    extents.append(extent)
                    variables.append(variable)
            self.bind(axis, variables, bound=False)
            self.pending.append(Pending(axis, variables, extents))

    def loops(self, axis: Walk, frames: ExitStack) -> Iterator[tuple[Any, Any]]:
        """Open the loops of a walk one by one; yield the extent and the variable of each."""
        if axis.part == "run":
            extent = self.level(axis).together
            yield extent, frames.enter_context(T.serial(extent))
            return
        visit = self.visit(axis, bound=False)
        loop = next(visit, None)
        while loop is not None:
            variable = frames.enter_context(T.serial(loop.extent))
            yield loop.extent, variable
            if axis.part == "runs":  # the loop over the places of a run comes next
                return
            try:
                loop = visit.send(variable)
            except StopIteration:
                return

    def open_parallel(self, stmt: For, frames: ExitStack) -> None:
        """Run the axes of constant extent as one parallel loop, and those of symbolic extent inside it.

        One loop over all would divide by symbols to find its indices, which TVM cannot simplify. If all are symbolic,
        the first is parallel.
        """
        extents = [self.extent(axis) for axis in stmt.axes]
        shared = [n for n, extent in enumerate(extents) if isinstance(extent, int)]
        if prod(extents[n] for n in shared) == 1 and len(shared) < len(extents):
            shared = [next(n for n in range(len(extents)) if n not in shared)]
        total = prod(extents[n] for n in shared)
        serial = isinstance(total, int) and total == 1
        flat = frames.enter_context(T.serial(1) if serial else T.parallel(total))
        inner: Any = 1
        indices: dict[int, Any] = {n: 0 for n, extent in enumerate(extents) if isinstance(extent, int)}
        for n in reversed(shared):
            indices[n] = flat // inner % extents[n] if n != shared[0] else flat // inner
            inner = inner * extents[n]
        for n, (axis, extent) in enumerate(zip(stmt.axes, extents, strict=True)):
            index = indices[n] if n in indices else frames.enter_context(T.serial(extent))
            self.bind(axis, [index], bound=False)
            self.pending.append(Pending(axis, [index], [extent]))

    def enter_block(self, name: str, frames: ExitStack) -> list[Any]:
        """Open a block that binds all pending loops, and find values and cursors again in terms of its variables.

        Returns
        -------
        The block's variables for the last axis.
        """
        count = self.names[name] = self.names.get(name, 0) + 1
        frames.enter_context(T.sblock(name if count == 1 else f"{name}_{count}"))
        bound: list[tuple[Axis, list[Any]]] = []
        for pending in self.pending:
            variables = []
            for extent, variable in zip(pending.extents, pending.variables, strict=True):
                constant = isinstance(extent, int | tirx.IntImm)
                domain = extent if constant else np.iinfo(np.int32).max
                variables.append(T.axis.opaque(domain, variable))
                IRBuilder.name(pending.axis.var, variables[-1])
            bound.append((pending.axis, variables))
        handles = [self.handles[b] for b in self.handles]
        T.reads(*[handle[tuple(slice(0, extent) for extent in handle.shape)] for handle in handles])
        read_only = {buffer.name for buffer in self.kernel.inputs}
        writable = [h for b, h in self.handles.items() if b not in read_only and "." not in b]
        T.writes(*[handle[tuple(slice(0, extent) for extent in handle.shape)] for handle in writable])
        for axis, variables in bound:
            self.bind(axis, variables, bound=True)
        self.pending = []
        return bound[-1][1] if bound else []

    def counted(self, name: str, extent: Any, frames: ExitStack) -> Any:
        """Open a loop and a block that binds it; return the block's variable."""
        self.pending.append(
            Pending(Range(name, Const(0), Const(0)), [frames.enter_context(T.serial(extent))], [extent])
        )
        self.enter_block("step", frames)
        return self.values[name]
