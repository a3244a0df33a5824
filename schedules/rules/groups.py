"""Which stages share an outer loop, over which axes, and along which axis they are vectorised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from tvm.ir import Var

from sparsec.schedules.rules.axes import Axes, Axis, at_least, static
from sparsec.schedules.rules.stages import REDUCE, Stage
from sparsec.targets.target import Target

# What a symbolic extent is taken for where only its order of magnitude matters.
TYPICAL_EXTENT = 128
# Cycles under which starting the other threads costs more than they bring; a launch takes 2 to 5 µs.
PARALLEL_CYCLES = 40_000
# Vectors that a tile spans at most: enough chains to hide the latency of an add, few enough to stay in registers.
TILE_VECTORS = 4


def rough(extent: Any) -> int:
    size = static(extent)
    return TYPICAL_EXTENT if size is None else size


def product(sizes: Any) -> int:
    return reduce(lambda a, b: a * b, sizes, 1)


@dataclass
class Group:
    """Stages that run under one tile loop: the last is the sink, the others compute what it needs of one tile.

    Parameters
    ----------
    stages : list of Stage
        In order of execution.
    common : list of Axis
        The axes of the tile loop.
    vector : Axis or None
        The axis that is vectorised, inside the tile if it is one of the common axes.
    tile : int
        Elements of the vector axis in a tile.
    own : dict of stage name to Axis and int
        The vector axis and its lanes for stages that do not have the group's axis.
    """

    stages: list[Stage]
    common: list[Axis]
    vector: Axis | None = None
    tile: int = 1
    own: dict[str, tuple[Axis, int]] = field(default_factory=dict)

    @property
    def sink(self) -> Stage:
        return self.stages[-1]


def plan_groups(func_params: Sequence[Var], axes: Axes, target: Target) -> list[Group]:
    """Group the stages so that intermediates live in a tile, as long as enough tiles are left for all cores.

    A stage joins the group that reads it. The group's tile loop then keeps the axes over which every member is
    spatial: of a softmax over `j` of `[b, j, i]` these are `b` and `i`.
    """
    params = set(func_params)
    groups: list[Group] = []
    home: dict[Var, set[int]] = {}
    for stage in reversed(axes.stages):
        kinds = axes.of_stage(stage)
        spatial = [a for a, kind in kinds.items() if kind != REDUCE]
        readers = set().union(*(home.get(out, set()) for out in stage.outputs()))
        joined = None
        if len(readers) == 1 and not params & set(stage.outputs()):
            joined = groups[next(iter(readers))]
            common = [a for a in joined.common if a in spatial]
            innermost = bool(common) and common[-1] is joined.common[-1]
            if common != joined.common and not _enough(common, innermost, target):
                joined = None
        if joined is None:
            groups.append(Group([stage], spatial))
            index = len(groups) - 1
        else:
            joined.common = common
            joined.stages.insert(0, stage)
            index = groups.index(joined)
        for buffer in stage.inputs():
            home.setdefault(buffer, set()).add(index)
    for group in groups:
        _choose_vectors(group, axes, target)
    return groups[::-1]


def _choose_vectors(group: Group, axes: Axes, target: Target) -> None:
    group.vector = choose_vector_axis(group, axes)
    group.tile = _allowed(group.vector, choose_tile(group, axes, target), axes)
    if group.tile == 1:
        # The innermost loop stays whole: LLVM may vectorise it, branches included.
        innermost = [a for a, kind in axes.of_stage(group.sink).items() if kind != REDUCE][-1:]
        group.common = [a for a in group.common if a not in innermost]
    for stage in group.stages:
        kinds = axes.of_stage(stage)
        axis = axes.innermost(next(a for a in stage.accesses() if a.store))
        if axis is None or group.vector in kinds or axis in group.common or axes.branches_along(stage, axis):
            continue
        lanes = lanes_of(group, target)
        extent = static(axis.extent)
        if extent is not None and extent < lanes:
            lanes = 1 << (extent.bit_length() - 1)
        elif extent is None and not at_least(axis.extent, lanes):
            lanes = 1
        group.own[stage.name] = (axis, _allowed(axis, lanes, axes))


def _allowed(axis: Axis | None, tile: int, axes: Axes) -> int:
    """The largest part of a tile that needs no padding, if the axis must not be padded."""
    if axis is None or not axes.is_indexed(axis):
        return tile
    extent = static(axis.extent)
    return 1 if extent is None else math.gcd(tile, extent)


def _enough(common: Sequence[Axis], innermost: bool, target: Target) -> bool:
    """Whether the common axes leave a few tiles for every core."""
    per_tile = target.vector_bits // 32 if innermost else 1
    return product(rough(a.extent) for a in common) >= target.cores * per_tile


def choose_vector_axis(group: Group, axes: Axes) -> Axis | None:
    """The axis along which most elements of the group lie contiguous in memory."""
    score: dict[Axis, int] = {}
    for stage in group.stages:
        for access in stage.accesses():
            axis = axes.innermost(access)
            if axis is not None and not any(axes.branches_along(s, axis) for s in group.stages):
                volume = product(rough(a.extent) for a in axes.footprint(access))
                score[axis] = score.get(axis, 0) + volume * (2 if access.store else 1)
    return max(score, key=lambda a: score[a]) if score else None


def choose_tile(group: Group, axes: Axes, target: Target) -> int:
    """The tile along the vector axis, in elements."""
    if group.vector is None:
        return 1
    lanes = lanes_of(group, target)
    extent = static(group.vector.extent)
    if extent is None:
        wide = group.vector in group.common and at_least(group.vector.extent, TILE_VECTORS * lanes)
        return TILE_VECTORS * lanes if wide else lanes
    if extent < lanes:
        return 1 << max(extent.bit_length() - 1, 0)
    if group.vector not in group.common:
        return lanes
    outer = product(rough(a.extent) for a in group.common if a is not group.vector)
    panel = 4 * sum(
        product(rough(a.extent) for a in axes.of_stage(s) if a not in group.common)
        for s in group.stages[:-1]
        if all(kind != REDUCE for kind in axes.of_stage(s).values())
    )

    def fits(vectors: int) -> bool:
        tile = vectors * lanes
        busy = not is_heavy([group], axes, target) or outer * -(-extent // tile) >= target.cores
        return tile <= extent and tile * panel <= target.l2_bytes // 2 and busy

    # Tiles reach past the end of an axis that they do not divide, and the last one starts earlier: the fewest vectors.
    fitting = [vectors for vectors in range(TILE_VECTORS, 0, -1) if vectors == 1 or fits(vectors)]
    return min(fitting, key=lambda vectors: -(-extent // (vectors * lanes)) * vectors) * lanes


def lanes_of(group: Group, target: Target) -> int:
    """Vector lanes for the widest element type of the group."""
    bits = max(a.buffer.dtype.bits for s in group.stages for a in s.accesses())
    return target.vector_bits // max(bits, 8)


def is_heavy(groups: Sequence[Group], axes: Axes, target: Target) -> bool:
    """Whether the work is worth a parallel launch."""
    if target.cores == 1:
        return False
    cycles = 0
    for group in groups:
        for stage in group.stages:
            sizes = [a.extent for a in axes.of_stage(stage)]
            if any(static(s) is None for s in sizes):
                return True
            cycles += product(map(rough, sizes)) * (25 if stage.expensive else 3) // lanes_of(group, target)
    return cycles > PARALLEL_CYCLES
