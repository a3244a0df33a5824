"""Where the iterations of a nest of constant loops find what they load and store, as numbers.

What is not known of a place before the kernel runs, such as the outer loops and the coordinates that a sparse level
holds, gets made-up values, others in every trial: what stays the same over all trials holds whatever the values are.
Some trials are at the end of what an index is divided by, where `//` and `%` would break a vector.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np

from sparsec.ir.gather import ON_INTEGERS
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    Kernel,
    Load,
    Op,
    Position,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    walk_expressions,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import ROOT, Cursor, Dense
from sparsec.ir.levels import Axis as LevelAxis

TRIALS = 3
PRIME = 2**31 - 1

Operand = Load | Stored | Var


@dataclass(frozen=True)
class Scope:
    """What can be named at one place of a kernel: its buffers, the tiles around, and the ranges of loops around."""

    buffers: Mapping[str, Buffer]
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def of(cls, kernel: Kernel, around: Sequence[Stmt] = ()) -> Scope:
        """Return the scope inside of these statements."""
        tiles = {s.name: Buffer(s.name, s.dtype, s.shape) for s in around if isinstance(s, Tile)}
        axes = [axis for stmt in around if isinstance(stmt, For) for axis in stmt.axes]
        return cls({**kernel.buffers, **tiles}, {axis.var: axis for axis in axes if isinstance(axis, Range)})

    def extent(self, axis: Axis) -> int | None:
        """Return how often an axis runs, or None where that is no constant."""
        if isinstance(axis, Range):
            if not isinstance(axis.start, Const) or not isinstance(axis.stop, Const):
                return None
            return len(range(int(axis.start.value), int(axis.stop.value), axis.step))
        if axis.at is not None:
            return 1
        if axis.part:
            return int(self.level(axis).together) if axis.part == "run" else None
        try:
            loop = next(self.level(axis).visit(self.axis(axis), Cursor(0, 0), lambda name, index: index))
        except StopIteration:
            return 1
        except TypeError:
            return None
        return loop.extent if loop.kind == "dense" and isinstance(loop.extent, int) else None

    def is_single(self, axis: Axis) -> bool:
        """Say whether a walk is no loop: it is at a given coordinate, or where another level stands."""
        return isinstance(axis, Walk) and (axis.at is not None or self.level(axis).shares_positions)

    def layout(self, buffer: str) -> Layout:
        """Return how a packed operand is stored."""
        layout = self.buffers[buffer].layout
        assert layout is not None, f"{buffer} is dense"
        return layout

    def level(self, axis: Walk) -> Any:
        """Return the level that an axis walks."""
        return self.layout(axis.buffer).levels[axis.level][1]

    def axis(self, axis: Walk) -> LevelAxis:
        """Return what that level knows of its place."""
        return _axes(self.layout(axis.buffer), self.buffers[axis.buffer].extents)[axis.level]


@cache
def _axes(layout: Layout, shape: tuple[int, ...]) -> tuple[LevelAxis, ...]:
    return layout.axes(shape)


def footprint(
    scope: Scope,
    axes: Sequence[Axis],
    indices: Sequence[np.ndarray],
    operand: Operand,
    given: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, ...]:
    """Return the address of an operand, in elements from the start of its buffer, in each iteration and each trial.

    The variable of a walk stands for the coordinates that its level stores.

    Parameters
    ----------
    indices : for each axis how many times it ran before each of these iterations, int64 [iterations]
    given : the coordinates of some walks, and what some buffers hold, in each iteration, by name
    """
    ends = [0] * TRIALS + sorted(_divisors(operand))
    return tuple(_Trial(scope, n, end, given or {}).addresses(axes, indices, operand) for n, end in enumerate(ends))


def clears(stmt: Stmt, tile: Tile, scope: Scope) -> bool:
    """Say whether a statement sets all elements of a tile around it to zero."""
    if not isinstance(stmt, For) or not covers(stmt, tile, scope):
        return False
    (clear,) = stmt.body
    return isinstance(clear, Assign) and not clear.accumulate and clear.value in (Const(0), Const(0.0))


def covers(nest: For, tile: Tile, scope: Scope) -> bool:
    """Say whether a nest assigns to all elements of a tile around it, or adds to them."""
    stmt = nest.body[0]
    if len(nest.body) > 1 or not isinstance(stmt, Assign) or stmt.target.buffer != tile.name:
        return False
    steps = [np.eye(len(nest.axes), dtype=int)[n] for n in range(len(nest.axes))]  # one of each axis
    moved, *_ = footprint(scope, nest.axes, steps, stmt.target)
    start, *_ = footprint(scope, nest.axes, [0 * step for step in steps], stmt.target)
    extents = [scope.extent(axis) or 1 if moves else 1 for axis, moves in zip(nest.axes, moved != start, strict=True)]
    addresses, *_ = footprint(scope, nest.axes, [grid.ravel() for grid in np.indices(extents)], stmt.target)
    return len(np.unique(addresses)) == prod(tile.shape)


def _divisors(operand: Operand) -> set[int]:
    """Return the constants that indices are divided by."""
    parts = [part for part in walk_expressions(operand) if isinstance(part, Op) and part.name in ("//", "%")]
    return {int(part.args[1].value) for part in parts if isinstance(part.args[1], Const)}


class _Trial:
    """One choice of everything that is not known: made up, or as near as can be below `end` if that is not 0."""

    def __init__(self, scope: Scope, trial: int, end: int, given: Mapping[str, np.ndarray]) -> None:
        self.scope = scope
        self.trial = trial
        self.end = end
        self.given = given
        self.values: dict[str, Any] = {}
        self.cursors: dict[tuple[str, int], Cursor] = {}

    def addresses(self, axes: Sequence[Axis], indices: Sequence[np.ndarray], operand: Operand) -> np.ndarray:
        for axis, index in zip(axes, indices, strict=True):
            self.bind(axis, index)
        count = len(indices[0]) if indices else 1
        if isinstance(operand, Stored):
            return np.broadcast_to(self.position(operand.buffer), count)
        if isinstance(operand, Var):
            walk = next(axis for axis in axes if isinstance(axis, Walk) and axis.var == operand.name)
            return np.broadcast_to(self.cursors[walk.buffer, walk.level].position, count)
        return np.broadcast_to(self.element(operand), count)

    def element(self, load: Load) -> Any:
        """Return the address of an element of a row-major buffer."""
        address: Any = 0
        for index, extent in zip(load.indices, self.scope.buffers[load.buffer].shape, strict=True):
            address = address * (extent if isinstance(extent, int) else self.variable(extent)) + self.evaluate(index)
        return address

    def bind(self, axis: Axis, index: np.ndarray) -> None:
        """Give an axis its value in each iteration."""
        if isinstance(axis, Range):
            self.values[axis.var] = self.evaluate(axis.start) + axis.step * index
            return
        if axis.at is not None:
            place = self.evaluate(axis.at)
            cursor = Cursor(place, place)
        else:
            cursor = self.visit(axis, index)
        if axis.var in self.given:
            cursor = replace(cursor, coordinate=self.given[axis.var])
        self.cursors[axis.buffer, axis.level] = cursor
        self.values[axis.var] = index if axis.part else cursor.coordinate

    def visit(self, axis: Walk, index: np.ndarray) -> Cursor:
        level = self.scope.level(axis)

        def load(name: str, at: Any) -> Any:
            return self.made_up(f"{axis.buffer}.{axis.level}.{name}", at)

        if axis.part:
            run = self.cursor(axis.buffer, axis.level)
            return level.in_run(run.position, index, load)
        parent = ROOT if isinstance(level, Dense) else self.cursor(axis.buffer, axis.level - 1)
        visit = level.visit(self.scope.axis(axis), parent, load)
        try:
            next(visit)
            while True:
                visit.send(index)
        except StopIteration as end:
            cursor: Cursor = end.value
        return cursor

    def cursor(self, buffer: str, level: int) -> Cursor:
        """Return where the walk of a level stands; the position in a dense one follows from those above it."""
        if level < 0:
            return ROOT
        key = buffer, level
        layout = self.scope.layout(buffer)
        size = layout.sizes(self.scope.buffers[buffer].extents)[level]
        if key not in self.cursors:
            coordinate = self.made_up(f"{buffer}.{level}.coordinate", 0) % size
            self.cursors[key] = Cursor(self.made_up(f"{buffer}.{level}.position", 0), coordinate)
        found = self.cursors[key]
        if not isinstance(layout.levels[level][1], Dense):
            return found
        return replace(found, position=self.cursor(buffer, level - 1).position * size + found.coordinate)

    def position(self, buffer: str) -> Any:
        """Return where the value is stored on which the walks of a packed operand stand."""
        layout = self.scope.layout(buffer)
        position = self.cursor(buffer, len(layout.levels) - 1).position
        lane = self.cursor(buffer, layout.leaf - 1).lane if layout.leaf else None
        return layout.slot(position, lane)

    def evaluate(self, value: Expr) -> Any:
        """Return an index in each iteration."""
        if isinstance(value, Const):
            return value.value
        if isinstance(value, Var):
            return self.variable(value.name)
        if isinstance(value, Coordinate):
            return self.coordinate(value)
        if isinstance(value, Position):
            return self.position(value.buffer)
        if isinstance(value, Stored):
            return self.made_up(value.buffer, self.position(value.buffer))
        if isinstance(value, Load):
            held = self.given.get(value.buffer)
            return self.made_up(value.buffer, self.element(value)) if held is None else held
        assert isinstance(value, Op)
        return _OPERATIONS[value.name](*(self.evaluate(arg) for arg in value.args))

    def variable(self, name: str) -> Any:
        """Return the value of a loop or a symbol; one that is not known takes steps as its loop does."""
        if name not in self.values:
            found = self.scope.ranges.get(name)
            start, step = (self.evaluate(found.start), found.step) if found is not None else (0, 1)
            count = (self.end - 1 - start) // step if self.end else self.made_up(name, 0)
            self.values[name] = start + count * step
        return self.values[name]

    def coordinate(self, value: Coordinate) -> Any:
        """Return a logical coordinate: as `Layout.logical`, for one dimension."""
        layout = self.scope.layout(value.buffer)
        place: Any = 0
        for level, (digit, _) in enumerate(layout.levels):
            if digit.dim == value.dim:
                place = place + self.cursor(value.buffer, level).coordinate * digit.divisor
        ordered = any(dim == value.dim for dim, _ in layout.orders)
        return self.made_up(f"{value.buffer}.{value.dim}.order", place) if ordered else place

    def made_up(self, name: str, index: Any) -> Any:
        """Return numbers below 2¹⁶ that nothing but the name, the index and the trial decides."""
        if self.end:
            return np.full_like(index, self.end - 1)
        seed = zlib.crc32(f"{name} {self.trial}".encode())
        mixed = (np.asarray(index) + seed) % PRIME
        for _ in range(3):  # squares, so that differences of indices tell nothing
            mixed = (mixed * mixed + seed) % PRIME
        return mixed % 2**16


_OPERATIONS: dict[str, Callable[..., Any]] = {
    **ON_INTEGERS,
    "&": np.bitwise_and,
    "^": np.bitwise_xor,
    "abs": np.abs,
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "and": np.logical_and,
    "select": np.where,
}
