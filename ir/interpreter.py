"""The meaning of kernels, in NumPy.

Statements run one after the other and loops run in order, parallel ones too. What is loaded is converted to the element
type of the assignment's target, float32 where that is of half precision or 8 bits, and every operation rounds to it; a
product and the sum that takes it are two operations (compiled code may fuse them). Integers wrap around. `select`
evaluates only the side that it takes. Walks go through the layout protocol, so that each level means here what it means
in generated code.

Memory that was never written holds NaN, or the greatest integer, so that a missing assignment shows.

Each statement and expression is looked at once and becomes a function without arguments, which iterations call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from sparsec.errors import KernelError
from sparsec.ir.abreast import runs_abreast
from sparsec.ir.kernel import (
    COMPARISONS,
    Assign,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Op,
    Position,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    walk_expressions,
)
from sparsec.ir.levels import ROOT, Cursor, Dense
from sparsec.ir.operations import INDEX, OPERATIONS, convert, saturated, uninitialised
from sparsec.ir.packed import Packed
from sparsec.ir.printer import print_expression, print_statement
from sparsec.ir.types import BYTES
from sparsec.ir.types import widest as widest_float
from sparsec.ir.verifier import verify

Run = Callable[[], None]
Value = Callable[[], Any]  # returns a number, or an array [lanes]; of a comparison, a truth value


def interpret(
    kernel: Kernel, arrays: Mapping[str, np.ndarray | Packed], symbols: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Run a kernel, and return its outputs by name.

    >>> from sparsec.ir.parser import parse_kernel
    >>> kernel = parse_kernel('''
    ... kernel double(X: float32[n]) -> Y: float32[n]:
    ...     for i in range(0, n):
    ...         Y[i] = X[i] * 2.0
    ... ''')
    >>> interpret(kernel, {"X": np.array([1, 2, 3], dtype=np.float32)})["Y"].tolist()
    [2.0, 4.0, 6.0]

    Parameters
    ----------
    arrays : every input by name, of the type and shape that the kernel declares; a packed one may be given unpacked
    symbols : the symbolic dimensions that no input has

    Raises
    ------
    KernelError : if the kernel does not verify, an input does not fit it, or an index is out of bounds
    """
    verify(kernel)
    state = _Interpreter(kernel, arrays, symbols or {})
    run = state.body(kernel.body)
    with np.errstate(all="ignore"):
        run()
    return {buffer.name: state.arrays[buffer.name] for buffer in kernel.outputs}


