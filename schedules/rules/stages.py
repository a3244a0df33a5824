"""The stages of a fused function: its blocks as plain loop nests, and the inlining of what is cheap."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, IRModule, TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize, Schedule
from tvm.s_tir.transform import StmtSimplify

from sparsec.schedules.declined import Declined

SPATIAL, REDUCE = tirx.IterVar.DataPar, tirx.IterVar.CommReduce

# Calls that cost tens of instructions; computing one twice is dearer than a store and a load.
_EXPENSIVE = {
    *("tirx.exp", "tirx.exp2", "tirx.exp10", "tirx.log", "tirx.log2", "tirx.log10", "tirx.log1p", "tirx.pow"),
    *("tirx.erf", "tirx.tanh", "tirx.sigmoid", "tirx.sinh", "tirx.cosh", "tirx.asinh", "tirx.acosh", "tirx.atanh"),
    *("tirx.sin", "tirx.cos", "tirx.tan", "tirx.asin", "tirx.acos", "tirx.atan", "tirx.atan2"),
}


def is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1


@dataclass(frozen=True)
class Access:
    """One load or store of a stage."""

    buffer: Var
    indices: tuple[Any, ...]
    store: bool

    @property
    def rank(self) -> int:
        """The number of dimensions that are not 1."""
        return sum(not is_one(n) for n in self.buffer.shape)


@dataclass(frozen=True)
class Stage:
    """A block under one loop per iteration variable, nothing else around it."""

    block: SBlock

    @property
    def name(self) -> str:
        return self.block.name_hint

    @property
    def iters(self) -> list[tirx.IterVar]:
        return list(self.block.iter_vars)

    @property
    def bodies(self) -> list[tirx.Stmt]:
        return [self.block.body] if self.block.init is None else [self.block.init, self.block.body]

    @property
    def expensive(self) -> bool:
        """Whether the stage calls something that takes tens of instructions."""
        calls: list[str] = []
        for body in self.bodies:
            tvm_ffi.structural_walk(body, (Call, lambda n: calls.append(getattr(n.op, "name", ""))))
        return any(c in _EXPENSIVE for c in calls)

    def branches(self) -> list[Any]:
        """The conditions under which the stage reads one thing or another."""
        found: list[Any] = []

        def visit(call: Call) -> None:
            if getattr(call.op, "name", "") == "prim.if_then_else":
                found.append(call.args[0])

        tvm_ffi.structural_walk(self.block.body, (Call, visit))
        return found

    @property
    def injective(self) -> bool:
        return all(it.iter_type == SPATIAL for it in self.iters)

    def accesses(self) -> Iterator[Access]:
        found: list[Access] = []
        callbacks = [
            (TensorLoad, lambda n: found.append(Access(n.source, tuple(n.indices), False))),
            (tirx.BufferStore, lambda n: found.append(Access(n.buffer, tuple(n.indices), True))),
        ]
        for body in self.bodies:
            tvm_ffi.structural_walk(body, callbacks)
        return iter(found)

    def outputs(self) -> list[Var]:
        return list(dict.fromkeys(a.buffer for a in self.accesses() if a.store))

    def inputs(self) -> list[Var]:
        written = set(self.outputs())
        return list(dict.fromkeys(a.buffer for a in self.accesses() if not a.store and a.buffer not in written))


@dataclass(frozen=True)
class Fused:
    """A function after inlining, and its stages in order."""

    func: tirx.PrimFunc
    stages: list[Stage]


def simplify(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Simplify the index arithmetic of a function, with what its loops imply."""
    return StmtSimplify()(IRModule({"main": func}))["main"]


def read_stages(func: tirx.PrimFunc) -> list[Stage] | Declined:
    """Read a function as a list of stages, or say why it is not one."""
    if not isinstance(func.body, SBlockRealize):
        return Declined("the function has no root block")
    body = func.body.block.body
    stages = []
    for nest in body.seq if isinstance(body, tirx.SeqStmt) else [body]:
        stage = _read_stage(nest)
        if isinstance(stage, Declined):
            return stage
        stages.append(stage)
    return stages


