"""Registers of tiles: rows of matrices that a unit multiplies, and the nests whose sums they hold from start to finish.

A nest around such an instruction is carried out a block of tiles at a time. Those of the sums stay in registers while
the loops over the depth load tiles of both factors, each of which meets all of the other factor in the block.

    for p1 in W[1], p20 in range(0, 32, 16), v0 in range(0, 64, 16), … as x86.tdpbsud.m16n16k64:
        acc[p2, v] += W * part[p1 * 16 + p3, v, l]

    tiles 0 to 3 = 0
    for p1 in range(0, 12):
        tiles 4, 5 = W of 16 rows each
        tile 6 = part of 16 columns;  tiles 0, 1 += tiles 4, 5 · tile 6
        tile 7 = part of 16 columns;  tiles 2, 3 += tiles 4, 5 · tile 7
    acc = tiles 0 to 3;  and so on for the other 32 columns
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm.tirx.script import builder as T

from sparsec.errors import KernelError
from sparsec.ir.footprint import Operand, Scope, footprint
from sparsec.ir.kernel import Axis, For

if TYPE_CHECKING:
    from sparsec.ir.emission import Emission
    from sparsec.ir.matcher import Match, Place

Rows = tuple[Any, int]
"""The address of the first row of a tile in memory, and the bytes from one row to the next."""

BUFFERED = 2  # registers for tiles of one factor, so that one is loaded while another one is used


@dataclass(frozen=True)
class TileUnit:
    """A unit that multiplies tiles, which its registers are numbered for; each function writes a statement.

    Parameters
    ----------
    registers : how many there are, each of 16 rows of 64 bytes
    configure, release : before the first tile is used, and after the last one
    clear : takes the number of a register
    load, store : take the number of a register, and where its rows are in memory
    """

    registers: int
    configure: Callable[[], None]
    release: Callable[[], None]
    clear: Callable[[int], None]
    load: Callable[[int, Rows], None]
    store: Callable[[int, Rows], None]


@dataclass(frozen=True)
class Block:
    """How many tiles of each factor meet at once."""

    rows: int
    columns: int

    @property
    def registers(self) -> int:
        """Registers for the sums, all tiles of the first factor, and some of the second."""
        return self.rows * self.columns + self.rows + min(self.columns, BUFFERED)

    def loads(self, rows: int, columns: int) -> int:
        """How many tiles are loaded where so many of each factor meet, for each step along the depth."""
        return -(-rows // self.rows) * -(-columns // self.columns) * (self.rows + self.columns)


def best_block(rows: int, columns: int, registers: int) -> Block:
    """Return the block of at most so many tiles that loads fewest of them.

    >>> best_block(2, 4, registers=8), best_block(1, 4, registers=8)
    (Block(rows=2, columns=2), Block(rows=1, columns=4))
    """
    blocks = (Block(m, n) for m in range(1, min(rows, registers) + 1) for n in range(1, min(columns, registers) + 1))
    fitting = (block for block in blocks if block.registers <= registers)
    return min(fitting, key=lambda block: block.loads(rows, columns))


def multiply_in_tiles(nest: For, match: Match, at: Emission, fresh: bool) -> None:
    """Carry out a nest, its sums in tiles while the loops run that do not move them.

    Parameters
    ----------
    fresh : whether the sums start from zero, and not from what is in memory

    Raises
    ------
    KernelError : for outer loops whose extents are not constant
    """
    instruction, scope = match.instruction, at.here
    unit = instruction.tiles
    assert unit is not None
    (sums,) = (match.places[buffer.name] for buffer in instruction.semantics.outputs)
    a, b = (match.places[buffer.name] for buffer in instruction.semantics.inputs)
    outer = [n for n, axis in enumerate(nest.axes) if n not in match.axes and not scope.is_single(axis)]
    extents = {n: _extent(nest.axes[n], scope) for n in outer}
    moving, of_a, of_b = (_axes(place.value, extents, nest, scope) for place in (sums, a, b))
    rows = [n for n in outer if n in moving - of_b]
    columns = [n for n in outer if n in moving - of_a and n not in rows]
    beside = [n for n in outer if n in moving & of_a & of_b]
    depth = [n for n in outer if n not in moving]

    def places(axes: Sequence[int]) -> list[dict[int, int]]:
        counts = product(*(range(extents[n]) for n in axes))
        return [dict(zip(axes, count, strict=True)) for count in counts]

    all_rows, all_columns = places(rows), places(columns)
    block = best_block(len(all_rows), len(all_columns), unit.registers)
    for around, some_rows, some_columns in product(
        places(beside), _runs(all_rows, block.rows), _runs(all_columns, block.columns)
    ):

        def where(place: Place, *found: dict[int, Any]) -> Rows:
            indices = {n: index for some in found for n, index in some.items()}
            return at.rows(nest, place, [indices.get(n, 0) for n in range(len(nest.axes))])

        held = list(enumerate(product(some_rows, some_columns)))
        first = len(held)
        for tile, (row, column) in held:
            if fresh:
                unit.clear(tile)
            else:
                unit.load(tile, where(sums, around, row, column))
        with ExitStack() as loops:
            step = {n: loops.enter_context(T.serial(extents[n])) if extents[n] > 1 else 0 for n in depth}
            for n, row in enumerate(some_rows):
                unit.load(first + n, where(a, around, step, row))
            for n, column in enumerate(some_columns):
                second = first + len(some_rows) + n % BUFFERED
                unit.load(second, where(b, around, step, column))
                for m in range(len(some_rows)):
                    instruction.emit(m * len(some_columns) + n, first + m, second)
        for tile, (row, column) in held:
            unit.store(tile, where(sums, around, row, column))


def _axes(operand: Operand, extents: Mapping[int, int], nest: For, scope: Scope) -> set[int]:
    """Return which of some axes, whose extents are given, an operand moves along anywhere."""
    sizes = [extents.get(n, 1) for n in range(len(nest.axes))]
    trials = footprint(scope, nest.axes, [grid.ravel() for grid in np.indices(sizes)], operand)
    return {n for n in extents if any(np.diff(trial.reshape(sizes), axis=n).any() for trial in trials)}


def _extent(axis: Axis, scope: Scope) -> int:
    extent = scope.extent(axis)
    if extent is None:
        raise KernelError(f"how often {axis.var} runs is not constant, so no registers can hold the sums of its loops")
    return extent


def _runs(items: list[dict[int, int]], size: int) -> Iterator[list[dict[int, int]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
