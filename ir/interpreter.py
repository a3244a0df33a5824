"""The meaning of kernels, in NumPy.

Statements run one after the other and loops run in order, parallel ones too. What is loaded is converted to the element
type of the assignment's target, float32 where that is of half precision or 8 bits, and every operation rounds to it; a
product and the sum that takes it are two operations (compiled code may fuse them). Integers wrap around. `select`
evaluates only the side that it takes. Walks go through the layout protocol, so that each level means here what it means
in generated code.

Memory that was never written holds NaN, or the greatest integer, so that a missing assignment shows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from sparsec.errors import KernelError
from sparsec.ir.kernel import (
    COMPARISONS,
    Assign,
    Axis,
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
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    walk_expressions,
)
from sparsec.ir.levels import ROOT, Cursor, Dense
from sparsec.ir.packed import Packed
from sparsec.ir.printer import print_expression, print_statement
from sparsec.ir.types import BYTES, is_float
from sparsec.ir.types import widest as widest_float
from sparsec.ir.verifier import verify

INDEX = np.dtype(np.int64)


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
    run = _Run(kernel, arrays, symbols or {})
    with np.errstate(all="ignore"):
        run.body(kernel.body)
    return {buffer.name: run.arrays[buffer.name] for buffer in kernel.outputs}


class _Run:
    """The state of a run: arrays and tiles, packed operands, where the walks of each stand, and variables.

    In the innermost loop over `lanes` its variable holds all its values at once, int64 [lanes].
    """

    def __init__(self, kernel: Kernel, given: Mapping[str, np.ndarray | Packed], symbols: Mapping[str, int]) -> None:
        self.kernel = kernel
        self.arrays: dict[str, np.ndarray] = {}
        self.packed: dict[str, Packed] = {}
        self.cursors: dict[str, dict[int, Cursor]] = {}
        self.values: dict[str, Any] = dict(symbols)
        self.lanes = ""
        self.abreast: dict[int, bool] = {}  # by id of a nest: whether its last loop can run so
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
            self.arrays[buffer.name] = _uninitialised(shape, buffer.dtype)

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
        if values.dtype != np.dtype(buffer.dtype):
            raise KernelError(f"{where} must have type {buffer.dtype}, not {values.dtype}.")
        if len(given.shape) != len(buffer.shape):
            raise KernelError(f"{where} must have {len(buffer.shape)} dimensions, not {len(given.shape)}.")
        for dim, extent in zip(buffer.shape, given.shape, strict=True):
            expected = self.values.setdefault(dim, extent) if isinstance(dim, str) else dim
            if extent != expected:
                raise KernelError(f"{where} has extent {extent} where {dim} is {expected}.")

    # -- statements ------------------------------------------------------------------------------------------------

    def body(self, body: tuple[Stmt, ...]) -> None:
        for stmt in body:
            try:
                self.statement(stmt)
            except IndexError as error:
                where = f"Kernel {self.kernel.name} fails in `{print_statement(stmt)}`"
                raise KernelError(f"{where}: {error}.") from error

    def statement(self, stmt: Stmt) -> None:
        if isinstance(stmt, For):
            self.loops(stmt, 0)
        elif isinstance(stmt, If):
            self.branch(stmt)
        elif isinstance(stmt, Tile):
            self.arrays[stmt.name] = _uninitialised(stmt.shape, stmt.dtype)
            self.body(stmt.body)
            del self.arrays[stmt.name]
        else:
            self.assign(stmt)

    def loops(self, stmt: For, depth: int) -> None:
        """Run the loops of a nest from axis `depth` inwards."""
        if depth == len(stmt.axes):
            self.body(stmt.body)
            return
        axis = stmt.axes[depth]
        if isinstance(axis, Range):
            start, stop = int(self.evaluate(axis.start, INDEX)), int(self.evaluate(axis.stop, INDEX))
            if depth == len(stmt.axes) - 1 and self.runs_abreast(stmt):
                self.values[axis.var], self.lanes = np.arange(start, stop, axis.step), axis.var
                self.body(stmt.body)
                self.lanes = ""
            else:
                for index in range(start, stop, axis.step):
                    self.values[axis.var] = index
                    self.loops(stmt, depth + 1)
        else:
            cursors = self.cursors[axis.buffer]
            around = cursors.get(axis.level)  # the run, where its places are walked
            for cursor in self.walk(axis):
                cursors[axis.level] = cursor
                self.values[axis.var] = {"runs": cursor.position, "run": cursor.lane}.get(axis.part, cursor.coordinate)
                self.loops(stmt, depth + 1)
            cursors.pop(axis.level, None)
            if around is not None:
                cursors[axis.level] = around
        self.values.pop(axis.var, None)

    def cursor(self, buffer: str, level: int) -> Cursor:
        """Return where the walk of a level stands; the position in a dense one follows from those above it."""
        if level < 0:
            return ROOT
        found, packed = self.cursors[buffer][level], self.packed[buffer]
        if not isinstance(packed.layout.levels[level][1], Dense):
            return found
        size = packed.layout.sizes(packed.shape)[level]
        return replace(found, position=self.cursor(buffer, level - 1).position * size + found.coordinate)

    def walk(self, axis: Walk) -> Iterable[Cursor]:
        """Return where a level stands, one iteration after the other."""
        packed = self.packed[axis.buffer]
        if axis.part == "run":
            return packed.run(axis.level, self.cursors[axis.buffer][axis.level])
        if axis.part == "runs":
            fiber = packed.children(axis.level, self.cursor(axis.buffer, axis.level - 1))
            return islice(fiber, 0, None, packed.layout.together)
        if axis.at is None:
            dense = isinstance(packed.layout.levels[axis.level][1], Dense)
            return packed.children(axis.level, ROOT if dense else self.cursor(axis.buffer, axis.level - 1))
        coordinate = int(self.evaluate(axis.at, INDEX))
        extent = packed.layout.sizes(packed.shape)[axis.level]
        if not 0 <= coordinate < extent:
            raise IndexError(f"{axis.buffer}[{axis.level}] has the extent {extent}, and no coordinate {coordinate}")
        return [Cursor(coordinate, coordinate)]

    def branch(self, stmt: If) -> None:
        holds = self.evaluate(stmt.condition, INDEX)
        if np.ndim(holds) == 0:
            if holds:
                self.body(stmt.body)
            return
        lanes = self.values[self.lanes]
        self.values[self.lanes] = lanes[holds]
        self.body(stmt.body)
        self.values[self.lanes] = lanes

    def assign(self, stmt: Assign) -> None:
        target = self.arrays[stmt.target.buffer]
        dtype = np.dtype(stmt.computed_in(self.element))
        value = self.evaluate(stmt.value, dtype)
        place = self.place(stmt.target)
        if stmt.accumulate:
            value = _convert(target[place], dtype) + value
        target[place] = value if str(target.dtype) not in BYTES else _saturated(value, target.dtype)

    def element(self, name: str) -> str:
        """Return the type of the elements of a buffer, a packed operand or a tile."""
        found = self.arrays[name] if name in self.arrays else self.packed[name].arrays["data"]
        return str(found.dtype)

    def runs_abreast(self, stmt: For) -> bool:
        """Say whether the iterations of the last loop of a nest can be taken all at once."""
        if id(stmt) not in self.abreast:
            self.abreast[id(stmt)] = _abreast(stmt.axes[-1], stmt.body)
        return self.abreast[id(stmt)]

    # -- expressions -----------------------------------------------------------------------------------------------

    def evaluate(self, value: Expr, dtype: np.dtype) -> Any:
        """Return the value in `dtype`: a number, or an array [lanes]; of a comparison, a truth value."""
        if isinstance(value, Const):
            return dtype.type(value.value)
        if isinstance(value, Var):
            return _convert(self.values[value.name], dtype)
        if isinstance(value, Load):
            return _convert(self.arrays[value.buffer][self.place(value)], dtype)
        if isinstance(value, Stored):
            return _convert(self.packed[value.buffer].arrays["data"][self.position(value.buffer)], dtype)
        if isinstance(value, Position):
            return _convert(self.position(value.buffer), dtype)
        if isinstance(value, Coordinate):
            return _convert(self.coordinate(value), dtype)
        assert isinstance(value, Op)
        if value.name == "float":
            return _convert(self.evaluate(value.args[0], np.dtype(np.int32)), dtype)
        if value.name == "select":
            condition, first, second = value.args
            return self.select(condition, first, second, dtype)
        if value.name in COMPARISONS:
            dtype = self.widest(value)
        return OPERATIONS[value.name](*(self.evaluate(arg, dtype) for arg in value.args))

    def select(self, condition: Expr, first: Expr, second: Expr, dtype: np.dtype) -> Any:
        holds = self.evaluate(condition, INDEX)
        if np.ndim(holds) == 0:
            return self.evaluate(first if holds else second, dtype)
        lanes = self.values[self.lanes]
        found = np.empty(len(lanes), dtype=dtype)
        for taken, side in ((holds, first), (~holds, second)):
            self.values[self.lanes] = lanes[taken]
            found[taken] = self.evaluate(side, dtype)
        self.values[self.lanes] = lanes
        return found

    def place(self, load: Load) -> tuple[Any, ...]:
        """Return the indices of an element, which must be inside its array."""
        shape = self.arrays[load.buffer].shape
        indices = tuple(self.evaluate(index, INDEX) for index in load.indices)
        for index, extent in zip(indices, shape, strict=True):
            if ((index < 0) | (index >= extent)).any():
                text, reached = print_expression(load), np.min(index) if np.min(index) < 0 else np.max(index)
                raise IndexError(f"{text} has the index {reached} in a dimension of extent {extent}")
        return indices

    def position(self, buffer: str) -> int:
        """Return where the value is stored on which the walks of a packed operand stand."""
        layout = self.packed[buffer].layout
        lane = self.cursors[buffer][layout.leaf - 1].lane if layout.leaf else None
        position = self.cursor(buffer, len(layout.levels) - 1).position
        return layout.slot(position, lane)

    def coordinate(self, value: Coordinate) -> int:
        """Return the logical coordinate: as `Layout.logical`, for one dimension whose digits are all walked."""
        packed = self.packed[value.buffer]
        digits = {level: digit for level, (digit, _) in enumerate(packed.layout.levels) if digit.dim == value.dim}
        cursors = self.cursors[value.buffer]
        place = sum(cursors[level].coordinate * digit.divisor for level, digit in digits.items())
        ordered = any(dim == value.dim for dim, _ in packed.layout.orders)
        return int(packed.load(f"{value.dim}.order", place)) if ordered else place

    def widest(self, comparison: Expr) -> np.dtype:
        """Return the type in which operands are compared: int64, or the widest float among them."""
        parts = list(walk_expressions(comparison))
        loaded = [self.arrays[part.buffer].dtype for part in parts if isinstance(part, Load)]
        loaded += [self.packed[part.buffer].arrays["data"].dtype for part in parts if isinstance(part, Stored)]
        if widest := widest_float([str(dtype) for dtype in loaded]):
            return np.dtype(widest)
        constant = any(isinstance(part, Const) and isinstance(part.value, float) for part in parts)
        return np.dtype(np.float64) if constant else INDEX


def _abreast(axis: Axis, body: tuple[Stmt, ...]) -> bool:
    """Say whether each value of `axis` assigns to another element, and reads no element that others assign to."""
    (stmt, *more) = body
    conditions: list[Expr] = []
    if isinstance(stmt, If):
        conditions.append(stmt.condition)
        (stmt, *more) = (*stmt.body, *more)
    if more or not isinstance(stmt, Assign):
        return False
    target = stmt.target
    parts = [part for value in (stmt.value, *conditions, *target.indices) for part in walk_expressions(value)]
    own = all(part == target for part in parts if isinstance(part, Load) and part.buffer == target.buffer)
    return own and any(_counts(index, axis.var) for index in target.indices)


def _counts(index: Expr, var: str) -> bool:
    """Say whether an index is a sum with `var` once as a term, so that it differs for each value of it."""
    if isinstance(index, Op) and index.name == "+":
        first, second = (any(part == Var(var) for part in walk_expressions(arg)) for arg in index.args)
        return first != second and _counts(index.args[0 if first else 1], var)
    return index == Var(var)


def _convert(value: Any, dtype: np.dtype) -> Any:
    """Return a number or an array in `dtype`; integers wrap around."""
    if isinstance(value, np.ndarray | np.generic):
        return value.astype(dtype, copy=False) if value.dtype != dtype else value
    return np.int64(value).astype(dtype)


def _saturated(value: Any, dtype: np.dtype) -> Any:
    """Return numbers rounded to nearest even, as the nearest integers of a type; NaN is the lowest one."""
    if not is_float(value.dtype):
        return value
    limits = np.iinfo(dtype)
    return np.clip(np.where(np.isnan(value), limits.min, np.rint(value)), limits.min, limits.max).astype(dtype)


def _uninitialised(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    return np.full(shape, np.nan if is_float(kind) else np.iinfo(kind).max, dtype=kind)


def _popcount(x: Any) -> Any:
    octets = np.array(x)[..., None].view(np.uint8)
    return np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=x.dtype)


def _erf(x: Any) -> Any:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=x.dtype)[()]


def _sigmoid(x: Any) -> Any:
    one = x.dtype.type(1)
    return one / (one + np.exp(-x))


def _rsqrt(x: Any) -> Any:
    return x.dtype.type(1) / np.sqrt(x)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "^": operator.xor,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "and": operator.and_,
    "abs": np.abs,
    "erf": _erf,
    "exp": np.exp,
    "log": np.log,
    "max": np.maximum,
    "min": np.minimum,
    "popcount": _popcount,
    "pow": np.power,
    "round": np.rint,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
