"""Emission of instructions in place of the nests that name them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from sparsec.errors import KernelError
from sparsec.ir.footprint import Operand, Scope
from sparsec.ir.instruction import Instruction, find_instruction
from sparsec.ir.kernel import Assign, Buffer, For, Kernel, Load, Stored, Var, Walk
from sparsec.ir.levels import Cursor
from sparsec.ir.matcher import Match, Place, Refusal, Segment, match_innermost, types_of
from sparsec.ir.nesting import Nesting
from sparsec.ir.printer import print_statement
from sparsec.ir.standing import keep
from sparsec.ir.tiles import Rows, TileUnit, multiply_in_tiles

QUAD = 4  # values, or coordinates of 16 bits, that one load brings
WORDS = (16, 32, 64)  # bits that one load can broadcast to a vector
READ, DATA, ALL_CACHES, FROM_L2 = 0, 1, 3, 2  # what `llvm.prefetch` is told: why, what, and where to keep it


class Emission(Nesting):
    """Writes the loads, the instructions and the stores that a nest stands for.

    Parameters
    ----------
    features : what the target has, or None to emit whatever is named

    `quads` holds by operand a vector that repeats four of its values, and which of them the walks stand on, and
    `configured` the unit whose registers are ready.
    """

    def __init__(self, kernel: Kernel, features: Collection[str] | None = None) -> None:
        super().__init__(kernel)
        self.features = features
        self.quads: dict[str, tuple[Any, int]] = {}
        self.configured: TileUnit | None = None

    def named(self, nest: For) -> Instruction | None:
        """Return the instruction that a nest names, if the target has it."""
        if not nest.instruction:
            return None
        instruction = find_instruction(nest.instruction, types_of(nest, self.here))
        return instruction if self.has(instruction) else None

    def has(self, instruction: Instruction) -> bool:
        """Whether the target has an instruction."""
        return self.features is None or instruction.runs_on(self.features)

    @property
    def here(self) -> Scope:
        """The scope in which the lowering stands."""
        tiles = {name: Buffer(name, tile.dtype, tile.shape) for name, tile in self.tiles.items()}
        return Scope({**self.kernel.buffers, **tiles}, self.ranges)

    def emit(self, nest: For, instruction: Instruction, fresh: bool = False) -> None:
        """Carry out a nest, its outer axes written out one iteration after the other.

        Before:  `for r in range(0, 2), v in range(0, 16): acc[r, v] += W * X[v]`
        After:   `acc[0, 0:16] = fma(W, X[0:16], acc[0, 0:16]); acc[1, 0:16] = fma(…)`

        Parameters
        ----------
        fresh : whether sums that registers of tiles hold start from zero, and not from what is in memory

        Raises
        ------
        KernelError : if the instruction does not do what the nest does
        """
        match = match_innermost(nest, self.here, instruction)
        if isinstance(match, Refusal):
            raise KernelError(f"Kernel {self.kernel.name}, `{print_statement(nest)}`: {match.reason}.")
        counts = [(0,) if n in match.axes else range(self.here.extent(axis) or 0) for n, axis in enumerate(nest.axes)]
        with self.scope() as frames:
            self.enter_block(instruction.name.replace(".", "_"), frames)
            (stmt,) = nest.body
            assert isinstance(stmt, Assign)
            self.keep_ordered(stmt, nest.axes)
            if instruction.tiles:
                with self.ready(instruction.tiles):
                    multiply_in_tiles(nest, match, self, fresh)
                return
            for outer in product(*counts):
                self.step(nest, match, outer)

    @contextmanager
    def ready(self, unit: TileUnit | None) -> Iterator[None]:
        """Have the registers of a unit ready for what is written inside."""
        if unit is None or self.configured is unit:
            yield
            return
        outer, self.configured = self.configured, unit
        unit.configure()
        yield
        unit.release()
        self.configured = outer
        if outer:
            outer.configure()

    def step(self, nest: For, match: Match, outer: Sequence[int]) -> None:
        """Carry out the instruction once."""
        instruction = match.instruction
        (output,) = instruction.semantics.outputs
        operands = [buffer.name for buffer in instruction.semantics.inputs]
        if instruction.statement.accumulate:
            operands.append(output.name)
        values = []
        for name in operands:
            registers = [self.register(nest, match.places[name], part, outer) for part in match.places[name].registers]
            values.append(registers[0] if len(registers) == 1 else registers)
        result = instruction.emit(*values)
        place = match.places[output.name]
        for part, register in zip(place.registers, result if isinstance(result, list) else [result], strict=True):
            self.store(nest, place, part, outer, register)

    def find(self, nest: For, value: Operand, first: Sequence[int], outer: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the buffer and the indices of an operand in one iteration.

        Raises
        ------
        KernelError : for the coordinates of a level, which may be stored as what they lead to
        """
        if isinstance(value, Var):
            raise KernelError(
                f"Kernel {self.kernel.name}: no code is generated yet for what takes coordinates of levels."
            )
        for axis, count, start in zip(nest.axes, first, outer, strict=True):
            self.bind(axis, [count + start], bound=False)
        if isinstance(value, Stored):
            return self.handles[f"{value.buffer}.data"], [self.position(value.buffer)]
        return self.handles[value.buffer], self.place(value)

    def register(self, nest: For, place: Place, segments: Sequence[Segment], outer: Sequence[int]) -> Any:
        """Load the elements of one register."""
        if parts := self.gathered(nest, place, segments, outer):
            return shuffle(parts, range(len(parts)))
        parts = []
        for segment in segments:
            if isinstance(place.value, Stored) and place.value.buffer in self.quads and not any(segment.offsets):
                parts.append(_of_quad(*self.quads[place.value.buffer], len(segment.offsets)))
                continue
            handle, indices = self.find(nest, place.value, segment.first, outer)
            parts.append(_load(handle, indices, segment.offsets))
        return parts[0] if len(parts) == 1 else shuffle(parts, range(sum(len(s.offsets) for s in segments)))

    def gathered(self, nest: For, place: Place, segments: Sequence[Segment], outer: Sequence[int]) -> list[Any]:
        """Load elements that each have a coordinate of their own, four of 16 bits at once; nothing where it is not so.

        Loads are what such a step waits for; other units take the coordinates apart.
        """
        walk = nest.axes[-1]
        if len(segments) % QUAD or not isinstance(place.value, Load) or not isinstance(walk, Walk):
            return []
        indices = self.handles.get(f"{walk.buffer}.level{walk.level}.indices")
        if not self.level(walk).shares_positions or indices is None or str(indices.dtype) != "uint16":
            return []
        parts = []
        for start in range(0, len(segments), QUAD):
            self.find(nest, place.value, segments[start].first, outer)
            first = self.cursors[walk.buffer][walk.level].position
            quad = keep(tirx.reinterpret("uint64", indices[T.ramp(first, 1, QUAD)]), "quad")
            for lane in range(QUAD):
                handle, _ = self.find(nest, place.value, segments[start + lane].first, outer)
                coordinate = keep(of_quad(quad, lane), "coordinate")
                self.cursors[walk.buffer][walk.level] = Cursor(first + lane, coordinate)
                self.values[walk.var] = coordinate
                parts.append(handle[tuple(self.place(place.value))])
        return parts

    def store(self, nest: For, place: Place, segments: Sequence[Segment], outer: Sequence[int], value: Any) -> None:
        """Store the elements of one register."""
        done = 0
        for segment in segments:
            count = len(segment.offsets)
            handle, indices = self.find(nest, place.value, segment.first, outer)
            part = value if len(segments) == 1 else shuffle([value], range(done, done + count))
            T.buffer_store(handle, part, along(indices, 0, count))
            done += count

    def rows(self, nest: For, place: Place, outer: Sequence[Any]) -> Rows:
        """Return where the rows of an operand are in memory."""
        handle, indices = self.find(nest, place.value, place.registers[0][0].first, outer)
        return tirx.address_of(handle[tuple(indices)]), place.pitch * np.dtype(str(handle.dtype)).itemsize


