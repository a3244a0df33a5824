"""The rule for elementwise chains, reductions, softmax and normalisations: tiles of a common vector axis.

Every stage of a group runs on one tile before the next tile starts, so that what passes between them stays in
registers or in the nearest cache. Reductions across the vector axis keep one partial result per lane; reductions over
other axes are plain vector operations.
"""

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Var
from tvm.s_tir import SBlock, SBlockRealize, Schedule
from tvm.s_tir.schedule import LoopRV

from sparsec.schedules.declined import Declined
from sparsec.schedules.rules.axes import Axes, Axis, at_least, static
from sparsec.schedules.rules.groups import Group, is_heavy, lanes_of, plan_groups, product
from sparsec.schedules.rules.rewrite import Loop, Rewriter
from sparsec.schedules.rules.stages import REDUCE, Fused
from sparsec.schedules.rules.strided import shuffle_strided_loads
from sparsec.targets.target import Target

# Elements of a reduction up to which it is unrolled.
WINDOW = 16

_get_realize = tvm_ffi.get_global_func("s_tir.schedule.GetSBlockRealize")


def apply(fused: Fused, target: Target) -> tirx.PrimFunc | Declined:
    """Schedule the stages in groups that share a tile loop."""
    func, stages = fused.func, fused.stages
    axes = Axes(stages)
    groups = plan_groups(list(func.params), axes, target)
    scheduled = _schedule(func, axes, groups, target)
    short = [g for g in groups if g.vector is not None and not at_least(g.vector.extent, g.tile)]
    if not short:
        return scheduled
    # A symbolic axis may turn out shorter than a vector: then one element at a time.
    fits = tirx.all(*(g.vector.extent >= g.tile for g in short if g.vector is not None))
    for group in short:
        group.tile = 1
    scalar = _schedule(func, axes, groups, target)
    choice = tirx.IfThenElse(fits, scheduled.body, scalar.body)
    return scheduled.with_body(SBlockRealize([], True, SBlock([], [], [], "root", choice)))


def _schedule(func: tirx.PrimFunc, axes: Axes, groups: Sequence[Group], target: Target) -> tirx.PrimFunc:
    tiles: dict[Axis, int] = {}
    for group in groups:
        for axis, tile in [(group.vector, group.tile), *group.own.values()]:
            if axis is not None:
                tiles[axis] = min(tile, tiles.get(axis, tile))
    for group in groups:
        group.tile = tiles[group.vector] if group.vector is not None else 1
        group.own = {name: (axis, tiles[axis]) for name, (axis, _) in group.own.items()}
    rewritten, loops = Rewriter(func, axes, tiles).run()
    sch = Schedule(rewritten)
    parallel = is_heavy(groups, axes, target)
    for group in groups:
        _Nest(sch, group, loops, lanes_of(group, target), parallel).run()
    return shuffle_strided_loads(sch.mod["main"]).with_attr("global_symbol", func.attrs["global_symbol"])


