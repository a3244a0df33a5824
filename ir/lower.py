"""Lowering: from a kernel to S-TIR.

The loops outside a tile become one block, bound to everything that walks so far have found; inside it, each further
sparse loop has a block whose position and coordinate are constants to what it holds; the innermost loops over lanes are
ordinary blocks. So TVM's `Schedule` can split, unroll, vectorise and tensorise them as if nothing were sparse, even
though the loops around them have bounds that are read from memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from sparsec.ir.gather import Gather, find_gather
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
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    walk_expressions,
)
from sparsec.ir.layout import Packed
from sparsec.ir.levels import ROOT, Compressed, Cursor, Dense, Loop
from sparsec.ir.verifier import verify

QUAD = 4  # coordinates of 16 bits in a 64-bit load
MIN_INDEX_BITS = 16  # narrower loads cost as much, and 8-bit ones would need a kernel for each


@dataclass(frozen=True)
class Lowered:
    """A kernel as S-TIR, and how its parameters are made from its operands.

    Parameters
    ----------
    func : a PrimFunc whose parameters are the dense buffers and, in place of a packed one, the arrays of its layout
    parameters : (buffer, array) of each parameter in order; the array is empty for a dense buffer
    gathers : for a packed operand, how its stored coordinates are turned into offsets
    """

    kernel: Kernel
    func: tirx.PrimFunc
    parameters: tuple[tuple[str, str], ...]
    gathers: dict[str, Gather] = field(default_factory=dict)

    def pack(self, buffer: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays that the kernel takes in place of the packed operand `buffer`, by name and in order."""
        layout = self.kernel.buffers[buffer].layout
        assert layout is not None, f"{buffer} is dense"
        packed: Packed = layout.pack(value, min_index_bits=MIN_INDEX_BITS)
        arrays = dict(packed.arrays)
        if buffer in self.gathers:
            gather = self.gathers[buffer]
            arrays[gather.array] = gather.table[arrays[gather.array]]
        return arrays


def lower(kernel: Kernel) -> Lowered:
    """Lower a kernel to an S-TIR PrimFunc of the same name.

    Raises
    ------
    KernelError : if the kernel does not verify
    """
    verify(kernel)
    return _Lowering(kernel).run()


@dataclass
class _Pending:
    """An axis whose loops are open, but not yet bound by a block, with their variables and extents."""

    axis: Axis
    variables: list[Any]
    extents: list[Any]


