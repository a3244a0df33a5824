"""Kernels: loops over dense and sparse axes, as data.

A kernel is a function over buffers. Its loops range over integers or walk the levels of a packed operand; a tile is an
accumulator that lives in registers; assignments hold all arithmetic. The nodes are immutable and compare by value.

    kernel linear(W: float32[3072, 768] @ "(i, k) -> (i : dense, k : compressed)", X: float32[1, 98304],
                  bias: float32[3072]) -> Y: float32[1, 393216]:
        for b in range(0, 1), m in range(0, 128, 64) parallel:
            for i in W[0]:
                tile acc: float32[64]:
                    for v in range(0, 64):
                        acc[v] = 0.0
                    for k in W[1]:
                        for v in range(0, 64):
                            acc[v] += W * X[b, W.k * 128 + m + v]
                    for v in range(0, 64):
                        Y[b, W.i * 128 + m + v] = max(acc[v] + bias[W.i], 0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from sparsec.ir.layout import Layout
from sparsec.ir.types import BYTES, arithmetic

# -- expressions ---------------------------------------------------------------------------------------------------

Scalar = Union["Expr", int, float]

ARITHMETIC = ("+", "-", "*", "/", "//", "%", "&", "^")
COMPARISONS = ("<", "<=", "==", "and")
FUNCTIONS = {  # name -> number of arguments
    "abs": 1,
    "erf": 1,
    "exp": 1,
    "float": 1,
    "log": 1,
    "max": 2,
    "min": 2,
    "popcount": 1,
    "pow": 2,
    "round": 1,
    "rsqrt": 1,
    "select": 3,
    "sigmoid": 1,
    "sqrt": 1,
    "tanh": 1,
}


class Expr:
    """Base of expressions; Python's operators build them, integers and floats become constants."""

    def __add__(self, other: Scalar) -> Expr:
        return Op("+", (self, expr(other)))

    def __radd__(self, other: Scalar) -> Expr:
        return Op("+", (expr(other), self))

    def __sub__(self, other: Scalar) -> Expr:
        return Op("-", (self, expr(other)))

    def __rsub__(self, other: Scalar) -> Expr:
        return Op("-", (expr(other), self))

    def __mul__(self, other: Scalar) -> Expr:
        return Op("*", (self, expr(other)))

    def __rmul__(self, other: Scalar) -> Expr:
        return Op("*", (expr(other), self))

    def __truediv__(self, other: Scalar) -> Expr:
        return Op("/", (self, expr(other)))

    def __floordiv__(self, other: Scalar) -> Expr:
        return Op("//", (self, expr(other)))

    def __mod__(self, other: Scalar) -> Expr:
        return Op("%", (self, expr(other)))

    def __and__(self, other: Scalar) -> Expr:
        return Op("&", (self, expr(other)))

    def __xor__(self, other: Scalar) -> Expr:
        return Op("^", (self, expr(other)))


@dataclass(frozen=True)
class Const(Expr):
    """An integer or floating-point constant; a float takes the type of what it meets."""

    value: int | float


@dataclass(frozen=True)
class Var(Expr):
    """A loop index, a coordinate, or a symbolic dimension of the kernel."""

    name: str


@dataclass(frozen=True)
class Load(Expr):
    """An element of a dense buffer or a tile."""

    buffer: str
    indices: tuple[Expr, ...]


@dataclass(frozen=True)
class Stored(Expr):
    """The value of a packed operand at the position where the walk of its last level stands."""

    buffer: str


@dataclass(frozen=True)
class Position(Expr):
    """Where the value of a packed operand is stored, as `position(P)`.

    It leads into a dense buffer with an element for each stored value, so that the values of a constant pattern are
    made, or written, at run time.
    """

    buffer: str


@dataclass(frozen=True)
class Coordinate(Expr):
    """The logical coordinate `buffer.dim` of a packed operand where its walks stand, all digits of `dim` walked."""

    buffer: str
    dim: str


@dataclass(frozen=True)
class Op(Expr):
    """An arithmetic operator, a comparison or one of `FUNCTIONS`.

    `//` and `%` round toward minus infinity, `round` to nearest even; `&`, `^` and `popcount` are on the bits of
    integers, in two's complement of the type in which they are computed; `select(condition, a, b)` evaluates only the
    side that it takes. The operand of `float` is computed in int32, and then converted to the type of the floats around
    it.
    """

    name: str
    args: tuple[Expr, ...]


def expr(value: Scalar) -> Expr:
    """Return `value` as an expression."""
    return value if isinstance(value, Expr) else Const(value)


def call(name: str, *args: Scalar) -> Op:
    """Apply one of `FUNCTIONS` or `COMPARISONS`."""
    return Op(name, tuple(expr(arg) for arg in args))


def substitute(value: Expr, bindings: dict[str, Expr]) -> Expr:
    """Replace variables by expressions; a coordinate goes by its printed name, as `W.k`."""
    if isinstance(value, Var):
        return bindings.get(value.name, value)
    if isinstance(value, Coordinate):
        return bindings.get(f"{value.buffer}.{value.dim}", value)
    if isinstance(value, Load):
        return Load(value.buffer, tuple(substitute(index, bindings) for index in value.indices))
    if isinstance(value, Op):
        return Op(value.name, tuple(substitute(arg, bindings) for arg in value.args))
    return value