class _Nest:
    """Schedules one group."""

    def __init__(self, sch: Schedule, group: Group, loops: dict[str, list[Loop]], lanes: int, parallel: bool) -> None:
        self.sch, self.group, self.loops, self.parallel = sch, group, loops, parallel
        self.lanes = min(lanes, group.tile)
        self.order: list[str] = []
        self.partial: set[str] = set()

    def run(self) -> None:
        sch = self.sch
        for stage in self.group.stages:
            self._split_lanes(stage.name)
        tiles = self._tile_loops()
        *others, sink = self.order
        reductions = {sink: self._inside(sink, len(tiles))}
        depth = {name: len(tiles) for name in others}
        loops = sch.get_loops(sch.get_sblock(sink))
        for name in reversed(others):
            if self._accumulates_for_sink(name):
                depth[name] = len(loops) - 1
            if depth[name]:
                sch.compute_at(sch.get_sblock(name), loops[depth[name] - 1], preserve_unit_loops=True)
        if tiles and self.parallel:
            sch.parallel(tiles[0])
        reductions |= {name: self._inside(name, depth[name]) for name in others}
        for name, loop in reductions.items():
            if loop is not None:
                sch.decompose_reduction(sch.get_sblock(name), loop)

    def _accumulates_for_sink(self, name: str) -> bool:
        """Whether a window reduction is all that the sink waits for, vector by vector of an axis inside the tile."""
        group = self.group
        vector, lanes = group.own.get(group.sink.name, (group.vector, self.lanes))
        stage = next((s for s in group.stages if s.name == name), None)
        if stage is None or stage.injective or lanes == 1 or vector in group.common:
            return False
        spatial = {loop.axis for loop in self.loops[name] if not loop.reduce}
        wanted = {loop.axis for loop in self.loops[group.sink.name]}
        readers = [s for s in group.stages if set(s.inputs()) & set(stage.outputs())]
        return spatial == wanted and vector in wanted and readers == [group.sink]

    def _split_lanes(self, name: str) -> None:
        """Let a reduction across the vector axis keep one partial result per lane."""
        sch, block = self.sch, self.sch.get_sblock(name)
        for loop, rv in zip(self.loops[name], sch.get_loops(block), strict=False):
            if loop.reduce and loop.axis is self.group.vector and self.lanes > 1:
                _, lane = sch.split(rv, [None, self.lanes])
                rf = sch.get(sch.rfactor(lane, 0)).name_hint
                self.order.append(rf)
                self.partial.add(rf)
        self.order.append(name)

    def _tile_loops(self) -> list[LoopRV]:
        """Bring the common axes of the sink outside, fused into one loop over tiles if all extents are known."""
        sch, group = self.sch, self.group
        outer, inner, rest = [], [], []
        for loop, rv in zip(self.loops[group.sink.name], sch.get_loops(sch.get_sblock(group.sink.name)), strict=False):
            if loop.reduce or loop.axis not in group.common:
                rest.append(rv)
            elif loop.axis is group.vector and group.tile > 1:
                tiles, inside = sch.split(rv, [None, group.tile])
                inner.append(tiles)
                rest.append(inside)
            else:
                outer.append(rv)
        tiles = [*outer, *inner]
        if tiles and rest:
            sch.reorder(*tiles, *rest)
        if not tiles or any(static(sch.get(rv).extent) is None for rv in tiles):
            return tiles
        return [sch.fuse(*tiles)]

    def _inside(self, name: str, depth: int) -> LoopRV | None:
        """Order, unroll and vectorise the loops of a stage in its tile; return the outermost reduction loop."""
        sch, group = self.sch, self.group
        block = sch.get_sblock(name)
        spatial, reduce, lanes = [], [], []
        vector = self._vector_iter(name)
        tiled = name not in group.own and group.vector in group.common
        realize = _get_realize(sch, block)
        for rv in sch.get_loops(block)[depth:]:
            var = sch.get(rv).loop_var
            index = next((n for n, value in enumerate(realize.iter_values) if _uses(value, var)), None)
            if index is None:
                spatial.append(rv)
            elif realize.block.iter_vars[index].iter_type == REDUCE:
                reduce.append(rv)
            elif index == vector:
                lanes.append(rv)
            else:
                spatial.append(rv)
        order = [*spatial, *reduce]
        if reduce and self._small(reduce):
            for rv in reduce:
                sch.unroll(rv)
        if lanes:
            (whole,) = lanes
            within = name not in self.partial and (tiled or static(sch.get(whole).extent) == self._lanes(name))
            steps, lane = sch.split(whole, [None, self._lanes(name)])
            order = [*spatial, *reduce, steps, lane] if within else [*spatial, steps, *reduce, lane]
            sch.reorder(*order)
            if within:
                sch.unroll(steps)
            sch.vectorize(lane)
        elif len(order) > 1:
            sch.reorder(*order)
        return reduce[0] if reduce else None

    def _vector_iter(self, name: str) -> int | None:
        """The position of the block variable that runs over vector lanes."""
        if self._lanes(name) == 1:
            return None
        if name in self.partial:
            block = self.sch.get(self.sch.get_sblock(name))
            lane = block.writes[0].region[0].min
            return next(n for n, it in enumerate(block.iter_vars) if it.var.same_as(lane))
        axis, _ = self.group.own.get(name, (self.group.vector, 1))
        return next((n for n, x in enumerate(self.loops[name]) if x.axis is axis and not x.reduce), None)

    def _lanes(self, name: str) -> int:
        return self.group.own[name][1] if name in self.group.own else self.lanes

    def _small(self, loops: list[LoopRV]) -> bool:
        """Whether a reduction is a window rather than a walk."""
        extents = [static(self.sch.get(rv).extent) for rv in loops]
        return all(e is not None for e in extents) and product(extents) <= WINDOW


def _uses(expr: Any, var: Var) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(expr, (Var, lambda v: found.append(v) if v.same_as(var) else None))
    return bool(found)
