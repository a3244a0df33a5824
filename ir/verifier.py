"""What a kernel must keep to, beyond its grammar; lowering and the interpreter rely on it.

All arithmetic of an assignment is carried out in the element type of its target, in float32 where that is of half
precision: what is loaded is converted to it first, which must lose nothing. Conditions compare in the widest type of
their operands, and indices are exact integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from sparsec.errors import KernelError, LayoutError
from sparsec.ir.bounds import Index, attained, bounds, depends, logical_extent
from sparsec.ir.kernel import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    Assign,
    Axis,
    Buffer,
    Const,
    Coordinate,
    Expr,
    Fetch,
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
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Dense, Level
from sparsec.ir.printer import KEYWORDS, print_buffer, print_expression, print_header, print_statement
from sparsec.ir.types import FLOATS, FLOATS_OF_8_BITS, INTEGERS, is_float

DTYPES = frozenset((*FLOATS, *FLOATS_OF_8_BITS, *INTEGERS))
INTEGER_OPS = frozenset({"//", "%", "&", "^", "popcount"})
EITHER_OPS = frozenset({"+", "-", "*", "abs", "max", "min"})  # all other functions are for floats


def verify(kernel: Kernel) -> None:
    """Raise unless the kernel means something.

    >>> from sparsec.ir.parser import parse_kernel
    >>> verify(parse_kernel('''
    ... kernel double(X: float32[n]) -> Y: float32[n]:
    ...     for i in range(0, n):
    ...         Y[j] = X[i] * 2.0
    ... '''))
    Traceback (most recent call last):
        ...
    sparsec.errors.KernelError: Kernel double, line 3, `Y[j] = X[i] * 2.0`: j is not defined here.

    Raises
    ------
    KernelError : with the line in the printed kernel, the statement, what is wrong and mostly what to do about it
    """
    _Verifier(kernel).run()


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.line = 1
        self.text = f"kernel {kernel.name}"
        self.names: dict[str, Buffer | Tile | Index] = {}
        self.walks: dict[str, dict[int, str]] = {}  # of a packed parameter: the variable of each level that is walked
        self.runs: frozenset[tuple[str, int]] = frozenset()  # the levels whose runs are walked, by operand
        self.guarded = False  # whether a condition decides if this is run
        self.parallel: tuple[str, ...] = ()  # the variables of the parallel nest around this
        self.private: frozenset[str] = frozenset()  # the tiles inside that nest
        self.written: set[str] = set()

    def run(self) -> None:
        self.name(self.kernel.name)
        if not self.kernel.outputs:
            self.fail("a kernel needs an output to write to")
        buffers = (*self.kernel.inputs, *self.kernel.outputs)
        for buffer in buffers:
            self.at(buffer)
            self.parameter(buffer)
        symbol = Index(None)
        for buffer in buffers:
            self.at(buffer)
            for dim in buffer.shape:
                if isinstance(dim, str) and self.names.get(dim) is not symbol:
                    self.declare(dim, symbol)
        self.line = print_header(self.kernel).count("\n") + 1
        self.body(self.kernel.body)
        for buffer in self.kernel.outputs:
            self.at(buffer)
            if buffer.name not in self.written:
                self.fail("nothing is ever assigned to this output")

    def at(self, buffer: Buffer) -> None:
        """Place what is found in the line of a parameter."""
        self.text = print_buffer(buffer)
        lines = print_header(self.kernel).split("\n")
        self.line = next(number for number, line in enumerate(lines, 1) if self.text in line)

    def fail(self, problem: str) -> NoReturn:
        raise KernelError(f"Kernel {self.kernel.name}, line {self.line}, `{self.text}`: {problem}.")

    # -- names -----------------------------------------------------------------------------------------------------

    def name(self, name: str) -> None:
        if not (name.isascii() and name.isidentifier()) or name in KEYWORDS:
            self.fail(f"{name!r} cannot be a name")

    def declare(self, name: str, what: Buffer | Tile | Index) -> None:
        self.name(name)
        if name in self.names:
            self.fail(f"{name} is already in use; rename one of the two")
        self.names[name] = what

    def parameter(self, buffer: Buffer) -> None:
        self.declare(buffer.name, buffer)
        if buffer.dtype != "int4" or buffer.layout is None:  # four bits are for what is packed
            self.dtype(buffer.dtype)
        if any(isinstance(dim, int) and dim < 1 for dim in buffer.shape):
            self.fail("every dimension must be at least 1")
        if buffer.layout is None:
            return
        if buffer in self.kernel.outputs:
            self.fail("an output cannot be packed; write to a dense one")
        if not all(isinstance(dim, int) for dim in buffer.shape):
            self.fail("a packed parameter must have a constant shape")
        try:
            buffer.layout.sizes(buffer.extents)
        except LayoutError as error:
            self.fail(str(error).rstrip("."))
        self.walks[buffer.name] = {}

    def dtype(self, dtype: str) -> None:
        if dtype not in DTYPES:
            self.fail(f"{dtype} is not an element type; use one of {', '.join(sorted(DTYPES))}")

    # -- statements ------------------------------------------------------------------------------------------------

    def body(self, body: tuple[Stmt, ...]) -> None:
        if not body:
            self.fail("there is no statement inside")
        for stmt in body:
            self.line += 1
            self.text = print_statement(stmt)
            with self.scope():
                if isinstance(stmt, For):
                    self.loops(stmt)
                elif isinstance(stmt, If):
                    self.condition(stmt.condition)
                    self.guarded = True
                elif isinstance(stmt, Tile):
                    self.tile(stmt)
                else:
                    self.assign(stmt)
                if not isinstance(stmt, Assign):
                    self.body(stmt.body)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Forget on leaving what is declared inside."""
        names, walks = dict(self.names), {name: dict(levels) for name, levels in self.walks.items()}
        flags = self.guarded, self.parallel, self.private, self.runs
        yield
        self.names, self.walks = names, walks
        self.guarded, self.parallel, self.private, self.runs = flags

    def loops(self, stmt: For) -> None:
        if not stmt.axes:
            self.fail("a loop needs an axis")
        if stmt.instruction and not _is_step(stmt):
            self.fail("an instruction takes the place of a nest of constant loops around one assignment")
        if stmt.parallel and self.parallel:
            self.fail("a parallel nest cannot stand inside another one")
        for axis in stmt.axes:
            index = self.range(axis) if isinstance(axis, Range) else self.walk(axis)
            if stmt.parallel:
                self.independent(axis)
            self.declare(axis.var, index)
        if stmt.parallel:
            many = [axis.var for axis in stmt.axes if not self.single(axis.var)]
            self.parallel, self.private = tuple(many), frozenset()

    def range(self, axis: Range) -> Index:
        if not isinstance(axis.step, int) or axis.step < 1:
            self.fail(f"the step of {axis.var} must be a constant of at least 1")
        for limit in (axis.start, axis.stop):
            if self.kind(limit, np.dtype("int64")) != "int":
                self.fail(f"the limits of {axis.var} must be integers")
        variables = {axis.var} | depends(axis.start, self.index) | depends(axis.stop, self.index)
        start, stop = bounds(axis.start, self.index), bounds(axis.stop, self.index)
        if start is None or stop is None or start[0] >= stop[1]:
            return Index(None, frozenset(variables))
        last = stop[1] - 1
        constant = start[0] == start[1] and stop[0] == stop[1]
        if constant:
            last -= (last - start[0]) % axis.step
        return Index((start[0], last), frozenset(variables), constant)

    def walk(self, axis: Walk) -> Index:
        layout, shape = self.packed(axis.buffer)
        walked = self.walks[axis.buffer]
        if not 0 <= axis.level < len(layout.levels):
            self.fail(f"{axis.buffer} has the levels 0 to {len(layout.levels) - 1}")
        if axis.level in walked or (axis.part != "run" and (axis.buffer, axis.level) in self.runs):
            self.fail(f"level {axis.level} of {axis.buffer} is already walked by a loop around this one")
        digit, level = layout.levels[axis.level]
        if axis.at is not None and not isinstance(level, Dense):
            self.fail(f"level {axis.level} of {axis.buffer} is not dense, so its coordinates must be searched for")
        if axis.part:
            return self.part(axis, level)
        inner = [other for other in walked if other > axis.level and not isinstance(layout.levels[other][1], Dense)]
        if inner:
            self.fail(f"level {axis.level} of {axis.buffer} is walked inside level {max(inner)}; swap the two loops")
        skipped = set(range(axis.level)).difference(walked)
        if skipped and not isinstance(level, Dense):
            self.fail(f"level {axis.level} of {axis.buffer} is walked before level {min(skipped)}; walk that one first")
        place = layout.dims.index(digit.dim)
        if axis.at is not None and self.kind(axis.at, np.dtype("int64")) != "int":
            self.fail(f"the coordinate {print_expression(axis.at)} is not an integer")
        whole = layout.padded(shape)[place] == shape[place]  # so that some tensor has entries at any coordinate
        last = layout.sizes(shape)[axis.level] - 1
        index = Index((0, last), frozenset({axis.var}), axis.at is None and (whole or isinstance(level, Dense)))
        walked[axis.level] = axis.var
        return index

    def part(self, axis: Walk, level: Level) -> Index:
        """Check a walk of runs, or of the places of one."""
        opened = (axis.buffer, axis.level)
        if level.together == 1:
            self.fail(f"level {axis.level} of {axis.buffer} stores no runs; walk it as a whole")
        if axis.part == "runs":
            if missing := set(range(axis.level)).difference(self.walks[axis.buffer]):
                first = min(missing)
                self.fail(f"level {axis.level} of {axis.buffer} is walked before level {first}; walk that one first")
            self.runs |= {opened}
            return Index(None, frozenset({axis.var}))
        if opened not in self.runs:
            self.fail(f"a run of level {axis.level} of {axis.buffer} is walked inside a loop over its runs only")
        self.walks[axis.buffer][axis.level] = axis.var
        return Index((0, level.together - 1), frozenset({axis.var}), True)

    def independent(self, axis: Axis) -> None:
        if isinstance(axis, Walk):
            layout, _ = self.packed(axis.buffer)
            if not isinstance(layout.levels[axis.level][1], Dense) or axis.at is not None:
                self.fail(f"a parallel nest cannot walk a sparse level, as {axis.var} does; move it to a loop inside")
            return
        for limit in (axis.start, axis.stop):
            if any(depends(limit, self.index)) or any(isinstance(part, Load) for part in walk_expressions(limit)):
                self.fail(f"the limits of {axis.var} must be constant or symbolic in a parallel nest")

    def single(self, var: str) -> bool:
        index = self.names[var]
        return isinstance(index, Index) and index.bounds is not None and index.bounds[0] == index.bounds[1]

    def tile(self, stmt: Tile) -> None:
        self.dtype(stmt.dtype)
        if not all(isinstance(extent, int) and extent > 0 for extent in stmt.shape):
            self.fail("the shape of a tile must be constant and positive")
        for fetch in stmt.fetch:
            self.fetch(fetch)
        self.declare(stmt.name, stmt)
        self.private |= {stmt.name}

    def fetch(self, fetch: Fetch) -> None:
        """Check that every element that is asked for exists, and is one of the tile that it is asked for."""
        if fetch.var:
            self.later(fetch)
        if fetch.count < 1 or (fetch.var and fetch.ahead < 1):
            self.fail("at least one element is fetched, for at least one position ahead")
        if fetch.condition:
            self.condition(fetch.condition)
        guarded, self.guarded = self.guarded, self.guarded or fetch.condition is not None
        self.element(fetch.first)
        if not fetch.first.indices:
            self.fail(f"{fetch.first.buffer} has no dimension along which elements follow each other")
        *others, start = fetch.first.indices
        self.element(Load(fetch.first.buffer, (*others, start + (fetch.count - 1))))
        self.guarded = guarded

    def later(self, fetch: Fetch) -> None:
        """Check what is fetched for a later position of a level, of which the coordinate alone is known."""
        levels = {var: (buffer, level) for buffer, walks in self.walks.items() for level, var in walks.items()}
        if not (fetch.var in levels and self.looks_ahead(*levels[fetch.var])):
            self.fail(f"{fetch.var} walks no level that stores a coordinate for every position, as bucketed ones do")
        buffer, level = levels[fetch.var]
        layout, _ = self.packed(buffer)
        walks = self.walks[buffer].items()
        below = {var for n, var in walks if n > level and not isinstance(layout.levels[n][1], Dense)}
        for value in filter(None, (fetch.first, fetch.condition)):
            for part in walk_expressions(value):
                found_here = isinstance(part, Coordinate | Position | Stored) and part.buffer == buffer
                if found_here or (isinstance(part, Var) and part.name in below):
                    self.fail(
                        f"{print_expression(part)} is of the position where the tile stands, and not of the one "
                        f"{fetch.ahead} ahead, of which {fetch.var} alone is known"
                    )

    def looks_ahead(self, buffer: str, level: int) -> bool:
        layout, _ = self.packed(buffer)
        return bool(layout.levels[level][1].looks_ahead)

    def assign(self, stmt: Assign) -> None:
        name = stmt.target.buffer
        buffer = self.names.get(name)
        if isinstance(buffer, Buffer) and buffer in self.kernel.inputs:
            self.fail(f"{name} is an input, which cannot be assigned to")
        if not isinstance(buffer, Buffer | Tile):
            self.fail(f"{name} is neither a tile nor an output, so nothing can be assigned to it")
        self.element(stmt.target)
        dtype = np.dtype(stmt.computed_in(self.element_type))
        found = self.kind(stmt.value, dtype)
        if found != _kind(dtype):
            self.fail(f"a value of kind {found} cannot be assigned to {name}, which is {dtype}")
        if name not in self.private:
            reached = frozenset().union(*(self.decides(index) for index in stmt.target.indices))
            missing = [var for var in self.parallel if var not in reached]
            if missing:
                self.fail(f"iterations of the parallel axis {missing[0]} would all write this element of {name}")
        self.written.add(name)

    def condition(self, value: Expr) -> None:
        if self.kind(value, None) != "bool":
            self.fail(f"the condition {print_expression(value)} must be a comparison")

    # -- expressions --------------------------------------------------------------------------------

    def kind(self, value: Expr, within: np.dtype | None) -> str:
        """Return int, float or bool; `within` is the type that the arithmetic is carried out in, None if not known."""
        if isinstance(value, Const):
            if isinstance(value.value, float):
                return "float"
            dtype = within if within is not None and _kind(within) == "int" else np.dtype("int64")
            if not _fits(value.value, dtype):
                self.fail(f"{value.value} does not fit {dtype}")
            return "int"
        if isinstance(value, Op):
            return self.operation(value, within)
        if isinstance(value, Var):
            if not isinstance(self.names.get(value.name), Index):
                self.fail(f"{value.name} is not " + ("a number" if value.name in self.names else "defined here"))
            return "int"
        if isinstance(value, Coordinate):
            self.coordinate(value)
            return "int"
        if isinstance(value, Position):
            self.stored(value)
            return "int"
        assert isinstance(value, Stored | Load)
        dtype = np.dtype(self.stored(value) if isinstance(value, Stored) else self.element(value))
        if within is not None and _kind(within) == _kind(dtype) and not np.can_cast(dtype, within, "safe"):
            self.fail(f"{print_expression(value)} is {dtype}, which does not fit {within}")
        return _kind(dtype)

    def operation(self, value: Op, within: np.dtype | None) -> str:
        text = print_expression(value)
        arity = 2 if value.name in ARITHMETIC + COMPARISONS else FUNCTIONS.get(value.name)
        if arity is None:
            self.fail(f"{value.name} is not a function; there are {', '.join(FUNCTIONS)}")
        if len(value.args) != arity:
            self.fail(f"{value.name} takes {arity} operands, not {len(value.args)}")
        operands = value.args
        if value.name == "float":
            if self.kind(operands[0], np.dtype("int32")) != "int":
                self.fail(f"the operand of `{text}` must be an integer")
            return "float"
        if value.name == "select":
            self.condition(operands[0])
            operands = operands[1:]
        guarded, self.guarded = self.guarded, self.guarded or value.name == "select"
        kinds = {self.kind(operand, None if value.name in COMPARISONS else within) for operand in operands}
        self.guarded = guarded
        if value.name == "and":
            if kinds != {"bool"}:
                self.fail(f"the operands of `{text}` must be comparisons")
            return "bool"
        if "bool" in kinds:
            self.fail(f"a comparison is a condition and not a value in `{text}`; use select(condition, a, b)")
        if len(kinds) > 1:
            self.fail(f"`{text}` mixes integers and floats; write constants among floats with a point, as 1.0")
        (found,) = kinds
        if found == "float" and value.name in INTEGER_OPS:
            self.fail(f"`{text}` is for integers only")
        if found == "int" and value.name not in INTEGER_OPS | EITHER_OPS | {"select", *COMPARISONS}:
            self.fail(f"`{text}` is for floats only")
        if value.name in ("//", "%") and operands[1] == Const(0):
            self.fail(f"`{text}` divides by zero")
        return "bool" if value.name in COMPARISONS else found

    def element_type(self, name: str) -> str:
        buffer = self.names.get(name)
        return buffer.dtype if isinstance(buffer, Buffer | Tile) else ""

    def element(self, load: Load) -> str:
        """Check the indices of a load, and return the type of the element."""
        buffer = self.names.get(load.buffer)
        text = print_expression(load)
        if not isinstance(buffer, Buffer | Tile):
            self.fail(f"{load.buffer} is not " + ("an array" if load.buffer in self.names else "defined here"))
        if isinstance(buffer, Buffer) and buffer.layout is not None:
            self.fail(f"{load.buffer} is packed; walk its levels and write {load.buffer} for the value found there")
        if len(load.indices) != len(buffer.shape):
            self.fail(f"{text} has {len(load.indices)} indices, and {load.buffer} has {len(buffer.shape)} dimensions")
        for index, extent in zip(load.indices, buffer.shape, strict=True):
            if self.kind(index, np.dtype("int64")) != "int":
                self.fail(f"the index {print_expression(index)} of {load.buffer} is not an integer")
            span = bounds(index, self.index)
            if span is None or isinstance(extent, str):
                continue
            low, high = span
            reached = not self.guarded and attained(index, self.index)
            if high < 0 or low >= extent or (reached and (low < 0 or high >= extent)):
                text = f"{print_expression(index)} of {load.buffer} reaches {low if low < 0 else high}"
                self.fail(f"the index {text}, outside of 0 to {extent - 1}")
        return buffer.dtype

    def packed(self, name: str) -> tuple[Layout, tuple[int, ...]]:
        buffer = self.names.get(name)
        if buffer is None:
            self.fail(f"{name} is not defined here")
        if not isinstance(buffer, Buffer) or buffer.layout is None:
            self.fail(f"{name} has no layout, so it has no levels to walk; write the indices of an element")
        return buffer.layout, buffer.extents

    def stored(self, value: Stored | Position) -> str:
        layout, _ = self.packed(value.buffer)
        missing = set(range(len(layout.levels))).difference(self.walks[value.buffer])
        if missing:
            self.fail(f"{value.buffer} has no value here, because its level {min(missing)} is not walked")
        return self.kernel.buffers[value.buffer].dtype

    def coordinate(self, value: Coordinate) -> None:
        layout, _ = self.packed(value.buffer)
        if value.dim not in layout.dims:
            self.fail(f"{value.buffer} has the dimensions {', '.join(layout.dims)}, not {value.dim}")
        missing = {n for n, (digit, _) in enumerate(layout.levels) if digit.dim == value.dim}
        missing.difference_update(self.walks[value.buffer])
        if missing:
            self.fail(f"{value.buffer}.{value.dim} is not known here, because level {min(missing)} is not walked")

    def decides(self, value: Expr) -> frozenset[str]:
        """Return the loop variables that decide an index; a position is decided by all walks that lead to it."""
        positions = [part for part in walk_expressions(value) if isinstance(part, Position)]
        walks = (self.walks[part.buffer].values() for part in positions)
        return depends(value, self.index).union(*walks)

    def index(self, value: Var | Coordinate) -> Index:
        """Return what is known of a variable or a coordinate that is defined here."""
        if isinstance(value, Var):
            index = self.names[value.name]
            assert isinstance(index, Index)
            return index
        layout, shape = self.packed(value.buffer)
        walks = self.walks[value.buffer].items()
        variables = frozenset({var for level, var in walks if layout.levels[level][0].dim == value.dim})
        return Index((0, logical_extent(layout, shape, value.dim) - 1), variables)


def _is_step(stmt: For) -> bool:
    """Say whether one instruction could do what a nest does."""
    limits = [limit for axis in stmt.axes if isinstance(axis, Range) for limit in (axis.start, axis.stop)]
    alone = len(stmt.body) == 1 and isinstance(stmt.body[0], Assign)
    return alone and not stmt.parallel and all(isinstance(limit, Const) for limit in limits)


def _kind(dtype: np.dtype) -> str:
    return "float" if is_float(dtype) else "int"


def _fits(value: int, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return int(limits.min) <= value <= int(limits.max)
