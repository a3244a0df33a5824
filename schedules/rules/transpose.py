"""The rule for permutations that move the innermost axis: square tiles transposed in registers.

A tile of L × L elements is read as L vectors, transposed by log₂ L rounds of two-source shuffles, and handed as L
vectors to whatever else the stage computes. Both axes are padded to whole tiles, as everywhere.
"""

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.sym import Analyzer

from sparsec.schedules.declined import Declined
from sparsec.schedules.rules import nests
from sparsec.schedules.rules.axes import Axes, Axis, at_least, static
from sparsec.schedules.rules.groups import Group, is_heavy
from sparsec.schedules.rules.rewrite import Rewriter
from sparsec.schedules.rules.stages import Fused, Stage
from sparsec.targets.target import Target


def apply(fused: Fused, target: Target) -> tirx.PrimFunc | Declined:
    """Schedule a function of one injective stage that reads across the axis it writes along."""
    func, stages = fused.func, fused.stages
    if len(stages) != 1 or not stages[0].injective:
        return Declined("the function is not one injective stage")
    (stage,) = stages
    axes = Axes(stages)
    crossed = _crossed(stage, axes)
    if isinstance(crossed, Declined):
        return crossed
    along, across = crossed
    lanes = target.vector_bits // stage.outputs()[0].dtype.bits
    short = [a for a in (along, across) if not at_least(a.extent, lanes)]
    if any(static(a.extent) is not None for a in short):
        return Declined("an axis of the transposition is shorter than a vector")
    rewritten, _ = Rewriter(func, axes, {along: lanes, across: lanes}).run()
    (block,) = _blocks(rewritten)
    names = list(axes.of_stage(stage))
    variables = dict(zip(names, (it.var for it in block.iter_vars), strict=True))
    parallel = is_heavy([Group([stage], names, along, lanes)], axes, target)
    body = _tiles(block, variables[along], variables[across], lanes, parallel)
    if short:
        # A symbolic axis may turn out too short: then the stage runs like any other.
        plain = nests.apply(fused, target)
        if isinstance(plain, Declined):
            return plain
        body = tirx.IfThenElse(tirx.all(*(a.extent >= lanes for a in short)), body, plain.body)
    return func.with_body(SBlockRealize([], True, SBlock([], [], [], "root", body)))


def _crossed(stage: Stage, axes: Axes) -> tuple[Axis, Axis] | Declined:
    """The axis that the stage writes along, and the one that it reads along instead."""
    (store,) = (a for a in stage.accesses() if a.store)
    along = axes.innermost(store)
    if along is None:
        return Declined("the innermost index of the output is computed")
    for load in stage.accesses():
        across = axes.innermost(load)
        if load.store or across is None or across is along or axes.is_opaque(across) or axes.is_opaque(along):
            continue
        if along in axes.footprint(load):
            bits = {a.buffer.dtype.bits for a in (load, store)}
            return (along, across) if len(bits) == 1 else Declined("the transposition changes the element size")
    return Declined("every tensor is read along the axis that is written")


def _blocks(func: tirx.PrimFunc) -> list[SBlock]:
    found: list[SBlock] = []
    tvm_ffi.structural_walk(func.body.block.body, (SBlock, found.append))
    return found


