"""Loop-level forms of sorting and scanning, which TVM otherwise leaves to a library that an artifact does not have."""

from collections.abc import Callable
from typing import Any

from tvm import relax, tirx, topi
from tvm.relax import op
from tvm.script import tirx as T

Emit = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def argsort_rows(rows: Any, n: Any, dtype: str, index: str, descending: bool) -> tirx.PrimFunc:
    """A stable merge sort of every row: the positions of its elements in order.

    Parameters
    ----------
    rows, n : int or symbolic
        The shape.
    dtype, index : str
        Types of the elements and of the positions.
    descending : bool
        Largest first.
    """

    @T.prim_func(private=True, s_tir=True, check_well_formed=False)
    def merge_sort(x: T.Buffer((rows, n), dtype), out: T.Buffer((rows, n), index)):  # type: ignore[valid-type]
        T.func_attr({"tirx.noalias": True})
        for r in T.serial(rows):
            with T.sblock("merge_sort"):
                row = T.axis.spatial(rows, r)
                T.reads(x[row, 0:n])
                T.writes(out[row, 0:n])
                merged = T.sblock_alloc_buffer((n,), index)
                # Width of the sorted runs, and the heads of the two that are merged.
                state = T.sblock_alloc_buffer((3,), "int64")
                for i in range(n):
                    out[row, i] = T.Cast(index, i)
                state[0] = T.int64(1)
                while state[0] < n:
                    for run in range(T.ceildiv(n, state[0] * T.int64(2))):
                        state[1] = run * state[0] * T.int64(2)
                        state[2] = T.min(state[1] + state[0], n)
                        for k in range(T.min(state[0] * T.int64(2), n - run * state[0] * T.int64(2))):
                            # if_then_else, unlike `and`, reads only what it needs.
                            if T.if_then_else(
                                state[1] >= T.min((run * T.int64(2) + T.int64(1)) * state[0], n),
                                T.bool(False),
                                T.if_then_else(
                                    state[2] >= T.min((run + T.int64(1)) * state[0] * T.int64(2), n),
                                    T.bool(True),
                                    T.Select(
                                        descending,
                                        x[row, out[row, state[1]]] >= x[row, out[row, state[2]]],
                                        x[row, out[row, state[1]]] <= x[row, out[row, state[2]]],
                                    ),
                                ),
                            ):
                                merged[run * state[0] * T.int64(2) + k] = out[row, state[1]]
                                state[1] = state[1] + T.int64(1)
                            else:
                                merged[run * state[0] * T.int64(2) + k] = out[row, state[2]]
                                state[2] = state[2] + T.int64(1)
                    for i in range(n):
                        out[row, i] = merged[i]
                    state[0] = state[0] * T.int64(2)

    return merge_sort


Restore = Callable[[relax.Expr], relax.Expr]


def _rows(builder: relax.BlockBuilder, x: relax.Expr, axis: int) -> tuple[relax.Expr, Restore]:
    """A tensor with the axis innermost, as rows; and the way back for a result with rows of any length."""
    shape = list(x.ty.shape)
    axis %= len(shape)
    order = [*(d for d in range(len(shape)) if d != axis), axis]
    outer = [shape[d] for d in order[:-1]]
    back = sorted(range(len(shape)), key=order.__getitem__)
    count: Any = 1
    for size in outer:
        count = count * size
    rows = builder.emit(op.reshape(builder.emit(op.permute_dims(x, order)), (count, shape[axis])))

    def restore(y: relax.Expr) -> relax.Expr:
        return builder.emit(op.permute_dims(builder.emit(op.reshape(y, (*outer, y.ty.shape[1]))), back))

    return rows, restore


def _order(builder: relax.BlockBuilder, rows: relax.Expr, descending: bool) -> relax.Expr:
    count, length = rows.ty.shape
    func = argsort_rows(count, length, str(rows.ty.dtype), "int64", descending)
    order = relax.TensorType((count, length), "int64")
    return builder.emit(relax.call_tir(builder.add_func(func, "argsort_rows"), [rows], order))


def _sort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    rows, restore = _rows(builder, call.args[0], call.attrs.axis)
    order = _order(builder, rows, call.attrs.descending)
    return restore(builder.emit(op.gather_elements(rows, order, axis=1)))


def _argsort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    rows, restore = _rows(builder, call.args[0], call.attrs.axis)
    order = _order(builder, rows, call.attrs.descending)
    return restore(builder.emit(op.astype(order, str(call.ty.dtype))))


def _topk(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    attrs = call.attrs
    rows, restore = _rows(builder, call.args[0], attrs.axis)
    order = _order(builder, rows, attrs.largest)
    first = builder.emit(op.strided_slice(order, [1], [0], [attrs.k]))
    values = restore(builder.emit(op.gather_elements(rows, first, axis=1)))
    indices = restore(builder.emit(op.astype(first, str(attrs.dtype))))
    return {"values": values, "indices": indices}.get(attrs.ret_type) or relax.Tuple([values, indices])


def _scan(function: Callable[..., Any]) -> Emit:
    def emit(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        attrs = call.attrs
        dtype = None if attrs.dtype is None else str(attrs.dtype)
        return builder.call_te(function, call.args[0], attrs.axis, dtype, attrs.exclusive)

    return emit


LEGAL: dict[str, Emit] = {
    "relax.sort": _sort,
    "relax.argsort": _argsort,
    "relax.topk": _topk,
    "relax.cumsum": _scan(topi.cumsum),
    "relax.cumprod": _scan(topi.cumprod),
}
