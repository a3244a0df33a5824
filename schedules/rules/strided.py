"""Vector loads of every second element, as two loads and a shuffle.

LLVM would insert such a vector lane by lane. Two whole vectors, the second ending at the last element that is needed,
hold all of it: nothing beyond the tensor is touched.
"""

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.sym import Analyzer

from sparsec.schedules.rules.stages import Stage


def shuffle_strided_loads(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Rewrite the vectorised loops of a scheduled function that read with stride two."""

    def rewrite(loop: tirx.For) -> tirx.Stmt:
        realize = loop.body
        if loop.kind != tirx.stmt.ForKind.VECTORIZED or not isinstance(realize, SBlockRealize) or _is(loop.extent, 1):
            return loop
        if not _is(realize.predicate, 1):
            return loop  # the last vector is cut short
        return _rewrite_loop(loop, realize) or loop

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, rewrite), order="post"))


def _rewrite_loop(loop: tirx.For, realize: SBlockRealize) -> tirx.Stmt | None:
    if Stage(realize.block).branches():
        return None  # what a branch guards must not be read without it
    lane, lanes = loop.loop_var, int(loop.extent)
    values = dict(zip((it.var for it in realize.block.iter_vars), realize.iter_values, strict=True))
    analyzer = Analyzer()
    gathered: list[Var] = []
    fills: list[tirx.Stmt] = []

    def gather(load: TensorLoad) -> Any:
        if not load.indices:
            return load
        first = [analyzer.simplify(_at(i, lane, 0)) for i in load.indices]
        second = [analyzer.simplify(_at(i, lane, 1)) for i in load.indices]
        *steps, step = (analyzer.simplify(b - a) for a, b in zip(first, second, strict=True))
        if any(not _is(s, 0) for s in steps) or not _is(step, 2):
            return load
        vector = tirx.decl_buffer((lanes,), load.source.dtype, "every_second")
        gathered.append(vector)
        starts = (first[-1], first[-1] + (lanes - 1))
        halves = [tirx.BufferLoad(load.source, [*first[:-1], tirx.Ramp(start, 1, lanes)]) for start in starts]
        # The second vector starts at element lanes − 1.
        picks = [2 * i if 2 * i < lanes else lanes + 2 * i - (lanes - 1) for i in range(lanes)]
        shuffled = tirx.Shuffle(halves, [tirx.const(p, "int32") for p in picks])
        fills.append(tirx.BufferStore(vector, shuffled, [tirx.Ramp(tirx.const(0, "int64"), 1, lanes)]))
        return tirx.BufferLoad(vector, [lane])

    body = tvm_ffi.structural_map(realize.block.body, (Var, lambda v: values.get(v, v)), order="post")
    body = tvm_ffi.structural_map(body, (TensorLoad, gather), order="post")
    if not fills:
        return None
    inner = tirx.For(lane, loop.min, loop.extent, loop.kind, body)
    block = SBlock([], [], [], realize.block.name_hint, tirx.stmt_seq(*fills, inner), alloc_buffers=gathered)
    return SBlockRealize([], True, block)


def _at(index: Any, lane: Var, position: int) -> Any:
    value = tirx.const(position, str(lane.ty.dtype))
    return tvm_ffi.structural_map(index, (Var, lambda v: value if v.same_as(lane) else v), order="post")


def _is(value: Any, number: int) -> bool:
    return isinstance(value, tirx.IntImm) and int(value) == number