class _Lowering:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.handles: dict[str, Any] = {}  # TIR buffers: dense ones, tiles, and "operand.array" of packed ones
        self.values: dict[str, Any] = {}  # loop indices and symbols as TIR expressions
        self.cursors: dict[str, dict[int, Cursor]] = {b.name: {} for b in kernel.inputs if b.layout}
        self.pending: list[_Pending] = []
        self.gathers = {b.name: g for b in kernel.inputs if b.layout and (g := find_gather(kernel, b.name))}
        self.names: dict[str, int] = {}
        self.depth = 0  # how many tiles are open

    # -- the function ----------------------------------------------------------------------------------------------

    def run(self) -> Lowered:
        parameters: list[tuple[str, str]] = []
        with IRBuilder() as ib, T.prim_func(is_private=False, s_tir=True):
            T.func_name(self.kernel.name)
            T.func_attr({"global_symbol": self.kernel.name, "tirx.noalias": True})
            for symbol in self.kernel.symbols:
                self.values[symbol] = tirx.Var(symbol, "int32")
            for buffer in self.kernel.buffers.values():
                parameters += self._parameter(buffer)
            with T.sblock("root"):
                self._body(self.kernel.body)
        return Lowered(self.kernel, ib.get(), tuple(parameters), self.gathers)

    def _parameter(self, buffer: Buffer) -> list[tuple[str, str]]:
        if buffer.layout is None:
            shape = [self.values[dim] if isinstance(dim, str) else dim for dim in buffer.shape]
            self.handles[buffer.name] = T.arg(buffer.name, T.buffer(shape, buffer.dtype))
            return [(buffer.name, "")]
        shape = tuple(dim for dim in buffer.shape if isinstance(dim, int))
        types = dict(buffer.layout.index_types(shape, MIN_INDEX_BITS))
        if buffer.name in self.gathers:
            gather = self.gathers[buffer.name]
            types[gather.array] = gather.table.dtype
        for array, dtype in (types | {"data": np.dtype(buffer.dtype)}).items():
            name = f"{buffer.name}_{array.replace('.', '_')}"
            extent = tirx.Var(f"n_{name}", "int32")
            self.handles[f"{buffer.name}.{array}"] = T.arg(name, T.buffer((extent,), str(dtype)))
        return [(buffer.name, array) for array in [*types, "data"]]

    # -- statements ------------------------------------------------------------------------------------------------

    def _body(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            if isinstance(stmt, For):
                self._for(stmt)
            elif isinstance(stmt, Tile):
                self._tile(stmt)
            elif isinstance(stmt, If):
                self._if(stmt)
            else:
                self._assign((), stmt)

    @contextmanager
    def _scope(self) -> Iterator[ExitStack]:
        """Hold the frames opened inside, and forget at the end what they bound."""
        saved = dict(self.values), {name: dict(found) for name, found in self.cursors.items()}, self.pending
        self.pending = list(self.pending)
        with ExitStack() as frames:
            yield frames
        self.values, self.cursors, self.pending = saved

    def _for(self, stmt: For) -> None:
        lanes = self._lanes(stmt)
        with self._scope() as frames:
            if lanes is not None:
                if self.pending:
                    self._enter_block("step", frames)
                self._assign(*lanes)
                return
            if self._is_quad_walk(stmt):
                self._walk_by_quads(stmt)
                return
            self._open(stmt, frames)
            if self.depth:
                self._enter_block("step", frames)
            self._body(stmt.body)

    def _tile(self, stmt: Tile) -> None:
        with self._scope() as frames:
            self._enter_block("tile", frames)
            # Local buffers become registers; a tile around others is a buffer that they read.
            scope = "global" if any(isinstance(inner, Tile) for inner in _statements(stmt.body)) else "local"
            self.handles[stmt.name] = T.sblock_alloc_buffer(stmt.shape, stmt.dtype, scope=scope)
            self.depth += 1
            self._body(stmt.body)
            self.depth -= 1
        del self.handles[stmt.name]

    def _if(self, stmt: If) -> None:
        with T.If(self._expr(stmt.condition)), T.Then():
            self._body(stmt.body)

    def _lanes(self, stmt: For) -> tuple[tuple[Axis, ...], Assign, Expr | None] | None:
        """Return the axes, the assignment and its condition if these loops have constant extents and hold no more."""
        if len(stmt.body) != 1 or stmt.parallel:
            return None
        inner = stmt.body[0]
        condition = None
        if isinstance(inner, If) and len(inner.body) == 1:
            condition, inner = inner.condition, inner.body[0]
        if not isinstance(inner, Assign) or not all(self._is_lane(axis, inner) for axis in stmt.axes):
            return None
        return stmt.axes, inner, condition

    def _is_lane(self, axis: Axis, stmt: Assign) -> bool:
        if stmt.accumulate and Var(axis.var) not in stmt.target.indices:
            return False  # a sum over this axis
        if isinstance(axis, Range):
            return isinstance(axis.start, Const) and isinstance(axis.stop, Const)
        return isinstance(self._level(axis), Dense)

    def _assign(self, axes: tuple[Axis, ...], stmt: Assign, condition: Expr | None = None) -> None:
        with self._scope() as frames:
            loops = []
            for axis in axes:
                extent = self._extent(axis)
                loops.append((axis, extent, frames.enter_context(T.serial(extent))))
            frames.enter_context(T.sblock(self._name(stmt)))
            for axis, extent, variable in loops:
                lane = T.axis.spatial(extent, variable)
                T_name(lane, axis.var)
                self._bind(axis, [lane], bound=False)
            if condition is not None:
                frames.enter_context(T.If(self._expr(condition)))
                frames.enter_context(T.Then())
            value = self._expr(stmt.value, self.handles[stmt.target.buffer].dtype)
            target = self.handles[stmt.target.buffer]
            indices = [self._expr(index) for index in stmt.target.indices]
            if stmt.accumulate:
                value = target[tuple(indices)] + value
            T.buffer_store(target, value, indices)

    def _name(self, stmt: Assign) -> str:
        local = stmt.target.buffer not in self.kernel.buffers
        name = "update" if stmt.accumulate else "init" if local else "finish"
        if not local and isinstance(stmt.value, Const):
            name = "clear"
        count = self.names[name] = self.names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"

    # -- four coordinates at a time ---------------------------------------------------------------------------------

    def _is_quad_walk(self, stmt: For) -> bool:
        """Whether a loop inside a tile walks one compressed level of 16-bit coordinates, and nothing else."""
        axis = stmt.axes[0]
        if not self.depth or len(stmt.axes) != 1 or not isinstance(axis, Walk):
            return False
        return isinstance(self._level(axis), Compressed) and str(self._indices(axis).dtype) == "uint16"

    def _walk_by_quads(self, stmt: For) -> None:
        """Emit a loop over whole quads, whose coordinates are one 64-bit load, then one over what is left.

        A sparse step is bound by the load units; other units take the coordinates apart.

        Before:  `for j in range(n): step(indices[start + j])`
        After:   `for j in range(n // 4): quad = indices[start + 4 * j :][:4]; step(quad & 65535); …`
                 `for j in range(n % 4): step(indices[start + n // 4 * 4 + j])`
        """
        (axis,) = stmt.axes
        assert isinstance(axis, Walk)
        length = next(self._visit(axis, bound=False)).extent
        with self._scope() as frames:
            nth = self._counted("quad", length // QUAD, frames)
            first = _keep(self._position(axis, nth * QUAD), "position")
            quad = _keep(tirx.reinterpret("uint64", self._indices(axis)[T.ramp(first, 1, QUAD)]), "quad")
            for lane in range(QUAD):
                shifted = tirx.shift_right(quad, tirx.const(16 * lane, "uint64"))
                coordinate = T.cast(tirx.bitwise_and(shifted, tirx.const(65535, "uint64")), "int32")
                self._stand(axis, Cursor(first + lane, _keep(coordinate, "coordinate")), stmt.body)
        with self._scope() as frames:
            nth = self._counted("rest", length % QUAD, frames)
            position = _keep(self._position(axis, length // QUAD * QUAD + nth), "position")
            coordinate = T.cast(self._indices(axis)[position], "int32")
            self._stand(axis, Cursor(position, _keep(coordinate, "coordinate")), stmt.body)

    def _counted(self, name: str, extent: Any, frames: ExitStack) -> Any:
        """Open a loop and a block that binds it; return the block's variable."""
        self.pending.append(
            _Pending(Range(name, Const(0), Const(0)), [frames.enter_context(T.serial(extent))], [extent])
        )
        self._enter_block("step", frames)
        return self.values[name]

    def _position(self, axis: Walk, index: Any) -> Any:
        """Return the position of an iteration of a compressed level, its coordinate left alone."""
        visit = self._visit(axis, bound=False, coordinates=False)
        next(visit)
        try:
            visit.send(index)
        except StopIteration as end:
            return end.value.position

    def _stand(self, axis: Walk, cursor: Cursor, body: Sequence[Stmt]) -> None:
        with self._scope():
            self.cursors[axis.buffer][axis.level] = cursor
            self.values[axis.var] = cursor.coordinate
            self._body(body)

    def _indices(self, axis: Walk) -> Any:
        return self.handles[f"{axis.buffer}.level{axis.level}.indices"]

    # -- loops and blocks ------------------------------------------------------------------------------------------

    def _open(self, stmt: For, frames: ExitStack) -> None:
        """Open the loops of a nest outside any block; the indices are plain loop variables until a block binds them."""
        if stmt.parallel:
            self._open_parallel(stmt, frames)
            return
        for axis in stmt.axes:
            variables: list[Any] = []
            extents = []
            if isinstance(axis, Range):
                extents = [self._extent(axis)]
                variables = [frames.enter_context(T.serial(extents[0]))]
            else:
                visit = self._visit(axis, bound=False)
                loop = next(visit, None)
                while loop is not None:
                    extents.append(loop.extent)
                    variables.append(frames.enter_context(T.serial(loop.extent)))
                    try:
                        loop = visit.send(variables[-1])
                    except StopIteration:
                        loop = None
            self._bind(axis, variables, bound=False)
            self.pending.append(_Pending(axis, variables, extents))

    def _open_parallel(self, stmt: For, frames: ExitStack) -> None:
        """Run the axes of constant extent as one parallel loop, and those of symbolic extent inside it.

        One loop over all would divide by symbols to find its indices, which TVM cannot simplify. If all are symbolic,
        the first is parallel.
        """
        extents = [self._extent(axis) for axis in stmt.axes]
        shared = [n for n, extent in enumerate(extents) if isinstance(extent, int)]
        if prod(extents[n] for n in shared) == 1 and len(shared) < len(extents):
            shared = [next(n for n in range(len(extents)) if n not in shared)]
        total = prod(extents[n] for n in shared)
        serial = isinstance(total, int) and total == 1
        flat = frames.enter_context(T.serial(1) if serial else T.parallel(total))
        inner: Any = 1
        indices: dict[int, Any] = {n: 0 for n, extent in enumerate(extents) if isinstance(extent, int)}
        for n in reversed(shared):
            indices[n] = flat // inner % extents[n] if n != shared[0] else flat // inner
            inner = inner * extents[n]
        for n, (axis, extent) in enumerate(zip(stmt.axes, extents, strict=True)):
            index = indices[n] if n in indices else frames.enter_context(T.serial(extent))
            self._bind(axis, [index], bound=False)
            self.pending.append(_Pending(axis, [index], [extent]))

    def _enter_block(self, name: str, frames: ExitStack) -> None:
        """Open a block that binds all pending loops, and find values and cursors again in terms of its variables."""
        count = self.names[name] = self.names.get(name, 0) + 1
        frames.enter_context(T.sblock(name if count == 1 else f"{name}_{count}"))
        bound: list[tuple[Axis, list[Any]]] = []
        for pending in self.pending:
            variables = []
            for extent, variable in zip(pending.extents, pending.variables, strict=True):
                constant = isinstance(extent, int | tirx.IntImm)
                domain = extent if constant else np.iinfo(np.int32).max
                variables.append(T.axis.opaque(domain, variable))
                T_name(variables[-1], pending.axis.var)
            bound.append((pending.axis, variables))
        handles = [self.handles[b] for b in self.handles]
        T.reads(*[handle[tuple(slice(0, extent) for extent in handle.shape)] for handle in handles])
        read_only = {buffer.name for buffer in self.kernel.inputs}
        writable = [h for b, h in self.handles.items() if b not in read_only and "." not in b]
        T.writes(*[handle[tuple(slice(0, extent) for extent in handle.shape)] for handle in writable])
        for axis, variables in bound:
            self._bind(axis, variables, bound=True)
        self.pending = []

    def _bind(self, axis: Axis, variables: list[Any], bound: bool) -> None:
        """Give the axis its value for these loop variables; `bound` keeps what is loaded in variables of the block."""
        if isinstance(axis, Range):
            start = self._expr(axis.start)
            self.values[axis.var] = start + variables[0] * axis.step if axis.step != 1 else start + variables[0]
            return
        visit = self._visit(axis, bound)
        try:
            next(visit)
            for variable in variables:
                visit.send(variable)
        except StopIteration as end:
            cursor: Cursor = end.value
            if bound and not isinstance(self._level(axis), Dense):
                cursor = Cursor(_keep(cursor.position, "position"), cursor.coordinate, cursor.fiber)
            self.cursors[axis.buffer][axis.level] = cursor
            self.values[axis.var] = cursor.coordinate

    def _visit(self, axis: Walk, bound: bool, coordinates: bool = True) -> Any:
        # Lanes over the dense levels at the end also stand alone, where only their coordinates matter.
        parent = self.cursors[axis.buffer].get(axis.level - 1, ROOT)

        def load(name: str, index: Any) -> Any:
            if name == "indices" and not coordinates:
                return index
            value = T.cast(self.handles[f"{axis.buffer}.level{axis.level}.{name}"][index], "int32")
            return _keep(value, name) if bound else value

        return self._level(axis).visit(self._axes(axis)[axis.level], parent, load)

    def _extent(self, axis: Axis) -> Any:
        if isinstance(axis, Range):
            span = self._expr(axis.stop) - self._expr(axis.start)
            return span if axis.step == 1 else (span + (axis.step - 1)) // axis.step
        loop: Loop = next(self._visit(axis, bound=False))
        return loop.extent

    def _level(self, axis: Walk) -> Any:
        layout = self.kernel.buffers[axis.buffer].layout
        assert layout is not None, f"{axis.buffer} has no levels"
        return layout.levels[axis.level][1]

    def _axes(self, axis: Walk) -> Any:
        buffer = self.kernel.buffers[axis.buffer]
        assert buffer.layout is not None
        return buffer.layout.axes([dim for dim in buffer.shape if isinstance(dim, int)])

    # -- expressions -----------------------------------------------------------------------------------------------

    def _expr(self, value: Expr, dtype: str = "int32") -> Any:
        """Return `value` as a TIR expression whose arithmetic is carried out in `dtype`."""
        if isinstance(value, Const):
            return value.value if dtype == "int32" and isinstance(value.value, int) else tirx.const(value.value, dtype)
        if isinstance(value, Var):
            return _convert(self.values[value.name], dtype)
        if isinstance(value, Coordinate):
            return _convert(self._coordinate(value.buffer, value.dim), dtype)
        if isinstance(value, Stored):
            cursors = self.cursors[value.buffer]
            return _convert(self.handles[f"{value.buffer}.data"][cursors[max(cursors)].position], dtype)
        if isinstance(value, Load):
            return _convert(self.handles[value.buffer][tuple(self._index(index) for index in value.indices)], dtype)
        assert isinstance(value, Op)
        return self._op(value, dtype)

    def _index(self, value: Expr) -> Any:
        """Return an index; where the stored coordinates were made offsets, the gather is their sum with the base's."""
        for name, gather in self.gathers.items():
            if split := gather.split(value):
                base, rest = split
                values = self.values
                self.values = {"k": self._coordinate(name, gather.dim, skip=gather.level)}
                total = self._expr(base) + self.cursors[name][gather.level].coordinate
                self.values = values
                for term in rest:
                    total = total + self._expr(term)
                return total
        return self._expr(value)

    def _coordinate(self, buffer: str, dim: str, skip: int | None = None) -> Any:
        layout = self.kernel.buffers[buffer].layout
        assert layout is not None
        total: Any = 0
        for level, (digit, _) in enumerate(layout.levels):
            if digit.dim == dim and level != skip:
                total = total + self.cursors[buffer][level].coordinate * digit.divisor
        if any(name == dim for name, _ in layout.orders):
            total = T.cast(self.handles[f"{buffer}.{dim}.order"][total], "int32")
        return total

    def _op(self, value: Op, dtype: str) -> Any:
        comparison = value.name in COMPARISONS
        if value.name == "select":
            condition, a, b = value.args
            # TVM makes vectors of Select only; it computes both sides, which a condition on data does not guard.
            data = any(isinstance(part, Load | Stored) for part in walk_expressions(condition))
            select = tirx.Select if data else T.if_then_else
            return select(self._expr(condition), self._expr(a, dtype), self._expr(b, dtype))
        args = [self._expr(arg, self._compared(value) if comparison else dtype) for arg in value.args]
        return _EMIT[value.name](*args)

    def _compared(self, value: Op) -> str:
        """Return the type in which a comparison is carried out: the widest float beside it, else that of indices."""
        loads = [part for part in walk_expressions(value) if isinstance(part, Load | Stored)]
        names = [part.buffer if isinstance(part, Load) else f"{part.buffer}.data" for part in loads]
        types = [str(self.handles[name].dtype) for name in names]
        wide = "int64" if "int64" in types else "int32"
        return max((dtype for dtype in types if dtype.startswith("float")), key=lambda d: int(d[5:]), default=wide)


def _statements(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Yield all statements inside."""
    for stmt in body:
        yield stmt
        if not isinstance(stmt, Assign):
            yield from _statements(stmt.body)


def _convert(value: Any, dtype: str) -> Any:
    """Return a loaded value or an index in `dtype`."""
    return value if isinstance(value, int) or str(value.ty.dtype) == dtype else T.cast(value, dtype)


def T_name(variable: Any, name: str) -> None:
    """Name a block variable for readers of the printed TIR."""
    IRBuilder.name(name, variable)


def _keep(value: Any, name: str) -> Any:
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
    "pow": tirx.power,
    "rsqrt": tirx.rsqrt,
    "sigmoid": tirx.sigmoid,
    "sqrt": tirx.sqrt,
    "tanh": tirx.tanh,
}