class _Interpreter:
    """The state of a run: arrays and tiles, packed operands, where the walks of each stand, and variables.

    In the innermost loop over `lanes` its variable holds all its values at once, int64 [lanes].
    """

    def __init__(self, kernel: Kernel, given: Mapping[str, np.ndarray | Packed], symbols: Mapping[str, int]) -> None:
        self.kernel = kernel
        self.types: dict[str, str] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.packed: dict[str, Packed] = {}
        self.cursors: dict[str, dict[int, Cursor]] = {}
        self.values: dict[str, Any] = dict(symbols)
        self.lanes = ""  # of the loop whose body is looked at
        if unknown := set(given).difference(buffer.name for buffer in kernel.inputs):
            raise KernelError(f"Kernel {kernel.name} has no input {min(unknown)}.")
        for buffer in kernel.inputs:
            if buffer.name not in given:
                raise KernelError(f"Kernel {kernel.name} needs the input {buffer.name}.")
            self.bind(buffer, given[buffer.name])
        for buffer in kernel.outputs:
            if missing := [dim for dim in buffer.shape if isinstance(dim, str) and dim not in self.values]:
                raise KernelError(f"Kernel {kernel.name} has no input that tells {missing[0]}; pass it in symbols.")
            shape = tuple(self.values[dim] if isinstance(dim, str) else dim for dim in buffer.shape)
            self.arrays[buffer.name] = uninitialised(shape, buffer.dtype)
            self.types[buffer.name] = buffer.dtype

    def bind(self, buffer: Buffer, given: np.ndarray | Packed) -> None:
        where = f"Input {buffer.name} of kernel {self.kernel.name}"
        if buffer.layout is not None and not isinstance(given, Packed):
            given = buffer.layout.pack(np.asarray(given))
        if isinstance(given, Packed):
            if given.layout != buffer.layout:
                taken = buffer.layout or "dense"
                raise KernelError(f"{where} is packed as {given.layout}, but the kernel takes it {taken}.")
            values = given.arrays["data"]
            self.packed[buffer.name], self.cursors[buffer.name] = given, {}
        else:
            given = values = np.asarray(given)
            self.arrays[buffer.name] = given
        self.types[buffer.name] = buffer.dtype
        if values.dtype != np.dtype(buffer.dtype):
            raise KernelError(f"{where} must have type {buffer.dtype}, not {values.dtype}.")
        if len(given.shape) != len(buffer.shape):
            raise KernelError(f"{where} must have {len(buffer.shape)} dimensions, not {len(given.shape)}.")
        for dim, extent in zip(buffer.shape, given.shape, strict=True):
            expected = self.values.setdefault(dim, extent) if isinstance(dim, str) else dim
            if extent != expected:
                raise KernelError(f"{where} has extent {extent} where {dim} is {expected}.")

    # -- statements ------------------------------------------------------------------------------------------------

    def body(self, body: tuple[Stmt, ...]) -> Run:
        steps = [(self.statement(stmt), stmt) for stmt in body]

        def run() -> None:
            for step, stmt in steps:
                try:
                    step()
                except IndexError as error:
                    where = f"Kernel {self.kernel.name} fails in `{print_statement(stmt)}`"
                    raise KernelError(f"{where}: {error}.") from error

        return run

    def statement(self, stmt: Stmt) -> Run:
        if isinstance(stmt, For):
            return self.loops(stmt, 0)
        if isinstance(stmt, If):
            return self.branch(stmt)
        return self.tile(stmt) if isinstance(stmt, Tile) else self.assign(stmt)

    def tile(self, stmt: Tile) -> Run:
        self.types[stmt.name] = stmt.dtype
        body, arrays, empty = self.body(stmt.body), self.arrays, uninitialised(stmt.shape, stmt.dtype)

        def run() -> None:
            arrays[stmt.name] = empty.copy()
            body()

        return run

    def loops(self, stmt: For, depth: int) -> Run:
        """Run the loops of a nest from axis `depth` inwards."""
        if depth == len(stmt.axes):
            return self.body(stmt.body)
        axis = stmt.axes[depth]
        if isinstance(axis, Walk):
            return self.walk(axis, self.loops(stmt, depth + 1))
        abreast = depth == len(stmt.axes) - 1 and runs_abreast(axis, stmt.body)
        self.lanes = axis.var if abreast else ""
        body, values, var = self.loops(stmt, depth + 1), self.values, axis.var
        self.lanes = ""
        start, stop = self.value(axis.start, INDEX), self.value(axis.stop, INDEX)

        def run() -> None:
            for values[var] in range(start(), stop(), axis.step):
                body()

        def run_abreast() -> None:
            values[var] = np.arange(start(), stop(), axis.step)
            body()

        return run_abreast if abreast else run

    def walk(self, axis: Walk, body: Run) -> Run:
        """Run the body where a level stands, one iteration after the other."""
        cursors, values, level, part = self.cursors[axis.buffer], self.values, axis.level, axis.part
        fiber = self.fiber(axis)

        def run() -> None:
            around = cursors.get(level)  # the run, where its places are walked
            for cursor in fiber():
                cursors[level] = cursor
                values[axis.var] = {"runs": cursor.position, "run": cursor.lane}[part] if part else cursor.coordinate
                body()
            if around is not None:
                cursors[level] = around

        return run

    def fiber(self, axis: Walk) -> Callable[[], list[Cursor]]:
        """Return where a level stands, one iteration after the other; each fiber is visited once, and remembered."""
        if axis.at is not None:
            return self.given(axis)
        packed, level = self.packed[axis.buffer], axis.level
        dense = isinstance(packed.layout.levels[level][1], Dense)
        if axis.part == "run":
            parent, visit = self.stand(axis.buffer, level), packed.run
        else:
            parent, visit = self.stand(axis.buffer, -1 if dense else level - 1), packed.children
        step = packed.layout.together if axis.part == "runs" else 1
        known: dict[Cursor, list[Cursor]] = {}

        def cursors() -> list[Cursor]:
            above = parent()
            if above not in known:
                known[above] = list(islice(visit(level, above), 0, None, step))
            return known[above]

        return cursors

    def given(self, axis: Walk) -> Callable[[], list[Cursor]]:
        """Return where a dense level stands at the coordinate that a walk is given."""
        packed = self.packed[axis.buffer]
        assert axis.at is not None
        at, extent = self.value(axis.at, INDEX), packed.layout.sizes(packed.shape)[axis.level]

        def cursors() -> list[Cursor]:
            coordinate = int(at())
            if not 0 <= coordinate < extent:
                where = f"{axis.buffer}[{axis.level}]"
                raise IndexError(f"{where} has the extent {extent}, and no coordinate {coordinate}")
            return [Cursor(coordinate, coordinate)]

        return cursors

    def branch(self, stmt: If) -> Run:
        condition, body = self.value(stmt.condition, INDEX), self.body(stmt.body)
        values, name = self.values, self.lanes

        def run() -> None:
            holds = condition()
            if not isinstance(holds, np.ndarray):
                if holds:
                    body()
                return
            lanes = values[name]
            values[name] = lanes[holds]
            body()
            values[name] = lanes

        return run

    def assign(self, stmt: Assign) -> Run:
        name, arrays = stmt.target.buffer, self.arrays
        dtype = np.dtype(stmt.computed_in(self.types.__getitem__))
        value, place = self.value(stmt.value, dtype), self.place(stmt.target)
        saturates = self.types[name] in BYTES

        def run() -> None:
            found, target, index = value(), arrays[name], place()
            if stmt.accumulate:
                found = convert(target[index], dtype) + found
            target[index] = saturated(found, target.dtype) if saturates else found

        return run

    # -- expressions -----------------------------------------------------------------------------------------------

    def value(self, value: Expr, dtype: np.dtype) -> Value:
        """Return what evaluates an expression in `dtype`."""
        if isinstance(value, Const):
            constant = int(value.value) if dtype is INDEX else dtype.type(value.value)
            return lambda: constant
        if isinstance(value, Var):
            values, name = self.values, value.name
            return lambda: convert(values[name], dtype)
        if isinstance(value, Load):
            arrays, buffer, place = self.arrays, value.buffer, self.place(value)
            return lambda: convert(arrays[buffer][place()], dtype)
        if isinstance(value, Stored):
            data, position = self.packed[value.buffer].arrays["data"], self.position(value.buffer)
            return lambda: convert(data[position()], dtype)
        if isinstance(value, Position | Coordinate):
            index = self.position(value.buffer) if isinstance(value, Position) else self.coordinate(value)
            return lambda: convert(index(), dtype)
        assert isinstance(value, Op)
        return self.operation(value, dtype)

    def operation(self, value: Op, dtype: np.dtype) -> Value:
        if value.name == "select":
            return self.select(value, dtype)
        if value.name == "float":
            operand = self.value(value.args[0], np.dtype(np.int32))
            return lambda: convert(operand(), dtype)
        if value.name in COMPARISONS:
            dtype = self.widest(value)
        function, (first, *others) = OPERATIONS[value.name], (self.value(arg, dtype) for arg in value.args)
        if not others:
            return lambda: function(first())
        (second,) = others
        return lambda: function(first(), second())

    def select(self, value: Op, dtype: np.dtype) -> Value:
        condition, *sides = value.args
        holds, first, second = self.value(condition, INDEX), *(self.value(side, dtype) for side in sides)
        values, name = self.values, self.lanes

        def run() -> Any:
            taken = holds()
            if not isinstance(taken, np.ndarray):
                return first() if taken else second()
            lanes = values[name]
            found = np.empty(len(lanes), dtype=dtype)
            for some, side in ((taken, first), (~taken, second)):
                values[name] = lanes[some]
                found[some] = side()
            values[name] = lanes
            return found

        return run

    def place(self, load: Load) -> Callable[[], tuple[Any, ...]]:
        """Return the indices of an element, which must be inside its array."""
        arrays, indices = self.arrays, [self.value(index, INDEX) for index in load.indices]

        def place() -> tuple[Any, ...]:
            found = tuple([index() for index in indices])
            for index, extent in zip(found, arrays[load.buffer].shape, strict=True):
                least, most = (index, index) if not isinstance(index, np.ndarray) else _bounds(index)
                if least < 0 or most >= extent:
                    text, reached = print_expression(load), least if least < 0 else most
                    raise IndexError(f"{text} has the index {reached} in a dimension of extent {extent}")
            return found

        return place

    def stand(self, buffer: str, level: int) -> Callable[[], Cursor]:
        """Return where the walk of a level stands; the position in a dense one follows from those above it."""
        if level < 0:
            return lambda: ROOT
        cursors, packed = self.cursors[buffer], self.packed[buffer]
        if not isinstance(packed.layout.levels[level][1], Dense):
            return lambda: cursors[level]
        above, size = self.stand(buffer, level - 1), packed.layout.sizes(packed.shape)[level]

        def cursor() -> Cursor:
            coordinate = cursors[level].coordinate
            return Cursor(above().position * size + coordinate, coordinate)

        return cursor

    def position(self, buffer: str) -> Callable[[], int]:
        """Return where the value is stored on which the walks of a packed operand stand."""
        layout, cursors = self.packed[buffer].layout, self.cursors[buffer]
        last, leaf = self.stand(buffer, len(layout.levels) - 1), layout.leaf
        if layout.together == 1:
            return lambda: last().position
        return lambda: layout.slot(last().position, cursors[leaf - 1].lane)

    def coordinate(self, value: Coordinate) -> Callable[[], int]:
        """Return the logical coordinate: as `Layout.logical`, for one dimension whose digits are all walked."""
        packed, cursors = self.packed[value.buffer], self.cursors[value.buffer]
        levels = enumerate(packed.layout.levels)
        digits = [(level, digit.divisor) for level, (digit, _) in levels if digit.dim == value.dim]

        def place() -> int:
            return sum([cursors[level].coordinate * divisor for level, divisor in digits])

        ordered = any(dim == value.dim for dim, _ in packed.layout.orders)
        return (lambda: int(packed.load(f"{value.dim}.order", place()))) if ordered else place

    def widest(self, comparison: Expr) -> np.dtype:
        """Return the type in which operands are compared: int64, or the widest float among them."""
        parts = list(walk_expressions(comparison))
        loaded = [self.types[part.buffer] for part in parts if isinstance(part, Load | Stored)]
        if widest := widest_float(loaded):
            return np.dtype(widest)
        constant = any(isinstance(part, Const) and isinstance(part.value, float) for part in parts)
        return np.dtype(np.float64) if constant else INDEX


def _bounds(index: np.ndarray) -> tuple[int, int]:
    """Return the least and the greatest of some indices."""
    return (index.min(), index.max()) if index.size else (0, -1)