def fuse_stages(func: tirx.PrimFunc) -> Fused | Declined:
    """Inline what is cheap and read what is left."""
    func = simplify(func)
    stages = read_stages(func)
    if isinstance(stages, Declined):
        return stages
    func = simplify(inline_stages(func, stages))
    stages = read_stages(func)
    return stages if isinstance(stages, Declined) else Fused(func, stages)


def _read_stage(nest: tirx.Stmt) -> Stage | Declined:
    loops = []
    while isinstance(nest, tirx.For):
        if nest.kind != tirx.stmt.ForKind.SERIAL:
            return Declined("a loop is scheduled already")
        loops.append(nest.loop_var)
        nest = nest.body
    if not isinstance(nest, SBlockRealize):
        return Declined("a statement stands outside every block")
    block = nest.block
    bound = list(nest.iter_values)
    if not all(value in loops or is_one(it.dom.extent) for value, it in zip(bound, block.iter_vars, strict=True)):
        return Declined(f"block {block.name_hint} is not bound to its loops one to one")
    if block.alloc_buffers or block.match_buffers or not all(_is_plain(b) for b in (block.body, block.init)):
        return Declined(f"block {block.name_hint} is opaque")
    return Stage(block)


def _is_plain(body: tirx.Stmt | None) -> bool:
    if isinstance(body, tirx.SeqStmt):
        return all(_is_plain(s) for s in body.seq)
    return body is None or isinstance(body, tirx.BufferStore | tirx.Bind)


def inline_stages(func: tirx.PrimFunc, stages: Sequence[Stage]) -> tirx.PrimFunc:
    """Inline the injective stages that no one reads twice, and the cheap ones that several read.

    A stage with an expensive call or a branch stays if it would be computed more than once per element; a stage that
    several read stays if it reads more than one tensor, since storing it costs less than reading them all again.
    """
    params = set(func.params)
    cost = {s.name: _Cost.of(s) for s in stages}
    readers: dict[Var, Counter[str]] = {}
    for stage in stages:
        for access in stage.accesses():
            if not access.store:
                readers.setdefault(access.buffer, Counter())[stage.name] += 1
    volume = {s.name: _volume(s) for s in stages}
    sch = Schedule(func)
    for stage in stages:
        (out, *more) = stage.outputs()
        if more or out in params or not stage.injective or not _writes_plainly(stage):
            continue
        users = readers.get(out, Counter())
        own = cost[stage.name]
        repeated = len(users) > 1 or any(volume[u] != volume[stage.name] for u in users)
        if repeated and (own.expensive or (own.loads > 1 and len(users) > 1)):
            continue
        sch.compute_inline(sch.get_sblock(stage.name))
        for user, times in users.items():
            cost[user] = cost[user].plus(own, times)
            for counts in readers.values():
                if stage.name in counts:
                    counts[user] += times * counts[stage.name]
        for counts in readers.values():
            counts.pop(stage.name, None)
    for stage in stages:
        for n, out in enumerate(stage.outputs()):
            again = [sch.get_sblock(name) for name in readers.get(out, ()) if name != stage.name]
            if out in params and (again or not stage.injective):
                # Outputs are only written: what is read again or accumulated lives in an intermediate.
                sch.cache_write(sch.get_sblock(stage.name), n, "global", consumer_blocks=again)
    return sch.mod["main"]


@dataclass(frozen=True)
class _Cost:
    loads: int
    expensive: bool

    @staticmethod
    def of(stage: Stage) -> "_Cost":
        rank = max(a.rank for a in stage.accesses() if a.store)
        loads = sum(not a.store and a.rank >= rank for a in stage.accesses())
        return _Cost(loads, stage.expensive or bool(stage.branches()))

    def plus(self, other: "_Cost", times: int) -> "_Cost":
        return _Cost(self.loads + times * (other.loads - 1), self.expensive or other.expensive)


def _volume(stage: Stage) -> tuple[str, ...]:
    return tuple(sorted(str(it.dom.extent) for it in stage.iters if not is_one(it.dom.extent)))


def _writes_plainly(stage: Stage) -> bool:
    """Whether the stage stores at its own iteration variables, which is what inlining can invert."""
    own = {it.var for it in stage.iters}
    store = next(a for a in stage.accesses() if a.store)
    return all((isinstance(i, Var) and i in own) or isinstance(i, tirx.IntImm) for i in store.indices)
