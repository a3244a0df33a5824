"""A function rewritten to one loop per axis, the vector axes padded to whole tiles.

The last tile starts earlier instead of ending later, so every tile is full, no loop has a remainder, nothing outside a
tensor is touched, and what is written twice is the same value.

    for i, j in grid(7, 11):  c[i, j] = a[i, j] + b[i, j]
    for f in range(80):       c[0, g] = a[0, g] + b[0, g]    # g = min(f // 16 * 16, 77 - 16) + f % 16
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Range, TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.s_tir.analysis import get_sblock_access_region
from tvm.sym import Analyzer
from tvm.tirx.buffer import is_buffer_var

from sparsec.schedules.rules.axes import Axes, Axis, Extent
from sparsec.schedules.rules.stages import REDUCE, SPATIAL, Stage, is_one


@dataclass(frozen=True)
class Loop:
    """One loop of a rewritten stage; the axis is None for the unit loop of a stage that leaves one number."""

    axis: Axis | None
    reduce: bool
    extent: Extent


def clamp(var: Var, extent: Extent, tile: int) -> Any:
    """The index that lane `var` of a padded axis stands for: the last tile starts at `extent - tile`."""
    return tirx.min(var // tile * tile, extent - tile) + var % tile


@dataclass
class Rewriter:
    """Rewrites stages to one loop per axis.

    Parameters
    ----------
    func : PrimFunc
        The function that the stages come from.
    axes : Axes
        The axes of its stages.
    tiles : dict of Axis to int
        The tile, in elements, of each axis that is vectorised; it is at most the extent of the axis.
    """

    func: tirx.PrimFunc
    axes: Axes
    tiles: dict[Axis, int]

    def __post_init__(self) -> None:
        self._buffers: dict[Var, Var] = {}
        self._params = {p for p in self.func.params if is_buffer_var(p)}

    def size(self, axis: Axis) -> Extent:
        """The extent of an axis, rounded up to whole tiles."""
        tile = self.tiles.get(axis, 1)
        return Analyzer().simplify((axis.extent + (tile - 1)) // tile * tile)

    def ragged(self, axis: Axis) -> bool:
        return not Analyzer().can_prove_equal(self.size(axis), axis.extent)

    def run(self) -> tuple[tirx.PrimFunc, dict[str, list[Loop]]]:
        """The rewritten function and the loops of every stage in it, by name."""
        nests = [self._stage(stage) for stage in self.axes.stages]
        alloc = [self._buffers[b] for b in self.func.body.block.alloc_buffers if b in self._buffers]
        root = SBlock([], [], [], "root", tirx.stmt_seq(*nests), alloc_buffers=alloc)
        loops = {stage.name: self._loops(stage) for stage in self.axes.stages}
        return self.func.with_body(SBlockRealize([], True, root)), loops

    def _loops(self, stage: Stage) -> list[Loop]:
        loops = [Loop(a, kind == REDUCE, self.size(a)) for a, kind in self.axes.of_stage(stage).items()]
        # TVM's rfactor wants a spatial loop outside.
        return loops if any(not loop.reduce for loop in loops) else [Loop(None, False, _one()), *loops]

    def _stage(self, stage: Stage) -> tirx.Stmt:
        kinds = self.axes.of_stage(stage)
        fresh = {axis: Var(f"v{n}", "int64") for n, axis in enumerate(kinds)}
        inside = {a: clamp(v, a.extent, self.tiles[a]) if self.ragged(a) else v for a, v in fresh.items()}
        axis_of = {it.var: axis for it in stage.iters if (axis := self.axes.of(it.var)) is not None}
        rest = {it.var: inside[axis_of[it.var]] if it.var in axis_of else _zero() for it in stage.iters}

        def indices(buffer: Var, old: Sequence[Any]) -> list[Any]:
            new: list[Any] = []
            outside = buffer in self._params
            for index, extent in zip(old, buffer.shape, strict=True):
                member = self.axes.member(index, extent)
                if member is None:
                    if outside or not is_one(extent):  # unit dimensions of intermediates are dropped
                        new.append(index)
                elif member == self.axes.axis_of[member].members[-1]:
                    axis = self.axes.axis_of[member]
                    new.append(inside[axis] if outside else fresh[axis])
                elif outside:  # a fused axis is addressed as a whole through its last dimension
                    new.append(_zero())
            return new if outside or new else [_zero()]

        def load(node: TensorLoad) -> Any:
            return tirx.BufferLoad(self._buffer(node.source), indices(node.source, node.indices))

        def store(node: tirx.BufferStore) -> Any:
            return tirx.BufferStore(self._declare(node), node.value, indices(node.buffer, node.indices))

        def convert(body: tirx.Stmt) -> tirx.Stmt:
            body = tvm_ffi.structural_map(body, [(TensorLoad, load), (tirx.BufferStore, store)], order="post")
            return tvm_ffi.structural_map(body, (Var, lambda v: rest.get(v, v)), order="post")

        # The stores come first: they declare the intermediates that loads refer to.
        init = None if stage.block.init is None else convert(stage.block.init)
        body = convert(stage.block.body)
        if stage.block.init is not None:
            body = face_accumulator(body)
        body = share_reciprocals(body, set(fresh.values()), self._params)
        for axis, kind in kinds.items():
            if kind == REDUCE and self.ragged(axis):
                start = fresh[axis] // self.tiles[axis] * self.tiles[axis]
                body = guard(body, inside[axis] >= start)
        iters = [
            tirx.IterVar(
                Range(0, loop.extent),
                Var("unit", "int64") if loop.axis is None else fresh[loop.axis],
                REDUCE if loop.reduce else SPATIAL,
            )
            for loop in self._loops(stage)
        ]
        return _nest(stage.name, iters, body, init, [*self._params, *self._buffers.values()])

    def _buffer(self, old: Var) -> Var:
        return self._buffers.get(old, old)

    def _declare(self, store: tirx.BufferStore) -> Var:
        old = store.buffer
        if old in self._params or old in self._buffers:
            return self._buffer(old)
        shape = []
        for index, extent in zip(store.indices, old.shape, strict=True):
            member = self.axes.member(index, extent)
            if member is None:
                if not is_one(extent):
                    shape.append(extent)
            elif member == self.axes.axis_of[member].members[-1]:
                shape.append(self.size(self.axes.axis_of[member]))
        self._buffers[old] = tirx.decl_buffer(shape or [_one()], old.dtype, old.name, scope=old.scope())
        return self._buffers[old]


def face_accumulator(body: tirx.Stmt) -> tirx.Stmt:
    """Compare accumulators with elements, not elements with accumulators: the form of argmax that rfactor knows."""
    written = _written(body)

    def convert(node: tirx.LT) -> Any:
        turned = isinstance(node.b, TensorLoad) and node.b.source in written
        return tirx.GT(node.b, node.a) if turned else node

    return tvm_ffi.structural_map(body, (tirx.LT, convert), order="post")


def _written(body: tirx.Stmt) -> set[Var]:
    buffers: set[Var] = set()
    tvm_ffi.structural_walk(body, (tirx.BufferStore, lambda n: buffers.add(n.buffer)))
    return buffers


def share_reciprocals(body: tirx.Stmt, axes: set[Var], params: set[Var]) -> tirx.Stmt:
    """Multiply by the reciprocal of what a reduction left for a whole row or column.

    LLVM moves the one division out of the loop; a division per element would take longer than an exponential. The
    result differs from the quotient by at most one rounding. Divisors from outside stay: quantisers divide by them.
    """

    def convert(div: tirx.Div) -> Any:
        seen: set[Var] = set()
        sources: set[Var] = set()
        tvm_ffi.structural_walk(div.b, [(Var, seen.add), (TensorLoad, lambda n: sources.add(n.source))])
        if str(div.ty.dtype) == "float32" and sources and not sources & params and axes - seen:
            return div.a * (tirx.const(1, "float32") / div.b)
        return div

    return tvm_ffi.structural_map(body, (tirx.Div, convert), order="post")


def guard(body: tirx.Stmt, valid: Any) -> tirx.Stmt:
    """Let the lanes of a reduction that a tile sees for the second time add nothing.

    Maxima, minima and their positions may see an element twice; sums and products may not.
    """
    neutral = {tirx.Add: 0, tirx.Mul: 1}
    written = _written(body)

    def combine(value: Any) -> Any:
        for kind, unit in neutral.items():
            if isinstance(value, kind):
                first = isinstance(value.a, TensorLoad) and value.a.source in written
                accumulator, update = (value.a, value.b) if first else (value.b, value.a)
                return kind(accumulator, tirx.Select(valid, update, tirx.const(unit, update.ty.dtype)))
        return value

    def convert(stmt: tirx.Stmt) -> tirx.Stmt:
        if isinstance(stmt, tirx.SeqStmt):
            return tirx.SeqStmt([convert(s) for s in stmt.seq])
        if isinstance(stmt, tirx.Bind):
            return tirx.Bind(stmt.var, combine(stmt.value))
        return tirx.BufferStore(stmt.buffer, combine(stmt.value), list(stmt.indices))

    return convert(body)


def _nest(
    name: str, iters: list[tirx.IterVar], body: tirx.Stmt, init: tirx.Stmt | None, buffers: Iterable[Var]
) -> tirx.Stmt:
    draft = SBlock(iters, [], [], name, body, init)
    reads, writes, *_ = get_sblock_access_region(draft, {b: b for b in buffers})
    block = SBlock(iters, reads, writes, name, body, init)
    loops = [Var(f"i{n}", "int64") for n in range(len(iters))]
    nest: tirx.Stmt = SBlockRealize(loops, True, block)
    for loop, it in zip(reversed(loops), reversed(iters), strict=True):
        nest = tirx.For(loop, _zero(), it.dom.extent, tirx.stmt.ForKind.SERIAL, nest)
    return nest


def _zero() -> Any:
    return tirx.const(0, "int64")


def _one() -> Any:
    return tirx.const(1, "int64")