def _load(handle: Any, indices: list[Any], offsets: tuple[int, ...]) -> Any:
    """Load elements whose offsets from the first one are constant."""
    count = len(offsets)
    if not any(offsets):
        value = handle[tuple(indices)]
        return T.broadcast(value, count) if count > 1 else value
    groups = (n for n in range(1, count + 1) if count % n == 0 and offsets == tuple(range(n)) * (count // n))
    if group := next(groups, 0):
        return _repeated(handle[tuple(along(indices, 0, group))], group, count)
    low, span = min(offsets), max(offsets) - min(offsets) + 1
    if span > 4 * count:
        places = [*indices[:-1], T.broadcast(indices[-1], count) + shuffle(list(offsets), range(count))]
        return handle[tuple(places)]
    width = 1 << (span.bit_length() - 1)  # two loads that overlap cover the span
    halves = [handle[tuple(along(indices, start, width))] for start in (low, low + span - width)]
    return shuffle(halves, [o - low if o - low < width else o - low - span + 2 * width for o in offsets])


def repeat_quad(quad: Any, lanes: int) -> Any:
    """Repeat four float32 over a vector, so that each is broadcast from there.

    LLVM takes a broadcast of what was loaded for a load that broadcasts, which would be four loads in place of one. It
    does not look through the fence, and takes an element within each 128 bits by one shuffle.
    """
    wide = shuffle([quad], [n % QUAD for n in range(lanes)])
    return tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.arithmetic.fence", wide)


def of_quad(quad: Any, lane: int) -> Any:
    """Take a coordinate out of four of 16 bits."""
    shifted = tirx.shift_right(quad, tirx.const(16 * lane, "uint64"))
    return T.cast(tirx.bitwise_and(shifted, tirx.const(65535, "uint64")), "int32")


def _of_quad(wide: Any, lane: int, count: int) -> Any:
    """Broadcast an element of a repeated quad."""
    return shuffle([wide], [n // QUAD * QUAD + lane for n in range(count)])


def _repeated(group: Any, size: int, count: int) -> Any:
    """Repeat a vector of `size` elements up to `count` of them."""
    if size == count:
        return group
    dtype = str(group.ty.dtype).partition("x")[0]
    bits = size * 8 * np.dtype(dtype).itemsize
    if bits not in WORDS:
        return shuffle([group], [n % size for n in range(count)])
    word = T.broadcast(tirx.reinterpret(f"int{bits}", group), count // size)
    return tirx.reinterpret(f"{dtype}x{count}", word)


def fetch_line(handle: Any, indices: Sequence[Any], to_l2: bool = False) -> None:
    """Ask for the line that an element lies in, to L1 or L2; it may lie behind the end."""
    how = (READ, FROM_L2 if to_l2 else ALL_CACHES, DATA)
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", tirx.address_of(handle[tuple(indices)]), *how))


def along(indices: list[Any], offset: int, count: int) -> list[Any]:
    """Return the indices of so many elements that follow each other in memory."""
    last = indices[-1] + offset
    return [*indices[:-1], T.ramp(last, 1, count) if count > 1 else last]


def shuffle(vectors: Sequence[Any], indices: Sequence[int]) -> Any:
    """Return the elements at constant places of several vectors, or numbers, one after the other."""
    lanes = sum(1 if isinstance(vector, int) else vector.ty.dtype.lanes for vector in vectors)
    repeated = list(vectors) * -(-len(indices) // lanes)  # TVM wants no more elements than there are
    return tirx.Shuffle(repeated, [tirx.IntImm("int32", index) for index in indices])
