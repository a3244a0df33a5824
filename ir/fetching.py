"""Asking for what a tile of sums ends with before it starts: where it stores them, and what its epilogue reads there.

A dense tile takes a long time over few lines of Y, a row apart each, which no prefetcher of a processor foresees. They
arrive while the tile adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.ir.emission import Emission
from sparsec.ir.kernel import Assign, Axis, For, If, Load, Range, Stmt, Tile, walk_expressions
from sparsec.ir.levels import Dense
from sparsec.ir.types import is_float

LINE = 64  # bytes
LONG = 32  # additions to each sum in which lines arrive
READ_TO_L1 = 0, 3, 1  # what `llvm.prefetch` is told: to be read, kept in all caches, data


class Fetching(Emission):
    """Prefetches for tiles of floats over dense loops of constant extents."""

    def fetch_ends(self, tile: Tile) -> None:
        """Ask for the elements of buffers where the last nests of a tile, in which it is open, stand."""
        if not is_float(tile.dtype) or self._additions(tile.body) < LONG * prod(tile.shape):
            return
        for stmt in tile.body:
            inner = stmt.body[0] if isinstance(stmt, For) and len(stmt.body) == 1 else None
            inner = inner.body[0] if isinstance(inner, If) else inner
            if isinstance(stmt, For) and isinstance(inner, Assign) and inner.target.buffer != tile.name:
                self._fetch(stmt.axes, inner)

    def _fetch(self, axes: Sequence[Axis], stmt: Assign) -> None:
        """Ask for the lines that an assignment leads to which have an index for each axis of its target."""
        if not all(self._is_constant(axis) for axis in axes):
            return
        target = stmt.target
        reads = {part for part in walk_expressions(stmt.value) if isinstance(part, Load)}
        beside = {load for load in reads if load.indices == target.indices and load.buffer != target.buffer}
        line = LINE // np.dtype(str(self.handles[target.buffer].dtype)).itemsize
        strides = [line if isinstance(axis, Range) else 1 for axis in axes]
        for place in product(*(range(0, self.extent(axis), n) for axis, n in zip(axes, strides, strict=True))):
            with self.scope():
                for axis, n in zip(axes, place, strict=True):
                    self.bind(axis, [tirx.const(n, "int32")], bound=False)
                for load in (target, *sorted(beside, key=str)):
                    address = tirx.address_of(self.handles[load.buffer][tuple(self.place(load))])
                    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *READ_TO_L1))

    def _additions(self, body: Sequence[Stmt]) -> int:
        """Return how many additions to sums are in dense loops of constant extents."""
        total = 0
        for stmt in body:
            if isinstance(stmt, Assign):
                total += stmt.accumulate
            elif not isinstance(stmt, For):
                total += self._additions(stmt.body)
            elif all(self._is_constant(axis) for axis in stmt.axes):
                total += prod(self.extent(axis) for axis in stmt.axes) * self._additions(stmt.body)
        return total

    def _is_constant(self, axis: Axis) -> bool:
        """Whether a loop has a constant extent."""
        if isinstance(axis, Range):
            return isinstance(self.extent(axis), int)
        return axis.at is None and not axis.part and isinstance(self.level(axis), Dense)
