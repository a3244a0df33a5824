"""Loop-level forms of operators that TVM computes otherwise than NumPy, or not at all."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import get_global_func, register_global_func, relax, te, tirx, topi

from sparsec.graph.legalize_sorting import Emit

Combine = Callable[[Any, Any], Any]


def _extremum(combine: Combine, of_numbers: Callable[..., te.Tensor], worst: float) -> Emit:
    """A maximum or minimum whose neutral element is infinite: with TVM's, the largest of −∞ and −∞ is finite."""
    _teach_schedules(combine, worst)

    def reduce(x: te.Tensor, axes: Sequence[int] | None, keepdims: bool) -> te.Tensor:
        dtype = str(x.dtype)
        if dtype == "bool":
            result = of_numbers(topi.cast(x, "int8"), axes, keepdims)
            return te.compute(result.shape, lambda *at: result(*at) > tirx.const(0, "int8"))
        if not dtype.startswith("float"):
            return of_numbers(x, axes, keepdims)
        return _reduce(te.comm_reducer(combine, lambda _: tirx.const(worst, dtype), "extremum"), x, axes, keepdims)

    def emit(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        axes = None if call.attrs.axis is None else [int(axis) for axis in call.attrs.axis]
        return builder.call_te(reduce, call.args[0], axes, bool(call.attrs.keepdims), primfunc_name_hint="extremum")

    return emit


def _teach_schedules(combine: Combine, worst: float) -> None:
    """Register a reduction of floats, since those with a neutral element that is not known cannot be split."""
    # A global function lives on until the process ends; others would be freed after Python is gone.
    functions = (
        register_global_func(f"sparsec.combine{worst}", lambda x, y: [combine(x[0], y[0])]),
        register_global_func(f"sparsec.identity{worst}", lambda x: [tirx.const(worst, str(x[0].ty.dtype))]),
    )
    get_global_func("s_tir.schedule.RegisterReducer")(1, *functions)


def _reduce(reducer: Callable[..., Any], x: te.Tensor, axes: Sequence[int] | None, keepdims: bool) -> te.Tensor:
    rank = len(x.shape)
    reduced = {axis % rank for axis in (range(rank) if axes is None else axes)}
    kept = [axis for axis in range(rank) if axis not in reduced]
    left = range(rank) if keepdims else kept
    shape = [1 if axis in reduced else x.shape[axis] for axis in left]
    over = {axis: te.reduce_axis((0, x.shape[axis]), f"k{axis}") for axis in sorted(reduced)}

    def element(*at: Any) -> Any:
        index = dict(zip(left, at, strict=True)) | over
        return reducer(x(*(index[axis] for axis in range(rank))), list(over.values()))

    return te.compute(shape, element, name="extremum")


def _library(name: str) -> Emit:
    """A function of the C library, element by element."""

    def compute(x: te.Tensor) -> te.Tensor:
        dtype = str(x.dtype)
        function = name if dtype == "float64" else f"{name}f"

        def element(*at: Any) -> Any:
            value = x(*at).astype("float32") if dtype == "float16" else x(*at)
            return tirx.call_pure_extern(value.ty.dtype, function, value).astype(dtype)

        return te.compute(x.shape, element, name=name)

    def emit(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return builder.call_te(compute, call.args[0], primfunc_name_hint=name)

    return emit


LEGAL: dict[str, Emit] = {
    "relax.cosh": _library("cosh"),
    "relax.max": _extremum(lambda a, b: tirx.max(a, b), topi.max, -math.inf),
    "relax.min": _extremum(lambda a, b: tirx.min(a, b), topi.min, math.inf),
    "relax.sinh": _library("sinh"),
}
