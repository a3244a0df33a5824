"""Spelling: nests whose walks are written as machine code, an instruction for each entry, and called as fragments."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.errors import KernelError
from sparsec.ir.emission import Emission
from sparsec.ir.fragments import CODE
from sparsec.ir.gather import expressions
from sparsec.ir.instruction import INSTRUCTIONS, Instruction
from sparsec.ir.kernel import Assign, Const, For, Kernel, Load, Range, Stmt, Tile, Var, walk_expressions
from sparsec.ir.matcher import Refusal, match_innermost
from sparsec.ir.printer import print_statement
from sparsec.ir.spelled_nest import code_packings, spelled_nests

RUN = "sparsec_run_fragments"
"""The function of the runtime that calls fragments."""


class Spelling(Emission):
    """Calls fragments for the nests that are spelled out.

    `codes` says how an operand of such nests becomes code, by name.
    """

    def __init__(self, kernel: Kernel, features: Collection[str] | None = None) -> None:
        super().__init__(kernel, features)
        nests = [nest for nest in spelled_nests(kernel) if self.has(INSTRUCTIONS[nest.nest.instruction])]
        self.found = {id(nest.nest): nest for nest in nests}
        self.codes = code_packings(nests)
        for name in self.codes:
            self.gathers.pop(name, None)

    def body_of(self, tile: Tile) -> Sequence[Stmt]:
        """Return what a tile does but for what fragments do by themselves: start sums and, if they can, finish them."""
        body, taken = tile.body, set()
        for place, stmt in enumerate(body):
            if found := self.found.get(id(stmt)):
                if found.ends_in_code:
                    taken |= {place - 1, place + 1}
                elif _clears(body[0], tile):
                    taken.add(0)
                else:
                    raise found.refused("its sums are not cleared before it")
        rest = [stmt for place, stmt in enumerate(body) if place not in taken]
        whole = [found for stmt in rest if (found := self.found.get(id(stmt))) and found.ends_in_code]
        if whole and not self.is_in_fragments(tile, rest):
            raise whole[0].refused("its sums are also read by other statements than those beside it")
        return rest

    def is_in_fragments(self, tile: Tile, body: Sequence[Stmt]) -> bool:
        """Whether the sums of a tile are in the registers of fragments alone, once these take part of its body."""
        others = [stmt for stmt in body if not ((found := self.found.get(id(stmt))) and found.ends_in_code)]
        loads = (part for value in expressions(tuple(others)) for part in walk_expressions(value))
        return len(others) < len(body) and all(part.buffer != tile.name for part in loads if isinstance(part, Load))

    def emit(self, nest: For, instruction: Instruction) -> None:
        """Carry out a nest, by calls of fragments where its walks are spelled out."""
        if id(nest) not in self.found:
            super().emit(nest, instruction)
            return
        match = match_innermost(nest, self.here, instruction)
        if isinstance(match, Refusal):
            raise KernelError(f"Kernel {self.kernel.name}, `{print_statement(nest)}`: {match.reason}.")
        found = self.found[id(nest)]
        columns, _ = found.walks
        name, panel, ends, sums = found.weight.name, found.panel, found.ends_in_code, found.step.target
        vector = found.lanes * np.dtype(found.weight.dtype).itemsize
        if not ends and panel and found.apart(sums, panel.var) != vector:
            raise found.refused("the sums of its panels do not follow each other")
        with self.scope() as frames:
            self.enter_block("fragments", frames)
            fiber = self.cursor(name, columns.level - 1).position if columns.level else 0
            x_step = found.apart(found.x, panel.var) if panel else 0
            x, y = (self.address(found.start(load)) for load in (found.x, ends.y if ends else sums))
            loads = (ends.of_rows, ends.of_all, ends.valid) if ends else (None, None, None)
            beside = [self.address(found.start(load)) if load else y for load in loads]  # not read where there is none
            arrays = (self.handles[f"{name}.{array}"] for array in (CODE, "starts", "data"))
            code, starts, data = (tirx.address_of(array[0]) for array in arrays)
            values = data, np.dtype(found.weight.dtype).itemsize
            panels = x, x_step, y, *beside, found.stored_lanes, found.panels, vector
            T.evaluate(tirx.call_extern("int32", RUN, code, starts, fiber, *values, *panels))

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