def _tiles(block: SBlock, along: Var, across: Var, lanes: int, parallel: bool) -> tirx.Stmt:
    """The loop nest over tiles."""
    extents = {it.var: it.dom.extent for it in block.iter_vars}
    outer = [it.var for it in block.iter_vars if it.var not in (along, across)]
    tile = {v: Var(f"tile{n}", "int64") for n, v in enumerate((across, along))}
    body = _tile(block, along, across, tile, lanes)
    loops = [(v, extents[v]) for v in outer] + [(tile[v], extents[v] // lanes) for v in (across, along)]
    for n, (var, extent) in reversed(list(enumerate(loops))):
        kind = tirx.stmt.ForKind.PARALLEL if parallel and n == 0 else tirx.stmt.ForKind.SERIAL
        body = tirx.For(var, tirx.const(0, "int64"), Analyzer().simplify(extent), kind, body)
    return body


def _tile(block: SBlock, along: Var, across: Var, tile: dict[Var, Var], lanes: int) -> tirx.Stmt:
    """One tile: every crossed load into a square of its own, then the stage on the squares."""
    row, lane = Var("row", "int64"), Var("lane", "int64")
    start = {v: tile[v] * lanes for v in tile}
    analyzer = Analyzer()
    squares: dict[Any, Var] = {}
    fills: list[tirx.Stmt] = []

    def crossed(load: TensorLoad) -> bool:
        last = load.indices[-1]
        return _uses(last, across) and any(_uses(i, along) for i in load.indices[:-1])

    def replace(load: TensorLoad) -> Any:
        if not crossed(load):
            return load
        key = next((k for k in squares if tvm_ffi.structural_equal(k, load)), load)
        if key not in squares:
            squares[key] = tirx.decl_buffer((lanes, lanes), load.source.dtype, "square")
            fills.append(_transpose(load, squares[key], {across: start[across]}, along, start[along], lanes, analyzer))
        return tirx.BufferLoad(squares[key], [row, lane])

    store = tvm_ffi.structural_map(block.body, (TensorLoad, replace), order="pre")
    at = {across: start[across] + row, along: start[along] + lane}
    zero, size = tirx.const(0, "int64"), tirx.const(lanes, "int64")
    kinds = tirx.stmt.ForKind
    compute = tirx.For(lane, zero, size, kinds.VECTORIZED, _substitute(store, at))
    compute = tirx.For(row, zero, size, kinds.UNROLLED, compute)
    inside = SBlock([], [], [], "tile", tirx.stmt_seq(*fills, compute), alloc_buffers=list(squares.values()))
    return SBlockRealize([], True, inside)


def _transpose(
    load: TensorLoad, square: Var, origin: dict[Var, Any], along: Var, start: Any, lanes: int, analyzer: Analyzer
) -> tirx.Stmt:
    """Read L vectors across, store them as L vectors along.

    In the round with distance d, vectors r and r + d (bit d of r clear) exchange the halves of every 2 d lanes.
    """
    vectors: list[Any] = []
    binds: list[tirx.Stmt] = []

    def bind(value: Any) -> Any:
        var = Var(f"t{len(binds)}", value.ty)
        binds.append(tirx.Bind(var, value))
        return var

    for r in range(lanes):
        indices = [analyzer.simplify(_substitute(i, {**origin, along: start + r})) for i in load.indices]
        vectors.append(bind(tirx.BufferLoad(load.source, [*indices[:-1], tirx.Ramp(indices[-1], 1, lanes)])))
    distance = lanes // 2
    while distance:
        low = [i if not i & distance else lanes + i - distance for i in range(lanes)]
        high = [i + distance if not i & distance else lanes + i for i in range(lanes)]
        for r in range(lanes):
            if not r & distance:
                pair = [vectors[r], vectors[r + distance]]
                vectors[r], vectors[r + distance] = (bind(_shuffle(pair, mask)) for mask in (low, high))
        distance //= 2
    ramp = tirx.Ramp(tirx.const(0, "int64"), 1, lanes)
    stores = [tirx.BufferStore(square, v, [tirx.const(r, "int64"), ramp]) for r, v in enumerate(vectors)]
    return tirx.stmt_seq(*binds, *stores)


def _shuffle(pair: Sequence[Any], mask: Sequence[int]) -> Any:
    return tirx.Shuffle(list(pair), [tirx.const(i, "int32") for i in mask])


def _uses(expr: Any, var: Var) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(expr, (Var, lambda v: found.append(v) if v.same_as(var) else None))
    return bool(found)


def _substitute(node: Any, values: dict[Var, Any]) -> Any:
    return tvm_ffi.structural_map(node, (Var, lambda v: values.get(v, v)), order="post")
