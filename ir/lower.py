"""Lowering: from a kernel to S-TIR.

The loops outside a tile become one block, bound to everything that walks so far have found; inside it, each further
sparse loop has a block whose position and coordinate are constants to what it holds; the innermost loops over lanes are
ordinary blocks. So TVM's `Schedule` can split, unroll, vectorise and tensorise them as if nothing were sparse, even
though the loops around them have bounds that are read from memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from sparsec.errors import KernelError
from sparsec.ir.emission import along, fetch_line
from sparsec.ir.footprint import clears, covers
from sparsec.ir.fragments import CodePacking
from sparsec.ir.gather import Gather
from sparsec.ir.instruction import INSTRUCTIONS
from sparsec.ir.kernel import (
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
    Range,
    Stmt,
    Tile,
    Var,
    Walk,
    walk_expressions,
)
from sparsec.ir.layout import Packed
from sparsec.ir.levels import Bit, Cursor, Dense
from sparsec.ir.nesting import Pending
from sparsec.ir.nibbles import pack_nibbles
from sparsec.ir.printer import print_buffer
from sparsec.ir.quads import Quads
from sparsec.ir.spelled_nest import spelled_nests
from sparsec.ir.spelling import Spelling, call_fragments
from sparsec.ir.standing import convert, keep, store
from sparsec.ir.stored import MIN_INDEX_BITS, array_types, greatest_indices
from sparsec.ir.tiles import TileUnit
from sparsec.ir.verifier import verify
from sparsec.targets import LINE


@dataclass(frozen=True)
class Lowered:
    """A kernel as S-TIR, and how its parameters are made from its operands.

    Parameters
    ----------
    func : a PrimFunc whose parameters are the dense buffers and, in place of a packed one, the arrays of its layout
    parameters : (buffer, array) of each parameter in order; the array is empty for a dense buffer
    gathers : for a packed operand, how its stored coordinates are turned into offsets
    codes : for a packed operand, how it is turned into code
    """

    kernel: Kernel
    func: tirx.PrimFunc
    parameters: tuple[tuple[str, str], ...]
    gathers: dict[str, Gather] = field(default_factory=dict)
    codes: dict[str, CodePacking] = field(default_factory=dict)

    def pack(self, buffer: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays that the kernel takes in place of the packed operand `buffer`, by name and in order.

        Integers come to be as wide as those of the buffer.
        """
        layout, stored = self.kernel.buffers[buffer].layout, np.dtype(self.kernel.buffers[buffer].dtype)
        assert layout is not None, f"{buffer} is dense"
        if value.dtype.kind == stored.kind == "i" and stored.itemsize > value.dtype.itemsize:
            value = value.astype(stored)
        packed: Packed = layout.pack(value, min_index_bits=MIN_INDEX_BITS)
        arrays = dict(packed.arrays)
        if buffer in self.codes:
            return self.codes[buffer].pack(arrays)
        if buffer in self.gathers:
            gather = self.gathers[buffer]
            arrays |= {name: gather.table[arrays[name]] for name in gather.arrays}
        if self.kernel.buffers[buffer].dtype == "int4" and "data" in arrays:
            arrays["data"] = pack_nibbles(arrays["data"])
        return arrays


def lower(kernel: Kernel, features: Collection[str] | None = None) -> Lowered:
    """Lower a kernel to an S-TIR PrimFunc of the same name.

    Nests that name an instruction are carried out by it where the target has these features, of which None means all;
    elsewhere they stay loops.

    Raises
    ------
    KernelError : if the kernel does not verify, or an index could need more than 32 bits
    """
    verify(kernel)
    _check_indices(kernel)
    return _Lowering(kernel, features).run()


def _check_indices(kernel: Kernel) -> None:
    for buffer in kernel.buffers.values():
        for array, greatest in greatest_indices(buffer).items():
            if greatest > np.iinfo(np.int32).max:
                what = f"an index in {array} of {buffer.name}" if array else f"an index into {buffer.name}"
                raise KernelError(
                    f"Kernel {kernel.name}, `{print_buffer(buffer)}`: {what} could be {greatest}, which does not fit "
                    "the 32 bits in which indices are computed; split the operator into several over smaller tensors."
                )


