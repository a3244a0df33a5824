"""Rewrite the nests of a kernel for an instruction: split their loops, and name it where it does what they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from sparsec.errors import ScheduleError
from sparsec.ir.footprint import Scope
from sparsec.ir.instruction import Instruction, declared_names, find_instruction, is_declared
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Range,
    Stmt,
    Tile,
    Var,
    Walk,
    expr,
    substitute,
    walk_expressions,
)
from sparsec.ir.levels import Dense
from sparsec.ir.matcher import Match, match_in, types_of
from sparsec.schedules.intrinsics import INSTRUCTIONS

WRITTEN_OUT = 64
"""Iterations around an instruction that are written out at most; what is more stays a loop."""


def tensorize(kernel: Kernel, kind: str, name: str) -> Kernel:
    """Let an instruction carry out the nests around assignments of a kind, as far as it does what they do.

    What is left over at the end of an axis is carried out by narrower instructions of the family, or stays a loop.

    Before:  `for r in W[2], v in range(0, 40): acc[r, v] += W * X[v]`
    After:   `for r in W[2], v0 in range(0, 32, 16), v1 in range(0, 16) as fma.16: acc[r, v0 + v1] += W * X[v0 + v1]`
             `for r in W[2], v0 in range(32, 40, 8), v1 in range(0, 8) as fma.8: …`

    Raises
    ------
    ScheduleError : if there are no such nests, or the instruction carries out none of them; with the reason
    """
    if not is_declared(name):
        known = ", ".join(declared_names())
        raise ScheduleError(f"the trace tensorizes with {name!r}, which is not declared; use one of {known}")
    rewriting = _Rewriting(kernel, kind, name)
    body = rewriting.statements(kernel.body, ())
    if not rewriting.matched:
        reason = rewriting.refusals[0] if rewriting.refusals else f"the kernel has no block {kind!r}"
        raise ScheduleError(f"tensorize does not apply to the block {kind!r}: {reason}")
    return replace(kernel, body=body)


class _Rewriting:
    def __init__(self, kernel: Kernel, kind: str, name: str) -> None:
        self.kernel, self.kind, self.name = kernel, kind, name
        self.matched = False
        self.refusals: list[str] = []

    def statements(self, body: Sequence[Stmt], around: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(new for stmt in body for new in self.statement(stmt, around))

    def statement(self, stmt: Stmt, around: tuple[Stmt, ...]) -> Iterator[Stmt]:
        if isinstance(stmt, For) and self.is_meant(stmt):
            yield from self.nest(stmt, around)
        elif isinstance(stmt, Assign):
            yield stmt
        else:
            yield replace(stmt, body=self.statements(stmt.body, (*around, stmt)))

    def is_meant(self, nest: For) -> bool:
        inner = nest.body[0]
        if isinstance(inner, If):
            inner = inner.body[0]
        named = isinstance(inner, Assign) and self.kernel.kind(inner) == self.kind
        return named and not nest.parallel and not nest.instruction

    def nest(self, nest: For, around: tuple[Stmt, ...]) -> Iterator[Stmt]:
        """Yield a nest rewritten, or as it is where the instruction does not carry it out."""
        scope = Scope.of(self.kernel, around)
        refusals = []
        candidates = list(_candidates(self.name, nest, scope))
        self.matched |= not candidates  # one element is a scalar operation already
        for instruction in candidates:
            found = match_in(nest, scope, instruction, ragged=True)
            reason = (_uncut(nest, scope, found) or _scattered(found)) if isinstance(found, Match) else found.reason
            if isinstance(found, Match) and not reason:
                self.matched = True
                yield from self.matching(nest, around, scope, found)
                return
            refusals.append(reason)
        self.refusals += refusals[:1]
        yield nest

    def matching(self, nest: For, around: tuple[Stmt, ...], scope: Scope, match: Match) -> Iterator[Stmt]:
        """Yield what the instruction carries out, and what is left over of it."""
        taken = dict(zip(match.axes, match.instruction.extents, strict=True))
        for place, step in taken.items():
            extent = scope.extent(nest.axes[place]) or 0
            if extent % step:
                whole, rest = (self.part(nest, place, *limits) for limits in _parts(extent, step))
                yield from self.nest(whole, around)
                yield from self.nest(rest, around)
                return
        yield self.named(nest, scope, match.instruction, taken)

    def named(self, nest: For, scope: Scope, instruction: Instruction, taken: dict[int, int]) -> For:
        """Split the axes that the instruction takes, move what it takes innermost, and name it."""
        outer: list[Axis] = []
        inner: dict[int, list[Axis]] = {}
        beside: list[Axis] = []
        bindings: dict[str, Expr] = {}
        for place, axis in enumerate(nest.axes):
            if isinstance(axis, Walk) and axis.at is not None:
                variables = {part.name for part in walk_expressions(axis.at) if isinstance(part, Var)}
                owner = next((p for p in inner if nest.axes[p].var in variables), None)
                at = replace(axis, at=substitute(axis.at, bindings))
                (outer if owner is None else inner[owner]).append(at)
            elif scope.is_single(axis):
                beside.append(axis)
            elif place not in taken:
                outer.append(axis)
            elif scope.extent(axis) == taken[place]:
                inner[place] = [axis]
            else:
                block, lane = self.fresh(f"{axis.var}0", scope), self.fresh(f"{axis.var}1", scope)
                extent, step = scope.extent(axis) or 0, taken[place]
                lanes = Range(lane, Const(0), Const(step))
                if isinstance(axis, Range):
                    outer.append(Range(block, axis.start, axis.stop, step * axis.step))
                    inner[place] = [lanes]
                    bindings[axis.var] = Var(block) + (Var(lane) if axis.step == 1 else Var(lane) * axis.step)
                else:
                    outer.append(Range(block, Const(0), Const(extent), step))
                    inner[place] = [lanes, replace(axis, at=Var(block) + Var(lane))]
        last = [*(axis for place in taken for axis in inner[place]), *beside]
        count = self.loops(instruction, outer, scope)
        body = tuple(_substituted(stmt, bindings) for stmt in nest.body)
        named = For((*outer[count:], *last), body, instruction=instruction.name)
        return For(tuple(outer[:count]), (named,)) if count else named

    def loops(self, instruction: Instruction, outer: Sequence[Axis], scope: Scope) -> int:
        """Return how many of the outer axes stay loops."""
        extents = [scope.extent(axis) for axis in outer]
        if instruction.writer:
            return 0
        if instruction.tiles:
            return next(n for n in range(len(outer) + 1) if None not in extents[n:])
        return next(n for n in range(len(outer) + 1) if _are_few(extents[n:]))

    def part(self, nest: For, place: int, start: int, stop: int) -> For:
        """Return the iterations of an axis from one to another."""
        axis = nest.axes[place]
        if isinstance(axis, Range):
            first = int(axis.start.value) if isinstance(axis.start, Const) else 0
            cut: list[Axis] = [
                replace(axis, start=expr(first + start * axis.step), stop=expr(first + stop * axis.step))
            ]
        else:
            lane = self.fresh(f"{axis.var}0", Scope.of(self.kernel))
            cut = [Range(lane, Const(start), Const(stop)), replace(axis, at=Var(lane))]
        return replace(nest, axes=(*nest.axes[:place], *cut, *nest.axes[place + 1 :]))

    def fresh(self, name: str, scope: Scope) -> str:
        """Return a name that nothing has."""
        used = {*scope.buffers, *self.kernel.symbols, *_names(self.kernel.body)}
        while name in used:
            name += "_"
        return name


def _candidates(name: str, nest: For, scope: Scope) -> Iterator[Instruction]:
    """Yield the instruction of a name, and those of its family that take less at a time, the widest first."""
    if name in INSTRUCTIONS:
        widest = INSTRUCTIONS[name]
        yield widest
        narrower = (i for i in INSTRUCTIONS.values() if i.family == widest.family and i.bits < widest.bits)
        yield from sorted(narrower, key=lambda instruction: -instruction.bits)
        return
    family, _, lanes = name.rpartition(".")
    if len(nest.body) == 1 and isinstance(nest.body[0], Assign):
        extents = {min(int(lanes), scope.extent(axis) or 1) for axis in nest.axes} - {1}
        types = types_of(nest, scope)
        for extent in sorted(extents, reverse=True):
            yield find_instruction(f"{family}.{extent}", types)


def _uncut(nest: For, scope: Scope, match: Match) -> str:
    """Say which axis would have to be cut that cannot be; nothing if there is none."""
    for place, step in zip(match.axes, match.instruction.extents, strict=True):
        axis = nest.axes[place]
        if isinstance(axis, Walk) and not isinstance(scope.level(axis), Dense) and scope.extent(axis) != step:
            return f"{axis.var} runs {scope.extent(axis)} times over a level that is not dense, and cannot be cut"
    return ""


def _scattered(match: Match) -> str:
    """Say which operand an instruction that only moves elements would have to be brought together for, if there is one.

    Plain loads and stores move them as well.
    """
    if match.instruction.statement.accumulate:
        return ""
    for name, place in match.places.items():
        if any(len(register) > 1 or not register[0].is_contiguous for register in place.registers):
            return f"the elements of {name} do not lie together"
    return ""


def _parts(extent: int, step: int) -> tuple[tuple[int, int], tuple[int, int]]:
    whole = extent // step * step
    return (0, whole), (whole, extent)


def _are_few(extents: Sequence[int | None]) -> bool:
    return prod(extent or WRITTEN_OUT + 1 for extent in extents) <= WRITTEN_OUT


def _substituted(stmt: Stmt, bindings: dict[str, Expr]) -> Stmt:
    assert isinstance(stmt, Assign)
    target = substitute(stmt.target, bindings)
    assert isinstance(target, Load)
    return replace(stmt, target=target, value=substitute(stmt.value, bindings))


def _names(body: Sequence[Stmt]) -> Iterator[str]:
    """Yield the names that statements declare."""
    for stmt in body:
        if isinstance(stmt, For):
            yield from (axis.var for axis in stmt.axes)
        elif isinstance(stmt, Tile):
            yield stmt.name
        if not isinstance(stmt, Assign):
            yield from _names(stmt.body)
