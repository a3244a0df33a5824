"""Where a lowering stands: the values of indices, the cursors of walks, and expressions in terms of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from sparsec.ir.float8 import is_float8, to_float32
from sparsec.ir.gather import find_gather
from sparsec.ir.kernel import (
    COMPARISONS,
    Assign,
    Axis,
    Const,
    Coordinate,
    Expr,
    Kernel,
    Load,
    Op,
    Position,
    Range,
    Stored,
    Tile,
    Var,
    Walk,
    walk_expressions,
)
from sparsec.ir.levels import ROOT, Cursor, Dense, Loop
from sparsec.ir.levels import Axis as LevelAxis
from sparsec.ir.nibbles import load_nibble
from sparsec.ir.types import BYTES, is_float, widest


class Standing:
    """Turns the expressions of a kernel into TIR at one place of its loops.

    `handles` are TIR buffers by name: dense ones, `tiles`, and `operand.array` of packed ones. `ranges` are loops and
    `walks` those of levels, by variable, `values` loop indices and symbols, `cursors` the position and coordinate in
    each walked level of a packed operand, and `ordered` the coordinates of permuted dimensions that were looked up.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.handles: dict[str, Any] = {}
        self.tiles: dict[str, Tile] = {}
        self.ranges: dict[str, Range] = {}
        self.values: dict[str, Any] = {}
        self.walks: dict[str, Walk] = {}
        self.cursors: dict[str, dict[int, Cursor]] = {b.name: {} for b in kernel.inputs if b.layout}
        self.ordered: dict[Coordinate, Any] = {}
        self.gathers = {b.name: g for b in kernel.inputs if b.layout and (g := find_gather(kernel, b.name))}

    # -- loops -----------------------------------------------------------------------------------------------------

    def bind(self, axis: Axis, variables: list[Any], bound: bool) -> None:
        """Give the axis its value for these loop variables; `bound` keeps what is loaded in variables of the block."""
        if isinstance(axis, Range):
            self.ranges[axis.var] = axis
            start = self.expr(axis.start)
            self.values[axis.var] = start + variables[0] * axis.step if axis.step != 1 else start + variables[0]
            return
        self.walks[axis.var] = axis
        if axis.at is not None:
            row = keep(self.expr(axis.at), axis.var) if bound else self.expr(axis.at)
            self.cursors[axis.buffer][axis.level] = Cursor(row, row)
            self.values[axis.var] = row
            return
        if axis.part:
            self.bind_part(axis, variables[0], bound)
            return
        visit = self.visit(axis, bound)
        try:
            next(visit)
            for variable in variables:
                visit.send(variable)
        except StopIteration as end:
            cursor: Cursor = end.value
            if bound and not isinstance(self.level(axis), Dense):
                cursor = replace(cursor, position=keep(cursor.position, "position"))
            self.cursors[axis.buffer][axis.level] = cursor
            self.values[axis.var] = cursor.coordinate

    def bind_part(self, axis: Walk, variable: Any, bound: bool) -> None:
        """Stand on a run, or on a place of the run on which the walk stands."""
        cursors = self.cursors[axis.buffer]
        if axis.part == "run":
            load = self.loader(axis, bound)
            cursors[axis.level] = self.level(axis).in_run(cursors[axis.level].position, variable, load)
        else:
            visit = self.visit(axis, bound=False)
            next(visit)
            visit.send(variable)
            try:
                visit.send(0)
            except StopIteration as end:
                position = end.value.position
                cursors[axis.level] = Cursor(keep(position, "position") if bound else position, None)
        self.values[axis.var] = variable

    def visit(self, axis: Walk, bound: bool, coordinates: bool = True) -> Any:
        """Visit a level; without `coordinates`, those of consecutive positions stay unloaded."""
        level = self.level(axis)
        parent = ROOT if isinstance(level, Dense) else self.cursor(axis.buffer, axis.level - 1)
        return level.visit(self.axes(axis.buffer)[axis.level], parent, self.loader(axis, bound, coordinates))

    def loader(self, axis: Walk, bound: bool, coordinates: bool = True) -> Callable[[str, Any], Any]:
        """Return what reads the arrays of a level; see `visit`."""
        level = self.level(axis)

        def load(name: str, index: Any) -> Any:
            if name == level.consecutive and not coordinates:
                return index
            value = self.handles[f"{axis.buffer}.level{axis.level}.{name}"][index]
            value = convert(value, "uint64" if name in level.words else "int32")
            return keep(value, name) if bound else value

        return load

    def cursor(self, buffer: str, level: int) -> Cursor:
        """Return where the walk of a level stands, all levels above it walked.

        Dense levels are walked in any order, so their positions are found here, where they are needed.
        """
        if level < 0:
            return ROOT
        found = self.cursors[buffer][level]
        layout, axes = self.kernel.buffers[buffer].layout, self.axes(buffer)
        assert layout is not None
        if not isinstance(layout.levels[level][1], Dense):
            return found
        return replace(found, position=self.cursor(buffer, level - 1).position * axes[level].size + found.coordinate)

    def extent(self, axis: Axis) -> Any:
        """Return how often the outermost loop of an axis runs."""
        if isinstance(axis, Range):
            span = self.expr(axis.stop) - self.expr(axis.start)
            return span if axis.step == 1 else (span + (axis.step - 1)) // axis.step
        if axis.part == "run":
            return self.level(axis).together
        loop: Loop = next(self.visit(axis, bound=False))
        return loop.extent

    def level(self, axis: Walk) -> Any:
        """Return the level that an axis walks."""
        layout = self.kernel.buffers[axis.buffer].layout
        assert layout is not None, f"{axis.buffer} has no levels"
        return layout.levels[axis.level][1]

    def axes(self, buffer: str) -> tuple[LevelAxis, ...]:
        """Return what the levels of a packed operand know of their places."""
        operand = self.kernel.buffers[buffer]
        assert operand.layout is not None
        return operand.layout.axes(operand.extents)

    # -- expressions -----------------------------------------------------------------------------------------------

    def expr(self, value: Expr, dtype: str = "int32") -> Any:
        """Return `value` as a TIR expression whose arithmetic is carried out in `dtype`."""
        if isinstance(value, Const):
            return value.value if dtype == "int32" and isinstance(value.value, int) else tirx.const(value.value, dtype)
        if isinstance(value, Var):
            return convert(self.values[value.name], dtype)
        if isinstance(value, Coordinate):
            return convert(self.coordinate(value.buffer, value.dim), dtype)
        if isinstance(value, Stored):
            return convert(self.stored(value.buffer), dtype)
        if isinstance(value, Position):
            return convert(self.position(value.buffer), dtype)
        if isinstance(value, Load):
            return convert(self.handles[value.buffer][tuple(self.place(value))], dtype)
        assert isinstance(value, Op)
        return self._op(value, dtype)

    def place(self, load: Load) -> list[Any]:
        """Return the indices of an element in the TIR buffer; tiles are flat there, so that vectors may span rows."""
        indices = [self.index(index) for index in load.indices]
        if load.buffer not in self.tiles:
            return indices
        flat, *inner = indices or [0]
        for index, extent in zip(inner, self.tiles[load.buffer].shape[1:], strict=True):
            flat = flat * extent + index
        return [flat]

    def index(self, value: Expr) -> Any:
        """Return an index; where the stored coordinates were made offsets, the gather is their sum with the base's."""
        for name, gather in self.gathers.items():
            if split := gather.split(value):
                base, rest = split
                if gather.level is None:
                    total = self.coordinate(name, gather.dim)
                else:
                    values = self.values
                    self.values = {"k": self.coordinate(name, gather.dim, skip=gather.level)}
                    total = self.expr(base) + self.cursors[name][gather.level].coordinate
                    self.values = values
                for term in rest:
                    total = total + self.expr(term)
                return total
        return self.expr(value)

    def stored(self, buffer: str) -> Any:
        """Return the value on which the walks of a packed operand stand."""
        data, position = self.handles[f"{buffer}.data"], self.position(buffer)
        return load_nibble(data, position) if self.kernel.buffers[buffer].dtype == "int4" else data[position]

    def position(self, buffer: str) -> Any:
        """Return where the value is stored on which the walks of a packed operand stand."""
        level = max(self.cursors[buffer])
        layout, position = self.kernel.buffers[buffer].layout, self.cursor(buffer, level).position
        assert layout is not None
        lane = self.cursors[buffer][layout.leaf - 1].lane if layout.leaf else None
        return layout.slot(position, lane)

    def coordinate(self, buffer: str, dim: str, skip: int | None = None) -> Any:
        """Return a logical coordinate where the walks stand, without the digit of the level `skip`."""
        coordinate = Coordinate(buffer, dim)
        if coordinate in self.ordered:
            return self.ordered[coordinate]
        layout = self.kernel.buffers[buffer].layout
        assert layout is not None
        total: Any = 0
        for name, level in sorted(self.digits(coordinate)):
            if level != skip:
                total = total + self.cursors[name][level].coordinate * layout.levels[level][0].divisor
        if self.is_ordered(coordinate):
            total = T.cast(self.handles[f"{buffer}.{dim}.order"][total], "int32")
        return total

    def keep_ordered(self, stmt: Assign, lanes: tuple[Axis, ...]) -> None:
        """Look up coordinates of permuted dimensions once for all lanes, which an instruction could not do."""
        walked = {(axis.buffer, axis.level) for axis in lanes if isinstance(axis, Walk)}
        for part in [*walk_expressions(stmt.value), *walk_expressions(stmt.target)]:
            if isinstance(part, Coordinate) and self.is_ordered(part) and not walked & self.digits(part):
                self.ordered[part] = keep(self.coordinate(part.buffer, part.dim), part.dim)

    def digits(self, coordinate: Coordinate) -> set[tuple[str, int]]:
        """Return the levels that hold digits of a coordinate, each with the name of its operand."""
        layout = self.kernel.buffers[coordinate.buffer].layout
        assert layout is not None
        levels = enumerate(layout.levels)
        return {(coordinate.buffer, level) for level, (digit, _) in levels if digit.dim == coordinate.dim}

    def is_ordered(self, coordinate: Coordinate) -> bool:
        """Say whether the dimension is permuted, so that its order must be read."""
        layout = self.kernel.buffers[coordinate.buffer].layout
        assert layout is not None
        return any(dim == coordinate.dim for dim, _ in layout.orders)

    def _op(self, value: Op, dtype: str) -> Any:
        if value.name == "select":
            condition, a, b = value.args
            # TVM makes vectors of Select only; it computes both sides, which a condition on data does not guard.
            data = any(isinstance(part, Load | Stored) for part in walk_expressions(condition))
            select = tirx.Select if data else T.if_then_else
            return select(self.expr(condition), self.expr(a, dtype), self.expr(b, dtype))
        if value.name == "float":
            return convert(self.expr(value.args[0], "int32"), dtype)
        if value.name in COMPARISONS:
            return self._emit(value, widest(self._loaded(value)) or self._of_integers(value))
        if dtype == "int32" and value.name in ("max", "min", "%"):  # what is brought in range may not fit before
            return convert(self._emit(value, self._of_integers(value)), dtype)
        return self._emit(value, dtype)

    def _emit(self, value: Op, dtype: str) -> Any:
        return _EMIT[value.name](*(self.expr(arg, dtype) for arg in value.args))

    def _of_integers(self, value: Op) -> str:
        """Return the type that holds the indices and all integers that are loaded in an expression."""
        return "int64" if {"int64", "uint32"} & set(self._loaded(value)) else "int32"

    def _loaded(self, value: Op) -> list[str]:
        """Return the types of what is loaded in an expression."""
        loads = [part for part in walk_expressions(value) if isinstance(part, Load | Stored)]
        names = [part.buffer if isinstance(part, Load) else f"{part.buffer}.data" for part in loads]
        return [str(self.handles[name].dtype) for name in names]


