"""What every operator of a Graph means, in NumPy: for folding constants, and to test passes against."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from sparsec.errors import UnsupportedError
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.image_semantics import conv_padded, max_pool, repack, unpad, winograd_input, winograd_output
from sparsec.graph.quantized_semantics import dequantize, flip_sign, quantize
from sparsec.graph.shape import evaluate_dim
from sparsec.graph.window_semantics import adaptive_avg_pool2d, avg_pool2d, conv1d, conv2d, in_sums, max_pool2d
from sparsec.ir.image import Image
from sparsec.ir.types import is_float

Array = np.ndarray


def evaluate(graph: Graph, inputs: Sequence[Array] | Mapping[str, Array]) -> list[Array]:
    """Run a graph.

    Raises
    ------
    UnsupportedError
        For an operator that has no meaning in NumPy here.
    """
    arrays = [inputs[v.name] for v in graph.inputs] if isinstance(inputs, Mapping) else list(inputs)
    known: dict[Value, Array] = dict(zip(graph.inputs, arrays, strict=True))
    symbols = _bind_symbols(graph, arrays)
    for node in graph.nodes:
        if node.op not in OPERATORS:
            raise UnsupportedError(f"The operator {node.op!r} at {node.where!r} has no evaluation in NumPy.")
        args = [v.data if v.data is not None else known[v] for v in node.inputs]
        known.update(zip(node.outputs, evaluate_node(node, args, symbols), strict=True))
    return [v.data if v.data is not None else known[v] for v in graph.outputs]


def evaluate_node(node: Node, args: Sequence[Array], symbols: Mapping[str, int]) -> list[Array]:
    """The outputs of one node, in the dtypes that it declares."""
    attrs = {name: _bind(value, symbols) for name, value in node.attrs.items()}
    result = OPERATORS[node.op](*args, **attrs)
    results = result if isinstance(result, tuple) else (result,)
    return [np.asarray(r).astype(v.dtype, copy=False) for r, v in zip(results, node.outputs, strict=True)]


def _bind_symbols(graph: Graph, arrays: Sequence[Array]) -> dict[str, int]:
    symbols: dict[str, int] = {}
    for value, array in zip(graph.inputs, arrays, strict=True):
        for declared, actual in zip(value.shape, array.shape, strict=True):
            if isinstance(declared, tirx.Var):
                symbols[declared.name] = actual
    return symbols


def _bind(value: Any, symbols: Mapping[str, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_bind(v, symbols) for v in value)
    is_plain = value is None or isinstance(value, bool | int | float | str | Image)
    return value if is_plain else evaluate_dim(value, symbols)


def _reduce(function: Callable[..., Array], x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return function(x, axis=axis, keepdims=keepdims)


def _slice(x: Array, axes: Sequence[int], begin: Any, end: Any, strides: Any = None, **_: Any) -> Array:
    index = [slice(None)] * x.ndim
    for axis, b, e, s in zip(axes, begin, end, strides or [1] * len(axes), strict=True):
        index[axis] = slice(b, None if s < 0 and e < -x.shape[axis] else e, s)
    return x[tuple(index)]


def _take(x: Array, indices: Any, axis: int | None = None, mode: str = "fast") -> Array:
    return np.take(x, indices, axis=axis, mode="wrap" if mode == "wrap" else "clip" if mode == "clip" else "raise")


def _squeeze(x: Array, axis: Any = None) -> Array:
    return np.squeeze(x, axis=axis)


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def _gelu_tanh(x: Array) -> Array:
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _along(parameter: Array, axes: Sequence[int], rank: int) -> Array:
    """A per-channel parameter, shaped to broadcast over a tensor of this rank."""
    axes = [axis % rank for axis in axes]
    shape = [1] * rank
    for axis, size in zip(axes, parameter.shape, strict=True):
        shape[axis] = size
    return parameter.reshape(shape)


def _layer_norm(
    x: Array, gamma: Array, beta: Array, axes: Any, epsilon: float = 1e-5, center: bool = True, scale: bool = True
) -> Array:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    centred = x - x.mean(axis=axes, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)
    y = y * _along(gamma, axes, x.ndim) if scale else y
    return y + _along(beta, axes, x.ndim) if center else y


def _batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    var: Array,
    axis: int = 1,
    epsilon: float = 1e-5,
    center: bool = True,
    scale: bool = True,
    **_: Any,
) -> tuple[Array, Array, Array]:
    y = (x - _along(mean, [axis], x.ndim)) / np.sqrt(_along(var, [axis], x.ndim) + epsilon)
    y = y * _along(gamma, [axis], x.ndim) if scale else y
    return (y + _along(beta, [axis], x.ndim) if center else y), mean, var


def _matmul(a: Array, b: Array, **_: Any) -> Array:
    return in_sums(a) @ in_sums(b)


def _batch_matmul(
    a: Array, b: Array, lhs_transposed: bool, rows: int | None = None, columns: int | None = None
) -> Array:
    return (_swap(a)[..., :rows, :] if lhs_transposed else a[..., : b.shape[-2]]) @ b


def _pad(x: Array, pad_width: Any, pad_value: float = 0, pad_mode: str = "constant") -> Array:
    pairs = list(zip(pad_width[::2], pad_width[1::2], strict=True))
    return (
        np.pad(x, pairs, constant_values=pad_value)
        if pad_mode == "constant"
        else np.pad(x, pairs, _PAD_MODES[pad_mode])
    )


_PAD_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""NumPy's names of Relax's ways to pad."""


