"""Walks by quads: four coordinates, and four values, of a compressed level are a load each.

A sparse step is bound by the load units; other units take the quads apart. A tile of few vectors of sums adds to
several copies of them in turn, so that no addition waits for the one before it. Processors fetch ahead what is read in
order, but stop where a page ends: so each walk asks for the lines that lie a page behind its own coordinates and
values, and each quad of large blocks for those behind its values. They come to L2; in L1 is what is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import gcd, prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.ir.emission import QUAD, Emission, along, fetch_line, of_quad, repeat_quad
from sparsec.ir.kernel import Assign, Axis, For, Load, Stmt, Walk, walk_expressions
from sparsec.ir.levels import Cursor, Dense
from sparsec.ir.standing import keep
from sparsec.ir.types import stored_bits
from sparsec.targets import LINE, PAGE

WALKED = 4  # lines, at most, that a walk asks for at once
CHAINS = 8  # vectors of sums that keep multiply-add units busy: two for each cycle that an addition takes


class Quads(Emission):
    """Walks compressed levels four coordinates at a time."""

    def is_quad_walk(self, stmt: For) -> bool:
        """Whether a loop inside a tile walks one level of consecutive coordinates of 16 bits, and nothing else."""
        axis = stmt.axes[0]
        if not self.depth or len(stmt.axes) != 1 or not isinstance(axis, Walk):
            return False
        level = self.level(axis)
        return bool(level.consecutive) and level.together == 1 and str(self._indices(axis).dtype) == "uint16"

    def walk_by_quads(self, stmt: For, step: Callable[[Walk, Cursor], None]) -> None:
        """Emit a loop over whole quads, then one over what is left; `step` emits what is done where the walk stands.

        Before:  `for j in range(n): step(indices[start + j])`
        After:   `for j in range(n // 4): quad = indices[start + 4 * j :][:4]; step(quad & 65535); …`
                 `for j in range(n % 4): step(indices[start + n // 4 * 4 + j])`
        """
        (axis,) = stmt.axes
        assert isinstance(axis, Walk)
        length = next(self.visit(axis, bound=False)).extent
        count, itemsize = self._values_at(axis)
        lines = count * QUAD * itemsize // LINE  # of the values of a quad
        start = self._position(axis, 0)
        self._fetch_walk(self._indices(axis), start, length)
        if count and not lines:
            self._fetch_walk(self._values(axis), start * count, length * count)
        with self._apart(stmt.body) as sums, self.scope() as frames:
            nth = self.counted("quad", length // QUAD, frames)
            first = keep(self._position(axis, nth * QUAD), "position")
            if lines:
                self._fetch_lines(self._values(axis), first * count, lines)
            quad = keep(tirx.reinterpret("uint64", self._indices(axis)[T.ramp(first, 1, QUAD)]), "quad")
            values = self._quad_of_values(axis, first, stmt.body)
            for lane in range(QUAD):
                if values is not None:
                    self.quads[axis.buffer] = values, lane
                coordinate = of_quad(quad, lane)
                self.handles |= sums[lane % len(sums)]
                step(axis, Cursor(first + lane, keep(coordinate, "coordinate")))
            self.quads.pop(axis.buffer, None)
            self.handles |= sums[0]
        with self.scope() as frames:
            nth = self.counted("rest", length % QUAD, frames)
            position = keep(self._position(axis, length // QUAD * QUAD + nth), "position")
            coordinate = T.cast(self._indices(axis)[position], "int32")
            step(axis, Cursor(position, keep(coordinate, "coordinate")))

    def fetch_slot(self, axis: Axis) -> None:
        """Ask for what lies a page behind a slot, where an axis walks slots: values, and coordinates of their own."""
        if not isinstance(axis, Walk) or not self.level(axis).shares_lanes:
            return
        levels = self.axes(axis.buffer)
        lanes, last = levels[axis.level + 1].size, len(levels) - 1
        first = self.cursor(axis.buffer, axis.level).position * lanes
        for array in (self._values(axis), self.handles.get(f"{axis.buffer}.level{last}.indices")):
            if array is not None:
                self._fetch_lines(array, first, -(-lanes * _itemsize(array) // LINE))

    def _fetch_walk(self, array: Any, start: Any, length: Any) -> None:
        """Ask for what lies a page behind the elements of a walk: a line, and more where it takes more."""
        elements = LINE // _itemsize(array)
        ahead = keep(start + PAGE // _itemsize(array), "ahead")
        fetch_line(array, [ahead], to_l2=True)
        for line in range(1, WALKED):
            with T.If(length > line * elements), T.Then():
                fetch_line(array, [ahead + line * elements], to_l2=True)

    def _fetch_lines(self, array: Any, start: Any, lines: int) -> None:
        """Ask for so many lines that lie a page behind a place."""
        ahead = keep(start + PAGE // _itemsize(array), "ahead")
        for line in range(lines):
            fetch_line(array, [ahead + line * (LINE // _itemsize(array))], to_l2=True)

    def _values(self, axis: Walk) -> Any:
        return self.handles.get(f"{axis.buffer}.data")

    def _values_at(self, axis: Walk) -> tuple[int, int]:
        """Return how many stored values belong to each position of a level, 0 if not as many, and bytes of one."""
        buffer = self.kernel.buffers[axis.buffer]
        assert buffer.layout is not None
        inside = range(axis.level + 1, len(buffer.layout.levels))
        dense = all(isinstance(buffer.layout.levels[level][1], Dense) for level in inside)
        sizes = buffer.layout.sizes(buffer.extents)
        data = self._values(axis)
        if data is None or not dense or stored_bits(buffer.dtype) < 8:
            return 0, 0
        return prod(sizes[level] for level in inside), _itemsize(data)

    @contextmanager
    def _apart(self, body: Sequence[Stmt]) -> Iterator[list[dict[str, Any]]]:
        """Yield the handles of a tile's sums and of their copies, which are added up at the end; one if these are none.

        Before:  `for quad: acc += …; acc += …; acc += …; acc += …`
        After:   `copy = 0; for quad: acc += …; copy += …; acc += …; copy += …`, `acc += copy`
        """
        name, lanes = self._multiplies_into(body)
        size = prod(self.tiles[name].shape) if lanes else 0
        together = gcd(lanes, size)
        if together < min(lanes, QUAD) or not lanes:
            yield [{}]
            return
        sums, count = self.handles[name], next((n for n in (4, 2) if n * size <= CHAINS * lanes), 1)
        lanes = together
        places = [along([start], 0, lanes) for start in range(0, size, lanes)]
        zero = tirx.const(0, str(sums.dtype))
        nothing = T.broadcast(zero, lanes) if lanes > 1 else zero
        with self.scope() as frames:
            self.enter_block("apart", frames)
            copies = [T.sblock_alloc_buffer((size,), str(sums.dtype), scope="local") for _ in range(count - 1)]
            for copy in copies:
                for place in places:
                    T.buffer_store(copy, nothing, place)
            yield [{name: handle} for handle in (sums, *copies)]
            for copy in copies:
                for place in places:
                    T.buffer_store(sums, sums[tuple(place)] + copy[tuple(place)], place)

    def _quad_of_values(self, axis: Walk, first: Any, body: Sequence[Stmt]) -> Any:
        """Load the float32 values at four positions, repeated over a vector; None where the body takes others."""
        data, layout = self._values(axis), self.kernel.buffers[axis.buffer].layout
        assert layout is not None
        _, lanes = self._multiplies_into(body)
        if data is None or str(data.dtype) != "float32" or axis.level != len(layout.levels) - 1 or lanes < QUAD:
            return None
        return keep(repeat_quad(data[T.ramp(first, 1, QUAD)], -(-lanes // QUAD) * QUAD), "values")

    def _multiplies_into(self, body: Sequence[Stmt]) -> tuple[str, int]:
        """Return the tile that a body adds to by multiply-adds, and the most lanes of one; else 0 lanes."""
        names, lanes = set(), 0
        for stmt in body:
            name, width = self._adds_to(stmt)
            if not width:
                return "", 0
            names.add(name)
            lanes = max(lanes, width)
        (name, *others) = names
        return ("", 0) if others or name not in self.tiles else (name, lanes)

    def _adds_to(self, stmt: Stmt) -> tuple[str, int]:
        """Return what a nest of one assignment adds to by multiply-adds, and to how many sums; else 0 of them."""
        inner = stmt.body[0] if isinstance(stmt, For) and len(stmt.body) == 1 else None
        if not isinstance(stmt, For) or not isinstance(inner, Assign) or not inner.accumulate:
            return "", 0
        name, instruction = inner.target.buffer, self.named(stmt)
        if instruction is None:
            reads = {part.buffer for part in walk_expressions(inner.value) if isinstance(part, Load)}
            return name, int(name not in reads and all(self.here.extent(axis) == 1 for axis in stmt.axes))
        return name, prod(instruction.semantics.outputs[0].extents) if instruction.family == "fma" else 0

    def _position(self, axis: Walk, index: Any) -> Any:
        """Return the position of an iteration of a compressed level, its coordinate left alone."""
        visit = self.visit(axis, bound=False, coordinates=False)
        next(visit)
        try:
            visit.send(index)
        except StopIteration as end:
            return end.value.position

    def _indices(self, axis: Walk) -> Any:
        return self.handles[f"{axis.buffer}.level{axis.level}.{self.level(axis).consecutive}"]


def _itemsize(array: Any) -> int:
    """Return the bytes of an element."""
    return int(np.dtype(str(array.dtype)).itemsize)
