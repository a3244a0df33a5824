"""Find where an instruction does what a nest of loops does.

The two checks of UNIT (Weng et al., "UNIT: Unifying Tensorized Instruction Compilation", CGO 2021, section 4): the
expressions of the instruction and of the operation must be the same up to the names of what they load, and each axis of
the instruction must run along one of the operation such that every operand is found where the instruction takes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations
from math import prod

import numpy as np

from sparsec.ir.footprint import Operand, Scope, footprint
from sparsec.ir.instruction import Instruction
from sparsec.ir.kernel import Assign, Axis, For, If, Kernel, Load, Op, Stmt, Stored, Var, Walk
from sparsec.ir.printer import print_expression
from sparsec.ir.unify import parts_of, unify


@dataclass(frozen=True)
class Refusal:
    """Why an instruction does not do what a nest does.

    Parameters
    ----------
    kind : `body`, `combiner`, `length`, `operators`, `types`, `axes`, `extents` or `access`
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class Segment:
    """A run of elements of a register whose addresses differ by constants.

    Parameters
    ----------
    first : how many times each axis of the nest ran before the iteration that reads or writes the first element
    offsets : of each element from the first one
    """

    first: tuple[int, ...]
    offsets: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements follow each other in memory."""
        return self.offsets == tuple(range(len(self.offsets)))


@dataclass(frozen=True)
class Place:
    """Where an operand of an instruction is found.

    Parameters
    ----------
    value : what it is in the operation
    registers : the segments of each register
    pitch : the elements from one register to the next in memory, if that is the same for all, else 0
    """

    value: Operand
    registers: tuple[tuple[Segment, ...], ...]
    pitch: int = 0

    @cached_property
    def effort(self) -> int:
        """How many loads and shuffles bring it together, roughly."""
        segments = [segment for register in self.registers for segment in register]
        return sum(1 if s.is_contiguous or not any(s.offsets) else 1 + len(set(s.offsets)) for s in segments)


@dataclass(frozen=True)
class Match:
    """Where the axes and the operands of an instruction are in an operation.

    Parameters
    ----------
    axes : for each axis of the instruction, the place of the axis of the nest that it runs along
    places : by name of the instruction's operands, its output included
    """

    instruction: Instruction
    axes: tuple[int, ...]
    places: dict[str, Place]

    @property
    def effort(self) -> int:
        """How many loads, shuffles and stores it takes, roughly."""
        return sum(place.effort for place in self.places.values())


def match(nest: For, kernel: Kernel, instruction: Instruction) -> Match | Refusal:
    """Say how an instruction carries out a nest of a kernel, once or several times, or why it does not.

    Raises
    ------
    ValueError : if the nest is not one of the kernel's
    """
    around = enclosing(kernel.body, nest)
    if around is None:
        raise ValueError(f"kernel {kernel.name} has no such nest")
    return match_in(nest, Scope.of(kernel, around), instruction)


def enclosing(body: Sequence[Stmt], nest: Stmt) -> tuple[Stmt, ...] | None:
    """Return the statements around one, the outermost first, or None if it is not there."""
    for stmt in body:
        if stmt is nest:
            return ()
        if not isinstance(stmt, Assign) and (inside := enclosing(stmt.body, nest)) is not None:
            return (stmt, *inside)
    return None


def match_in(nest: For, scope: Scope, instruction: Instruction, ragged: bool = False) -> Match | Refusal:
    """Match a nest in its scope; if `ragged`, the last iterations of an axis may be left over."""
    return _Matching(nest, scope, instruction, ragged).run()


def match_innermost(nest: For, scope: Scope, instruction: Instruction) -> Match | Refusal:
    """Match an instruction once in each iteration of the outer axes of a nest: its axes are the last ones."""
    matching = _Matching(nest, scope, instruction, ragged=False)
    free = [n for n, axis in enumerate(nest.axes) if not scope.is_single(axis)]
    return matching.run(tuple(free[len(free) - len(instruction.extents) :]))


def types_of(nest: For, scope: Scope) -> tuple[str, ...]:
    """Return the element types of what the assignment of a nest loads, in order, and of its target."""
    (stmt,) = nest.body
    assert isinstance(stmt, Assign)
    loads = [part for part in parts_of(stmt.value) if isinstance(part, Load | Stored)]
    return tuple(scope.buffers[load.buffer].dtype for load in (*loads, stmt.target))


class _Matching:
    def __init__(self, nest: For, scope: Scope, instruction: Instruction, ragged: bool) -> None:
        self.nest, self.scope, self.instruction, self.ragged = nest, scope, instruction, ragged
        self.own = Scope.of(instruction.semantics)
        self.extents = [scope.extent(axis) for axis in nest.axes]

    def run(self, axes: tuple[int, ...] | None = None) -> Match | Refusal:
        """Match along these axes, or those that take the least effort."""
        stmt, pattern = self.nest.body[0], self.instruction.statement
        if len(self.nest.body) != 1 or not isinstance(stmt, Assign):
            what = "a condition" if isinstance(stmt, If) else "more than one assignment"
            return Refusal("body", f"the loops hold {what}, and an instruction has one assignment only")
        if stmt.accumulate != pattern.accumulate:
            ways = ("assigns", "adds to what is there")
            found, taken = ways[stmt.accumulate], ways[pattern.accumulate]
            return Refusal("combiner", f"the statement {found}, and {self.instruction.name} {taken}")
        bindings = self.bindings(stmt)
        if isinstance(bindings, Refusal):
            return bindings
        return self.mapped(bindings, axes)

    # -- compute isomorphism ---------------------------------------------------------------------------------------

    def bindings(self, stmt: Assign) -> list[dict[str, Operand]] | Refusal:
        """Return the ways in which the operands of the instruction stand for what the statement loads."""
        name, pattern = self.instruction.name, self.instruction.statement
        lengths = [sum(isinstance(part, Op) for part in parts_of(value)) for value in (stmt.value, pattern.value)]
        if lengths[0] != lengths[1]:
            counts = [f"{n} operator{'s' if n != 1 else ''}" for n in lengths]
            text = print_expression(stmt.value)
            return Refusal("length", f"`{text}` has {counts[0]}, and {name} {counts[1]}")
        found = [{**way, pattern.target.buffer: stmt.target} for way in unify(pattern.value, stmt.value)]
        if not found:
            texts = print_expression(stmt.value), print_expression(pattern.value)
            return Refusal("operators", f"`{texts[0]}` is not of the form `{texts[1]}` of {name}")
        if self.choices:
            walks = self.choosing()
            if isinstance(walks, Refusal):
                return walks
            found = [way | dict(zip(self.choices, vars_, strict=True)) for way in found for vars_ in walks]
        mistyped = [self.mistyped(way) for way in found]
        fitting = [way for way, texts in zip(found, mistyped, strict=True) if not texts]
        if not fitting:
            return Refusal("types", min(mistyped, key=len)[0])
        values = fitting[0].items()
        read = {value.buffer for name, value in values if name in self.inputs and not isinstance(value, Var)}
        if stmt.target.buffer in read:
            return Refusal("access", f"{stmt.target.buffer} is read and written, which {name} does in no order")
        return fitting

    def mistyped(self, binding: dict[str, Operand]) -> list[str]:
        """Say which operands have another type than the instruction takes."""
        name, texts = self.instruction.name, []
        for operand, value in binding.items():
            if isinstance(value, Var):
                continue  # coordinates are stored in as few bytes as they need
            taken, found = self.own.buffers[operand].dtype, self.scope.buffers[value.buffer].dtype
            if taken != found:
                texts.append(f"{value.buffer} is {found}, where {name} takes {operand} in {taken}")
        return texts

    def choosing(self) -> list[tuple[Var, ...]] | Refusal:
        """Return the walks of the nest whose coordinates may be the choices of the instruction."""
        name, walks = self.instruction.name, [axis for axis in self.nest.axes if isinstance(axis, Walk)]
        storing = [axis for axis in walks if axis.at is None and self.scope.level(axis).coordinates]
        if len(storing) < len(self.choices):
            text = " and ".join(self.choices)
            return Refusal("access", f"no level in the loops stores coordinates, which {name} takes as {text}")
        fitting = [
            axes
            for axes in permutations(storing, len(self.choices))
            if tuple(self.scope.axis(axis).size for axis in axes) == tuple(self.choices.values())
        ]
        if not fitting:
            (axis, *_), (taken, *_) = storing, self.choices.values()
            size = self.scope.axis(axis).size
            return Refusal("extents", f"{axis.var} is one of {size} coordinates, and {name} takes one of {taken}")
        return [tuple(Var(axis.var) for axis in axes) for axes in fitting]

    @cached_property
    def choices(self) -> dict[str, int]:
        """The operands of the instruction that say where it finds others, and one of how many places they name."""
        found = {}
        for load in parts_of(self.instruction.statement.value):
            if isinstance(load, Load):
                for index, extent in zip(load.indices, self.own.buffers[load.buffer].shape, strict=True):
                    if isinstance(index, Load) and isinstance(extent, int):
                        found[index.buffer] = extent
        return found

    @property
    def has_coordinates_of_lanes(self) -> bool:
        """Whether each lane has a coordinate of its own, so that elements are loaded one by one in any case."""
        walks = [axis for axis in self.nest.axes if isinstance(axis, Walk)]
        return any(self.scope.level(axis).shares_positions for axis in walks)

    @property
    def inputs(self) -> set[str]:
        return {buffer.name for buffer in self.instruction.semantics.inputs}

    # -- access isomorphism ----------------------------------------------------------------------------------------

    def mapped(self, bindings: list[dict[str, Operand]], given: tuple[int, ...] | None) -> Match | Refusal:
        """Return the match that takes the least effort over all orders of the axes, or why the first order fails."""
        free = [n for n, axis in enumerate(self.nest.axes) if not self.scope.is_single(axis)]
        needed = len(self.instruction.extents)
        if len(free) < needed:
            loops = "there is 1 loop" if len(free) == 1 else f"there are {len(free)} loops"
            return Refusal("axes", f"{loops}, and {self.instruction.name} has {needed} axes")
        best: Match | None = None
        refusals: list[Refusal] = []
        orders = sorted(permutations(free, needed), key=lambda axes: (axes != tuple(sorted(axes)), -axes[-1]))
        for axes in orders if given is None else [given]:
            if refusal := self.misfit(axes):
                refusals.append(refusal)
                continue
            for binding in bindings:
                found = self.at(axes, binding)
                if isinstance(found, Refusal):
                    refusals.append(found)
                elif best is None or found.effort < best.effort:
                    best = found
            if best and self.instruction.tiles:
                break  # all others load and store as many rows
        if best:
            return best
        return next((refusal for refusal in refusals if refusal.kind == "access"), refusals[0])

    def misfit(self, axes: tuple[int, ...]) -> Refusal | None:
        """Say why the axes of the instruction do not fit into these of the nest."""
        name = self.instruction.name
        for place, taken in zip(axes, self.instruction.extents, strict=True):
            var, extent = self.nest.axes[place].var, self.extents[place]
            if extent is None:
                return Refusal("extents", f"how often {var} runs is not constant, and {name} takes {taken} at a time")
            if extent < taken or (extent % taken and not self.ragged):
                padded = -(-extent // taken) * taken
                nothing = 100 * (padded - extent) // padded
                waste = f"padded to {padded} it would fit, {nothing} % of the work for nothing"
                times = "once" if extent == 1 else f"{extent} times"
                return Refusal("extents", f"{var} runs {times}, not a multiple of {taken} as {name}; {waste}")
        return None

    def at(self, axes: tuple[int, ...], binding: dict[str, Operand]) -> Match | Refusal:
        """Return where the operands are if the instruction's axes run along these of the nest."""
        places = {}
        for operand, value in binding.items():
            found = self.place(axes, operand, value, binding)
            if isinstance(found, Refusal):
                return found
            places[operand] = found
        return Match(self.instruction, axes, places)

    def place(
        self, axes: tuple[int, ...], operand: str, value: Operand, binding: dict[str, Operand]
    ) -> Place | Refusal:
        """Compare where an operand is in each iteration of the instruction and of the nest, whatever is chosen."""
        instruction = self.instruction
        grids = [grid.ravel() for grid in np.indices((*instruction.extents, *self.choices.values()))]
        steps, chosen = grids[: len(axes)], dict(zip(self.choices, grids[len(axes) :], strict=True))
        coordinates = {var.name: chosen[name] for name, var in binding.items() if isinstance(var, Var)}
        indices = [np.zeros(len(grids[0]), dtype=np.int64) for _ in self.nest.axes]
        for place, step in zip(axes, steps, strict=True):
            indices[place] = step
        trials = np.stack(footprint(self.scope, self.nest.axes, indices, value, coordinates))
        (own, *_) = footprint(self.own, instruction.nest.axes, steps, _operand(instruction, operand), chosen)
        size = prod(self.own.buffers[operand].extents)
        elements, first = np.unique(own, return_index=True)
        if len(elements) != size:
            return Refusal("access", f"{instruction.name} does not say what all elements of {operand} are")
        if (trials != trials[:, first[own]]).any():
            moving = _moving(trials - trials[:, first[own]], axes, self.nest.axes, steps)
            text = f"{print_expression(value)} moves along {moving}, and {operand} of {instruction.name} does not"
            return Refusal("access", text)
        addresses = trials[:, first]
        iterations = [tuple(int(index[n]) for index in indices) for n in first]
        output = operand not in self.inputs
        length = size // instruction.pieces(operand)
        registers = [
            tuple(_segments(addresses[:, start : start + length], iterations[start : start + length], output))
            for start in range(0, size, length)
        ]
        found = Place(value, tuple(registers), _pitch(addresses[:, ::length]))
        return self.scattered(operand, found, addresses[0]) or found

    def scattered(self, operand: str, place: Place, addresses: np.ndarray) -> Refusal | None:
        """Refuse rows that are not in one piece, and sums where the instruction has none."""
        name, text = self.instruction.name, print_expression(place.value)
        segments = [segment for register in place.registers for segment in register]
        if self.instruction.tiles and not (place.pitch and all(segment.is_contiguous for segment in segments)):
            return Refusal("access", f"{text} is not in rows of the size of a register, as {operand} of {name}")
        if operand not in self.inputs and len(np.unique(addresses)) != len(addresses):
            return Refusal("access", f"{text} does not move along an axis along which {operand} of {name} does")
        row = int(self.own.buffers[operand].shape[-1])
        if min(len(segment.offsets) for segment in segments) >= min(
            row, len(addresses) // self.instruction.pieces(operand)
        ):
            return None
        if operand in self.inputs and self.has_coordinates_of_lanes and not self.instruction.tiles:
            return None
        what = "only known at run time" if operand in self.inputs else "not contiguous"
        return Refusal("access", f"where {text} is along the last axis of {operand} of {name} is {what}")