def _split(x: Array, indices_or_sections: Any, axis: int = 0) -> tuple[Array, ...]:
    at = indices_or_sections
    if isinstance(at, int):  # sections of one size, but the last
        size = -(-x.shape[axis] // at)
        at = range(size, size * at, size)
    return tuple(np.split(x, list(at), axis=axis))


def _attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    scale: float | None = None,
    causal_mask: str | None = None,
    window_size: Any = None,
) -> Array:
    """Over [batch, tokens, heads, size]."""
    scores = np.einsum("bihd,bjhd->bhij", q, k) * (scale if scale is not None else 1 / math.sqrt(q.shape[-1]))
    scores = scores if bias is None else scores + bias
    if causal_mask is not None:
        rows, columns = scores.shape[2:]
        shift = columns - rows if causal_mask == "BottomRight" else 0
        scores = np.where(np.tri(rows, columns, shift, dtype=bool), scores, -np.inf)
    return np.einsum("bhij,bjhd->bihd", _softmax(scores), v)


def _swap(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b) if is_float(a.dtype) else np.trunc(np.divide(a, b))


ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "add": np.add,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "astype": lambda x, dtype: x.astype(dtype),
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "bitwise_and": np.bitwise_and,
    "bitwise_not": np.bitwise_not,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "ceil": np.ceil,
    "clip": lambda x, min, max: np.clip(x, min, max),
    "cos": np.cos,
    "cosh": np.cosh,
    "divide": _divide,
    "equal": np.equal,
    "erf": _erf,
    "exp": np.exp,
    "floor": np.floor,
    "floor_divide": np.floor_divide,
    "floor_mod": np.mod,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "isfinite": np.isfinite,
    "isinf": np.isinf,
    "isnan": np.isnan,
    "left_shift": np.left_shift,
    "less": np.less,
    "less_equal": np.less_equal,
    "log": np.log,
    "log_add_exp": np.logaddexp,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.fmod,
    "multiply": np.multiply,
    "negative": np.negative,
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "nn.leakyrelu": lambda x, alpha: np.where(x > 0, x, alpha * x),
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "nn.silu": lambda x: x / (1 + np.exp(-x)),
    "nn.softplus": lambda x, beta=1.0, threshold=20.0: np.where(
        x * beta > threshold, x, np.log1p(np.exp(beta * x)) / beta
    ),
    "not_equal": np.not_equal,
    "power": np.power,
    "right_shift": np.right_shift,
    "round": np.round,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "subtract": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "trunc": np.trunc,
    "where": np.where,
}
"""Operators that read, for every element of the output, the same element of every (broadcast) input."""

REDUCTIONS: dict[str, Callable[..., Array]] = {
    "max": partial(_reduce, np.max),
    "mean": partial(_reduce, np.mean),
    "min": partial(_reduce, np.min),
    "prod": partial(_reduce, np.prod),
    "sum": partial(_reduce, np.sum),
    "variance": partial(_reduce, np.var),
}

OPERATORS: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    **REDUCTIONS,
    "arange": lambda start, end, step, dtype: np.arange(start, end, step),
    "batch_matmul": _batch_matmul,
    "broadcast_to": lambda x, shape: np.broadcast_to(x, shape),
    "concat": lambda *xs, axis=0: np.concatenate(xs, axis=axis or 0),
    "conv2d": conv2d,
    "conv_padded": conv_padded,
    "cumsum": lambda x, axis, dtype=None, exclusive=False: np.cumsum(x, axis) - (x if exclusive else 0),
    "dequantize": dequantize,
    "expand_dims": lambda x, axis: np.expand_dims(x, axis),
    "flatten": np.ravel,
    "flip": lambda x, axis: np.flip(x, axis),
    "flip_sign": flip_sign,
    "full": lambda value, shape, dtype=None: np.full(shape, value),
    "full_like": lambda x, value, dtype=None: np.full(x.shape, value),
    "linear": lambda x, w: _matmul(x, w.T),
    "linear_cols": lambda x, w, columns=None: _matmul(w, x),
    "matmul": _matmul,
    "max_pool": max_pool,
    "nn.adaptive_avg_pool2d": adaptive_avg_pool2d,
    "nn.attention": _attention,
    "nn.avg_pool2d": avg_pool2d,
    "nn.batch_flatten": lambda x: x.reshape(x.shape[0], -1),
    "nn.batch_norm": _batch_norm,
    "nn.conv1d": conv1d,
    "nn.conv2d": conv2d,
    "nn.dropout": lambda x, rate=0: (x, np.ones_like(x)),
    "nn.layer_norm": _layer_norm,
    "nn.log_softmax": lambda x, axis=-1: np.log(_softmax(x, axis)),
    "nn.max_pool2d": max_pool2d,
    "nn.pad": _pad,
    "nn.softmax": _softmax,
    "ones": lambda shape, dtype=None: np.ones(shape),
    "permute_dims": lambda x, axes=None: np.transpose(x, axes),
    "quantize": quantize,
    "repeat": lambda x, repeats, axis=None: np.repeat(x, repeats, axis),
    "pixels": unpad,
    "repack": repack,
    "reshape": lambda x, shape: np.reshape(x, shape),
    "shape_to_tensor": lambda expr: np.array(expr, "int64"),
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda *xs, axis=0: np.stack(xs, axis=axis or 0),
    "strided_slice": _slice,
    "take": _take,
    "tile": lambda x, repeats: np.tile(x, repeats),
    "tril": lambda x, k=0: np.tril(x, k),
    "triu": lambda x, k=0: np.triu(x, k),
    "ones_like": lambda x, dtype=None: np.ones(x.shape),
    "winograd_input": winograd_input,
    "winograd_output": winograd_output,
    "zeros": lambda shape, dtype=None: np.zeros(shape),
    "zeros_like": lambda x, dtype=None: np.zeros(x.shape),
}
"""The function of each operator: inputs by position, attributes by name, a tuple where there are several outputs."""