def rename(value: Expr, names: Mapping[str, str]) -> Expr:
    """Let loads read buffers of other names, where they are given."""
    if isinstance(value, Load):
        return Load(names.get(value.buffer, value.buffer), tuple(rename(index, names) for index in value.indices))
    if isinstance(value, Op):
        return Op(value.name, tuple(rename(arg, names) for arg in value.args))
    return value


# -- statements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """`var in range(start, stop, step)`."""

    var: str
    start: Expr
    stop: Expr
    step: int = 1


@dataclass(frozen=True)
class Walk:
    """`var in buffer[level]`: the coordinates that a level of a packed operand holds below the levels above it.

    A dense level may be walked anywhere, also before the levels above it, or without them for its coordinates alone.
    `var in buffer[level] at expression` is one iteration, at a coordinate of a dense level that is given. A level that
    stores runs may be walked in two parts: `var in buffer[level] runs`, and inside it `var in buffer[level] run` over
    the places of one run, where `var` is the number of the run or the place and not a coordinate.
    """

    var: str
    buffer: str
    level: int
    at: Expr | None = None
    part: str = ""


Axis = Range | Walk


@dataclass(frozen=True)
class For:
    """A nest of loops; the iterations of a parallel nest are independent and may run on several threads.

    A parallel nest has constant or symbolic ranges and dense levels only. A nest around one assignment may name the
    machine instruction that carries it out on targets that have it; it means the same without.
    """

    axes: tuple[Axis, ...]
    body: tuple[Stmt, ...]
    parallel: bool = False
    instruction: str = ""


@dataclass(frozen=True)
class If:
    """Run the body where the condition holds."""

    condition: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Fetch:
    """Elements of a dense buffer to bring to the nearest cache on entry of a tile, for its end or one that comes later.

    They follow each other along the last dimension, and none lies outside. With a walk `var` of a level that stores
    coordinates it is the tile for which this stands `ahead` positions on, or the last one. They are wanted where the
    condition holds. A kernel means the same without.
    """

    count: int
    first: Load
    var: str = ""
    ahead: int = 0
    condition: Expr | None = None


@dataclass(frozen=True)
class Tile:
    """A local accumulator of constant shape; it holds nothing on entry."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    body: tuple[Stmt, ...]
    fetch: tuple[Fetch, ...] = ()


@dataclass(frozen=True)
class Assign:
    """`target = value`, or `target += value`.

    The arithmetic is carried out in the element type of the target. Where that is of half precision it is carried out
    in float32, and what is assigned is rounded once, to nearest even. So it is where the target has 8 bits, whose range
    the result is brought into; but a single element of the same type, or an integer constant, is copied as it is.
    """

    target: Load
    value: Expr
    accumulate: bool = False

    def computed_in(self, element: Callable[[str], str]) -> str:
        """Return the type that the value is computed in, where `element` tells the type of a buffer's elements."""
        target = element(self.target.buffer)
        if not self.accumulate:
            if target in BYTES and isinstance(self.value, Const) and isinstance(self.value.value, int):
                return target
            if isinstance(self.value, Load | Stored) and element(self.value.buffer) == target:
                return target
        return arithmetic(target)


Stmt = For | If | Tile | Assign


# -- kernels -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Buffer:
    """A parameter: dense and row-major, or packed in a layout. Dimensions are integers or symbolic names."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: Layout | None = None

    @property
    def extents(self) -> tuple[int, ...]:
        """The constant dimensions, which are all of a packed buffer's."""
        return tuple(dim for dim in self.shape if isinstance(dim, int))


@dataclass(frozen=True)
class Kernel:
    """A function over buffers; those in `outputs` are written, and may be read back."""

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    body: tuple[Stmt, ...]

    def __str__(self) -> str:
        from sparsec.ir.printer import print_kernel  # it needs the nodes

        return print_kernel(self)

    @property
    def buffers(self) -> dict[str, Buffer]:
        """All parameters by name, in order."""
        return {buffer.name: buffer for buffer in self.inputs + self.outputs}

    def kind(self, stmt: Assign) -> str:
        """Return by what name moves find an assignment: `update`, or `init` of a tile, or `finish` or `clear`."""
        if stmt.accumulate:
            return "update"
        if stmt.target.buffer not in self.buffers:
            return "init"
        return "clear" if isinstance(stmt.value, Const) else "finish"

    def reads(self, buffer: str) -> bool:
        """Return whether elements of a buffer are read, or added to."""
        for stmt in walk_assignments(self.body):
            reads = [stmt.value, *stmt.target.indices, *([stmt.target] if stmt.accumulate else [])]
            if any(isinstance(part, Load) and part.buffer == buffer for one in reads for part in walk_expressions(one)):
                return True
        return False

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic dimensions, in order of appearance."""
        return tuple(dict.fromkeys(dim for b in self.buffers.values() for dim in b.shape if isinstance(dim, str)))


def walk_expressions(value: Expr) -> Iterator[Expr]:
    """Yield an expression and everything inside it."""
    yield value
    inside = value.indices if isinstance(value, Load) else value.args if isinstance(value, Op) else ()
    for part in inside:
        yield from walk_expressions(part)


def walk_assignments(body: tuple[Stmt, ...]) -> Iterator[Assign]:
    """Yield the assignments in some statements, in order."""
    for stmt in body:
        if isinstance(stmt, Assign):
            yield stmt
        else:
            yield from walk_assignments(stmt.body)