def _operand(instruction: Instruction, name: str) -> Load:
    stmt = instruction.statement
    parts = [part for part in (stmt.target, *parts_of(stmt.value)) if isinstance(part, Load)]
    loads = (*parts, *(index for part in parts for index in part.indices if isinstance(index, Load)))
    return next(load for load in loads if load.buffer == name)


def _pitch(starts: np.ndarray) -> int:
    """Return the step from one register to the next, int64 [trials, registers], or 0 where there is no single one."""
    steps = np.unique(np.diff(starts, axis=1))
    return int(steps[0]) if len(steps) == 1 else 0


def _moving(difference: np.ndarray, axes: tuple[int, ...], nest: Sequence[Axis], steps: list[np.ndarray]) -> str:
    """Name an axis along which an address differs where it should not."""
    moved = difference.any(axis=0)
    for place, step in zip(axes, steps, strict=True):
        still = np.ones_like(moved)
        for other in steps:
            still &= (other is step) | (other == 0)
        if (moved & still).any():
            return nest[place].var
    return nest[axes[-1]].var


def _segments(trials: np.ndarray, iterations: list[tuple[int, ...]], contiguous: bool) -> Iterator[Segment]:
    """Cut the elements of a register where the step to the next one is not constant, or, if `contiguous`, not 1.

    Parameters
    ----------
    trials : the addresses, int64 [trials, elements]
    """
    steps = np.diff(trials, axis=1)
    breaks = (steps != (1 if contiguous else steps[:1])).any(axis=0)
    cuts = [0, *(np.flatnonzero(breaks) + 1).tolist(), trials.shape[1]]
    for start, stop in pairwise(cuts):
        yield Segment(iterations[start], tuple((trials[0, start:stop] - trials[0, start]).tolist()))