class _Lowering(Quads):
    def __init__(self, kernel: Kernel, features: Collection[str] | None) -> None:
        super().__init__(kernel, features)
        nests = [found for found in spelled_nests(kernel) if self.has(INSTRUCTIONS[found.nest.instruction])]
        self.spelling = Spelling(nests)
        for name in self.spelling.codes:
            self.gathers.pop(name, None)

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
        return Lowered(self.kernel, ib.get(), tuple(parameters), self.gathers, self.spelling.codes)

    def _parameter(self, buffer: Buffer) -> list[tuple[str, str]]:
        if buffer.layout is None:
            extents = [self.values[dim] if isinstance(dim, str) else dim for dim in buffer.shape]
            self.handles[buffer.name] = T.arg(buffer.name, T.buffer(extents, buffer.dtype))
            return [(buffer.name, "")]
        code = self.spelling.codes.get(buffer.name)
        types = code.types if code else array_types(self.kernel, buffer, self.gathers.get(buffer.name))
        for array, dtype in types.items():
            name = f"{buffer.name}_{array.replace('.', '_')}"
            extent = tirx.Var(f"n_{name}", "int32")
            self.handles[f"{buffer.name}.{array}"] = T.arg(name, T.buffer((extent,), str(dtype)))
        return [(buffer.name, array) for array in types]

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

    def _for(self, stmt: For) -> None:
        if instruction := self.named(stmt):
            if spelled := self.spelling.find(stmt):
                call_fragments(spelled, instruction, self)
            else:
                self.emit(stmt, instruction)
            return
        lanes = self._lanes(stmt)
        with self.scope() as frames:
            if lanes is not None:
                if self.pending:
                    self.enter_block("step", frames)
                self._assign(*lanes)
                return
            if self.is_quad_walk(stmt):
                self.walk_by_quads(stmt, lambda axis, cursor: self._stand(axis, cursor, stmt.body))
                return
            first = next((n for n, axis in enumerate(stmt.axes) if self._is_bit_walk(axis)), None)
            if first is not None:
                if first:
                    self.open(replace(stmt, axes=stmt.axes[:first]), frames)
                self._walk_bits(stmt.axes[first], stmt.axes[first + 1 :], stmt.body, frames)
                return
            self.open(stmt, frames)
            if self.depth:
                self.enter_block("step", frames)
                self.fetch_slot(stmt.axes[-1])
            with self.ready(self._unit(stmt) if stmt.parallel else None):
                self._body(stmt.body)

    def _tile(self, stmt: Tile) -> None:
        with self.scope() as frames:
            self.enter_block("tile", frames)
            for fetch in stmt.fetch:
                self._fetch(fetch)
            self.tiles[stmt.name] = stmt
            body, in_fragments = self.spelling.body_of(stmt, self.here)
            # Local buffers become registers; a tile around others, if it takes no sums, is a buffer that they read.
            holds_tiles = any(isinstance(inner, Tile) for inner in _statements(stmt.body))
            scope = "global" if holds_tiles and not _sums_up(stmt) else "local"
            if not in_fragments:
                self.handles[stmt.name] = T.sblock_alloc_buffer((prod(stmt.shape),), stmt.dtype, scope=scope)
            self.depth += 1
            if nest := self._starts_in_tiles(stmt, body):
                self.emit(nest, INSTRUCTIONS[nest.instruction], fresh=True)
                body = body[2:]
            self._body(body)
            self.depth -= 1
        self.handles.pop(stmt.name, None)
        del self.tiles[stmt.name]

    def _starts_in_tiles(self, tile: Tile, body: Sequence[Stmt]) -> For | None:
        """Return the nest after a statement that clears all sums of a tile, where registers of tiles hold them all."""
        if len(body) < 2 or not isinstance(nest := body[1], For) or not (instruction := self.named(nest)):
            return None
        whole = instruction.tiles and clears(body[0], tile, self.here) and covers(nest, tile, self.here)
        return nest if whole else None

    def _fetch(self, fetch: Fetch) -> None:
        """Ask for the lines that elements lie in, counted from the first one."""
        with self.scope() as frames:
            if fetch.var:
                axis = self.walks[fetch.var]
                last = self.axes(axis.buffer)[axis.level].positions - 1
                position = tirx.min(self.cursors[axis.buffer][axis.level].position + fetch.ahead, last)
                coordinate = self.level(axis).coordinate_at(position, self.loader(axis, bound=True))
                self.values[fetch.var] = keep(coordinate, f"{fetch.var}_ahead")
            if fetch.condition:
                frames.enter_context(T.If(self.expr(fetch.condition)))
                frames.enter_context(T.Then())
            handle, indices = self.handles[fetch.first.buffer], self.place(fetch.first)
            for start in range(0, fetch.count, LINE // np.dtype(str(handle.dtype)).itemsize):
                fetch_line(handle, along(indices, start, 1))

    def _if(self, stmt: If) -> None:
        with T.If(self.expr(stmt.condition)), T.Then():
            self._body(stmt.body)

    def _unit(self, stmt: For) -> TileUnit | None:
        """Return the unit of tiles that is used inside a loop, if there is one."""
        nests = (inner for inner in _statements(stmt.body) if isinstance(inner, For))
        used = (INSTRUCTIONS[nest.instruction] for nest in nests if nest.instruction in INSTRUCTIONS)
        return next((one.tiles for one in used if one.tiles and self.has(one)), None)

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
        reads = (part.buffer for part in walk_expressions(stmt.value) if isinstance(part, Load))
        if (stmt.accumulate or stmt.target.buffer in reads) and not self._decides(axis, stmt.target):
            return False  # a sum over this axis, or another reduction
        if isinstance(axis, Range):
            return isinstance(axis.start, Const) and isinstance(axis.stop, Const)
        return axis.part == "run" or (isinstance(self.level(axis), Dense) and axis.at is None)

    def _decides(self, axis: Axis, target: Load) -> bool:
        """Whether each iteration of an axis has an element of its own, which is an index or a digit of one."""
        if Var(axis.var) in target.indices:
            return True
        if isinstance(axis, Range):
            return False
        layout = self.kernel.buffers[axis.buffer].layout
        assert layout is not None
        return Coordinate(axis.buffer, layout.levels[axis.level][0].dim) in target.indices

    def _assign(self, axes: tuple[Axis, ...], stmt: Assign, condition: Expr | None = None) -> None:
        with self.scope() as frames:
            if self.depth:
                self.keep_ordered(stmt, axes)
            loops = []
            for axis in axes:
                extent = self.extent(axis)
                loops.append((axis, extent, frames.enter_context(T.serial(extent))))
            frames.enter_context(T.sblock(self._name(stmt)))
            for axis, extent, variable in loops:
                lane = T.axis.spatial(extent, variable)
                IRBuilder.name(axis.var, lane)
                self.bind(axis, [lane], bound=False)
            if condition is not None:
                frames.enter_context(T.If(self.expr(condition)))
                frames.enter_context(T.Then())
            target = self.handles[stmt.target.buffer]
            dtype = stmt.computed_in(self.element)
            value = self.expr(stmt.value, dtype)
            indices = self.place(stmt.target)
            if stmt.accumulate:
                value = convert(target[tuple(indices)], dtype) + value
            T.buffer_store(target, store(value, str(target.dtype)), indices)

    def element(self, name: str) -> str:
        """Return the type of the elements of a buffer, a packed operand or a tile."""
        return str(self.handles[name if name in self.handles else f"{name}.data"].dtype)

    def _name(self, stmt: Assign) -> str:
        name = self.kernel.kind(stmt)
        count = self.names[name] = self.names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"

    def _stand(self, axis: Walk, cursor: Cursor, body: Sequence[Stmt]) -> None:
        with self.scope():
            self.cursors[axis.buffer][axis.level] = cursor
            self.values[axis.var] = cursor.coordinate
            self._body(body)

    # -- bit by bit ------------------------------------------------------------------------------------------------

    def _is_bit_walk(self, axis: Axis) -> bool:
        return isinstance(axis, Walk) and bool(self.level(axis).words)

    def _walk_bits(self, axis: Axis, rest: tuple[Axis, ...], body: tuple[Stmt, ...], frames: ExitStack) -> None:
        """Emit a loop over the bits that are set in each word of a level, and what is inside.

        Before:  `for k in W[1]: step(k)`
        After:   `word = words[p]; for n in range(popcount(word)): step(ctz(word)); word &= word - 1`
        """
        assert isinstance(axis, Walk)
        visit = self.visit(axis, bound=False)
        loop, outer = next(visit), Pending(axis, [], [])
        while loop.kind != "bits":
            outer.extents.append(loop.extent)
            outer.variables.append(frames.enter_context(T.serial(loop.extent)))
            loop = visit.send(outer.variables[-1])
        self.pending.append(outer)
        variables = self.enter_block("word", frames)

        visit = self.visit(axis, bound=True)
        loop = next(visit)
        for variable in variables:
            loop = visit.send(variable)
        name = f"{axis.var}_word"
        word = self.handles[name] = T.sblock_alloc_buffer((1,), "uint64", scope="local")
        T.buffer_store(word, loop.extent, [0])
        nth = self.counted("nth", T.cast(tirx.popcount(loop.extent), "int32"), frames)
        zeros = tirx.call_llvm_pure_intrin("uint64", "llvm.cttz", word[0], tirx.const(True, "bool"))
        place = keep(T.cast(zeros, "int32"), "place")
        T.buffer_store(word, tirx.bitwise_and(word[0], word[0] - tirx.const(1, "uint64")), [0])
        try:
            visit.send(Bit(nth, place))
        except StopIteration as end:
            cursor = end.value
        inner: tuple[Stmt, ...] = (For(rest, body),) if rest else body
        self._stand(axis, replace(cursor, position=keep(cursor.position, "position")), inner)
        del self.handles[name]


def _sums_up(tile: Tile) -> bool:
    """Say whether values are added to the elements of a tile."""
    return any(
        isinstance(stmt, Assign) and stmt.accumulate and stmt.target.buffer == tile.name
        for stmt in _statements(tile.body)
    )


def _statements(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Yield all statements inside."""
    for stmt in body:
        yield stmt
        if not isinstance(stmt, Assign):
            yield from _statements(stmt.body)
