"""Spelling: nests whose walks are written as machine code, an instruction for each entry, and called as fragments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.errors import KernelError
from sparsec.ir.emission import Emission
from sparsec.ir.footprint import Scope, clears
from sparsec.ir.fragments import CODE
from sparsec.ir.gather import expressions
from sparsec.ir.instruction import Instruction
from sparsec.ir.kernel import Load, Stmt, Tile, walk_expressions
from sparsec.ir.matcher import Refusal, match_innermost
from sparsec.ir.printer import print_statement
from sparsec.ir.spelled_nest import SpelledNest, code_packings

RUN = "sparsec_run_fragments"
"""The function of the runtime that calls fragments."""


class Spelling:
    """The nests of a kernel that are spelled out, and what of the tiles around them fragments do.

    `codes` says how an operand of such nests becomes code, by name.
    """

    def __init__(self, nests: Sequence[SpelledNest]) -> None:
        self.codes = code_packings(nests)
        self._nests = {id(found.nest): found for found in nests}

    def find(self, stmt: Stmt) -> SpelledNest | None:
        """Return what is known of a statement that is spelled out."""
        return self._nests.get(id(stmt))

    def body_of(self, tile: Tile, scope: Scope) -> tuple[Sequence[Stmt], bool]:
        """Return what a tile does but for what fragments do by themselves, and whether its sums are theirs alone.

        They start sums, and finish them if they can.
        """
        found = {place: nest for place, stmt in enumerate(tile.body) if (nest := self.find(stmt))}
        whole, taken = [place for place, nest in found.items() if nest.ends_in_code], set()
        for place, nest in found.items():
            if place in whole:
                taken |= {place - 1, place + 1}
            elif clears(tile.body[0], tile, scope):
                taken.add(0)
            else:
                raise nest.refused("its sums are not cleared before it")
        others = tuple(stmt for place, stmt in enumerate(tile.body) if place not in taken.union(whole))
        parts = (part for value in expressions(others) for part in walk_expressions(value))
        if whole and any(part.buffer == tile.name for part in parts if isinstance(part, Load)):
            raise found[whole[0]].refused("its sums are also read by other statements than those beside it")
        return [stmt for place, stmt in enumerate(tile.body) if place not in taken], bool(whole)


def call_fragments(found: SpelledNest, instruction: Instruction, at: Emission) -> None:
    """Carry out a nest by calls of fragments, where a lowering stands.

    Raises
    ------
    KernelError : if the instruction does not do what the nest does, or the sums of panels lie apart
    """
    nest = found.nest
    match = match_innermost(nest, at.here, instruction)
    if isinstance(match, Refusal):
        raise KernelError(f"Kernel {at.kernel.name}, `{print_statement(nest)}`: {match.reason}.")
    columns, _ = found.walks
    name, panel, ends, sums = found.weight.name, found.panel, found.ends_in_code, found.step.target
    vector = found.lanes * np.dtype(found.weight.dtype).itemsize
    if not ends and panel and found.apart(sums, panel.var) != vector:
        raise found.refused("the sums of its panels do not follow each other")

    def address(load: Load) -> tirx.PrimExpr:
        first = found.start(load)
        return tirx.address_of(at.handles[first.buffer][tuple(at.place(first))])

    with at.scope() as frames:
        at.enter_block("fragments", frames)
        fiber = at.cursor(name, columns.level - 1).position if columns.level else 0
        x_step = found.apart(found.x, panel.var) if panel else 0
        x, y = address(found.x), address(ends.y if ends else sums)
        loads = (ends.of_rows, ends.of_all, ends.valid) if ends else (None, None, None)
        beside = [address(load) if load else y for load in loads]  # not read where there is none
        arrays = (at.handles[f"{name}.{array}"] for array in (CODE, "starts", "data"))
        code, starts, data = (tirx.address_of(array[0]) for array in arrays)
        values = data, np.dtype(found.weight.dtype).itemsize
        panels = x, x_step, y, *beside, found.stored_lanes, found.panels, vector, found.extent_of_panels
        T.evaluate(tirx.call_extern("int32", RUN, code, starts, fiber, *values, *panels))
