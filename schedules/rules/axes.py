"""The axes that the stages of a function share, and the function rewritten to one loop per axis.

Two dimensions are one axis if some stage walks them with the same variable. Axes that always lie next to each other
are fused into one, unit axes vanish, and the vector axis is padded to whole tiles: its last tile starts earlier
instead of ending later, so every tile is full, no loop has a remainder, and what is written twice is the same value.

    for i, j in grid(7, 11):  c[i, j] = a[i, j] + b[i, j]
    for f in range(80):       c[0, g] = a[0, g] + b[0, g]    # g = min(f // 16 * 16, 77 - 16) + f % 16
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Range, TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.s_tir.analysis import get_sblock_access_region
from tvm.sym import Analyzer

from sparsec.schedules.rules.stages import REDUCE, SPATIAL, Access, Stage, is_one

Extent = Any  # an IntImm or an expression over symbolic dimensions


def static(extent: Extent) -> int | None:
    """The extent as an integer, or None where it is symbolic."""
    return int(extent) if isinstance(extent, tirx.IntImm) else None


def at_least(extent: Extent, bound: int) -> bool:
    """Whether an extent is never smaller than a bound, with symbolic dimensions from 1 upwards."""
    analyzer = Analyzer()
    tvm_ffi.structural_walk(extent, (Var, lambda v: analyzer.bind(v, Range(1, 1 << 31))))
    return bool(analyzer.can_prove(extent >= bound))


def _simplify(value: Extent) -> Extent:
    return Analyzer().simplify(value)


def _product(extents: Sequence[Extent]) -> Extent:
    return _simplify(reduce(lambda a, b: a * b, extents, tirx.const(1, "int64")))


@dataclass(frozen=True)
class Axis:
    """Adjacent dimensions that every stage walks together: `members` are the ids of the fused dimensions."""

    members: tuple[int, ...]
    extent: Extent


class Axes:
    """The axes of some stages.

    Parameters
    ----------
    stages : sequence of Stage
        The stages, in order of execution.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = list(stages)
        self._parent: dict[Any, Any] = {}
        self._iters = {it.var: it for s in stages for it in s.iters}
        self._opaque: set[Var] = set()
        self._computed: set[tuple[str, Var, int]] = set()
        self._accesses = {s.name: list(s.accesses()) for s in stages}
        for stage in stages:
            self._unite(stage)
        roots: dict[Any, int] = {}
        self._id = {var: roots.setdefault(self._find(var), len(roots)) for var in self._iters if self._wide(var)}
        computed = {roots[r] for key in self._computed if (r := self._find(key)) in roots}
        self._indexed_ids = computed
        self._opaque_ids = computed | {self._id[v] for v in self._opaque if v in self._id}
        self.axes = self._fuse()
        self.axis_of = {member: axis for axis in self.axes for member in axis.members}

    def _wide(self, var: Var) -> bool:
        return not is_one(self._iters[var].dom.extent)

    def _find(self, key: Any) -> Any:
        while (up := self._parent.setdefault(key, key)) is not key:
            key = up
        return key

    def _unite(self, stage: Stage) -> None:
        own = {it.var for it in stage.iters}
        plain: dict[Var, int] = dict.fromkeys(own, 0)
        for access in self._accesses[stage.name]:
            for dim, index in enumerate(access.indices):
                if isinstance(index, Var) and index in own:
                    plain[index] += 1
                    if self._spans(index, access.buffer.shape[dim]):
                        self._parent[self._find(index)] = self._find(("dim", access.buffer, dim))
                    else:
                        self._opaque.add(index)
                elif not is_one(access.buffer.shape[dim]):
                    self._computed.add(("dim", access.buffer, dim))
        uses = dict.fromkeys(own, 0)

        def count(var: Var) -> None:
            if var in uses:
                uses[var] += 1

        for body in stage.bodies:
            tvm_ffi.structural_walk(body, (Var, count))
        self._opaque |= {v for v in own if uses[v] > plain[v]}

    def _spans(self, var: Var, size: Extent) -> bool:
        return bool(tvm_ffi.structural_equal(self._iters[var].dom.extent, size))

    def member(self, index: Any, size: Extent) -> int | None:
        """The dimension that an index walks from end to end, None if it is computed or walks a part."""
        if isinstance(index, Var) and index in self._id and self._spans(index, size):
            return self._id[index]
        return None

    def _row(self, access: Access) -> list[int | None]:
        """The ids of the wide dimensions of an access, None where the index is not one variable."""
        row: list[int | None] = []
        for index, size in zip(access.indices, access.buffer.shape, strict=True):
            if not is_one(size):
                row.append(self.member(index, size))
        return row

    def _fuse(self) -> tuple[Axis, ...]:
        after: dict[int, set[int | None]] = {}
        before: dict[int, set[int | None]] = {}
        for stage in self.stages:
            for access in self._accesses[stage.name]:
                row = self._row(access)
                for left, right in zip([None, *row], [*row, None], strict=True):
                    if left is not None:
                        after.setdefault(left, set()).add(right)
                    if right is not None:
                        before.setdefault(right, set()).add(left)
        kinds: dict[int, dict[str, list[int]]] = {}
        for stage in self.stages:
            for it in stage.iters:
                if it.var in self._id:
                    kinds.setdefault(self._id[it.var], {}).setdefault(stage.name, []).append(it.iter_type)
        extent = {self._id[v]: self._iters[v].dom.extent for v in self._id}

        def follows(left: int) -> int | None:
            (right,) = after[left] if len(after.get(left, ())) == 1 else (None,)
            if right is None or right == left or before[right] != {left} or kinds[left] != kinds[right]:
                return None
            return None if {left, right} & self._opaque_ids else right

        heads = set(extent) - {r for r in map(follows, extent) if r is not None}
        axes = []
        for head in sorted(heads):
            chain: list[int] = []
            link: int | None = head
            while link is not None:
                chain.append(link)
                link = follows(link)
            axes.append(Axis(tuple(chain), _product([extent[c] for c in chain])))
        return tuple(axes)

    def of(self, var: Var) -> Axis | None:
        """The axis of an iteration variable; None for one of extent 1."""
        return self.axis_of[self._id[var]] if var in self._id else None

    def of_stage(self, stage: Stage) -> dict[Axis, int]:
        """The axes that a stage loops over, in order, each with its kind (spatial or reduce)."""
        return {axis: it.iter_type for it in stage.iters if (axis := self.of(it.var)) is not None}

    def innermost(self, access: Access) -> Axis | None:
        """The axis along which an access is contiguous, if it is plain."""
        row = self._row(access)
        return self.axis_of[row[-1]] if row and row[-1] is not None else None

    def footprint(self, access: Access) -> list[Axis]:
        """The axes over which the elements of an access spread."""
        return list(dict.fromkeys(self.axis_of[m] for m in self._row(access) if m is not None))

    def is_opaque(self, axis: Axis) -> bool:
        """Whether an index or a value is computed from the position along this axis."""
        return any(m in self._opaque_ids for m in axis.members)

    def is_indexed(self, axis: Axis) -> bool:
        """Whether a stage reads an intermediate at computed positions of this axis; then they must stay what they are."""
        return any(m in self._indexed_ids for m in axis.members)

    def branches_along(self, stage: Stage, axis: Axis) -> bool:
        """Whether neighbours along this axis may take different branches."""
        found: list[Var] = []
        tvm_ffi.structural_walk(stage.branches(), (Var, found.append))
        return any(self._id.get(v) in axis.members for v in found)


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
        self._params = set(self.func.params)

    def size(self, axis: Axis) -> Extent:
        """The extent of an axis, rounded up to whole tiles."""
        tile = self.tiles.get(axis, 1)
        return _simplify((axis.extent + (tile - 1)) // tile * tile)

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
    written: set[Var] = set()
    tvm_ffi.structural_walk(body, (tirx.BufferStore, lambda n: written.add(n.buffer)))

    def convert(node: tirx.LT) -> Any:
        turned = isinstance(node.b, TensorLoad) and node.b.source in written
        return tirx.GT(node.b, node.a) if turned else node

    return tvm_ffi.structural_map(body, (tirx.LT, convert), order="post")


def share_reciprocals(body: tirx.Stmt, axes: set[Var], params: set[Var]) -> tirx.Stmt:
    """Multiply by the reciprocal of what a reduction left for a whole row or column.

    LLVM moves the one division out of the loop; a division per element would take longer than an exponential. The
    result differs from the quotient by at most one rounding. Divisors from outside stay, since quantisers divide by them.
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

    def combine(value: Any, target: Var | None) -> Any:
        for kind, unit in neutral.items():
            if isinstance(value, kind):
                accumulator, update = (value.a, value.b) if isinstance(value.a, TensorLoad) else (value.b, value.a)
                return kind(accumulator, tirx.Select(valid, update, tirx.const(unit, update.ty.dtype)))
        return value

    def convert(stmt: tirx.Stmt) -> tirx.Stmt:
        if isinstance(stmt, tirx.SeqStmt):
            return tirx.SeqStmt([convert(s) for s in stmt.seq])
        if isinstance(stmt, tirx.Bind):
            return tirx.Bind(stmt.var, combine(stmt.value, None))
        return tirx.BufferStore(stmt.buffer, combine(stmt.value, stmt.buffer), list(stmt.indices))

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
