"""The axes that the stages of a function share.

Two dimensions are one axis if some stage walks them with the same variable. Axes that always lie next to each other are
fused into one, and unit axes vanish: `c[i, j] = a[i, j] + b[i, j]` has one axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Range, Var
from tvm.sym import Analyzer

from sparsec.schedules.rules.stages import Access, Stage, is_one

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
        """Whether a stage reads an intermediate at computed positions of this axis, so that they must stay."""
        return any(m in self._indexed_ids for m in axis.members)

    def branches_along(self, stage: Stage, axis: Axis) -> bool:
        """Whether neighbours along this axis may take different branches."""
        found: list[Var] = []
        tvm_ffi.structural_walk(stage.branches(), (Var, found.append))
        return any(self._id.get(v) in axis.members for v in found)