def convert(value: Any, dtype: str) -> Any:
    """Return a loaded value or an index in `dtype`."""
    if isinstance(value, int) or str(value.ty.dtype) == dtype:
        return value
    return T.cast(to_float32(value) if is_float8(str(value.ty.dtype)) else value, dtype)


ROUNDS = 1.5 * 2**23
"""A float32 whose last place is 1: what is added to it is rounded to an integer, which stands in the lowest bits."""


def store(value: Any, dtype: str) -> Any:
    """Return a computed value in the type that it is stored in; 8 bits are rounded to nearest even, and saturate."""
    if dtype not in BYTES or isinstance(value, int) or not is_float(str(value.ty.dtype)):
        return convert(value, dtype)
    limits = np.iinfo(dtype)
    low, high = (tirx.const(float(limit), "float32") for limit in (limits.min, limits.max))
    inside = tirx.min(tirx.max(value, low), high)  # NaN is the lowest
    bits = tirx.reinterpret("int32", inside + tirx.const(ROUNDS, "float32"))
    return T.cast(bits, dtype)


def keep(value: Any, name: str) -> Any:
    """Bind a value to a variable of the block, so that it is computed once."""
    variable = T.Bind(value)
    IRBuilder.name(name, variable)
    return variable


def _constant_first(a: Any, b: Any) -> tuple[Any, Any]:
    """Order the operands of an extremum, which is the second one if either is NaN, so that no NaN is lost."""
    return (b, a) if isinstance(b, tirx.FloatImm) else (a, b)


_EMIT = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": tirx.bitwise_and,
    "^": tirx.bitwise_xor,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: tirx.EQ(a, b),
    "and": tirx.all,
    "abs": tirx.abs,
    "erf": tirx.erf,
    "exp": tirx.exp,
    "log": tirx.log,
    "max": lambda a, b: tirx.max(*_constant_first(a, b)),
    "min": lambda a, b: tirx.min(*_constant_first(a, b)),
    "popcount": tirx.popcount,
    "pow": tirx.power,
    "round": tirx.nearbyint,
    "rsqrt": tirx.rsqrt,
    "sigmoid": tirx.sigmoid,
    "sqrt": tirx.sqrt,
    "tanh": tirx.tanh,
}
