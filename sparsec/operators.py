"""The operators of `sparsec.op`: each a function from a target and its operands to a graph of one layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from sparsec.errors import InputError
from sparsec.graph.given_layouts import Given, read_layout
from sparsec.graph.graph import Graph, Value
from sparsec.graph.low_bit import low_bit_product
from sparsec.graph.masked_attention import masked_attention, sampled_product
from sparsec.graph.simplify import permute, reshape
from sparsec.ir.bit_planes import Encoding
from sparsec.ir.layout import Layout
from sparsec.ir.named import CSR
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.embedding_bag import choose_table
from sparsec.schedules.rules.masked_attention import price_attention
from sparsec.targets import Target

ACTIVATIONS = {
    "gelu": "nn.gelu",
    "gelu_tanh": "nn.gelu_tanh",
    "relu": "nn.relu",
    "sigmoid": "sigmoid",
    "silu": "nn.silu",
    "tanh": "tanh",
}
"""What `matmul` may do to a result, and the operator for it."""


def build_operator(
    name: str, operands: Sequence[Any], options: Mapping[str, Any], layout: Given | None, target: Target
) -> Graph:
    """Make the graph of an operator for a target; the layout is that of a weight, or of a mask.

    Raises
    ------
    InputError
        An operator that is not known, or operands that it does not take.
    """
    if name not in OPERATORS:
        known = ", ".join(map(repr, OPERATORS))
        raise InputError(f"there is no operator {name!r}; the known ones are {known}")
    build = partial(OPERATORS[name], target)
    if "layout" in inspect.signature(build).parameters:
        build = partial(build, layout=_layout(layout))
    try:
        bound = inspect.signature(build).bind(*operands, **options)
    except TypeError as error:
        raise InputError(f"{name} was called with other operands, {error}; call it as in {CALLS[name]}") from None
    graph = build(*bound.args, **bound.kwargs)
    for node in graph.nodes:
        node.where = name
    return graph


def matmul(
    target: Target,
    weight: Any,
    columns: int | tuple[int, int],
    bias: Any = None,
    activation: str | None = None,
    sparse_activations: bool = False,
) -> Graph:
    """``y = activation(weight @ x + bias)`` for an input ``x``, float32 [depth, columns].

    Parameters
    ----------
    weight : array [rows, depth], or anything of SciPy's with ``toarray``
    columns : int, or (lower, upper)
        How many columns ``x`` has.
    bias : array [rows], optional
    activation : {"relu", "gelu", "gelu_tanh", "sigmoid", "silu", "tanh"}, optional
    sparse_activations : bool
        Whether many rows of ``x`` are zero in whole vectors of columns, as after a ReLU over dead channels; they are
        found at run time, and passed over with all the weights that meet them.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise InputError(f"there is no activation {activation!r}; the known ones are {', '.join(ACTIVATIONS)}")
    matrix = _matrix(weight, "weight", "matmul takes a matrix [rows, depth]")
    rows, depth = matrix.shape
    graph = Graph()
    extent = _extent(graph, "columns", columns)
    x = graph.input("x", (depth, extent), "float32")
    attrs = {"sparse_activations": True} if sparse_activations else {}
    y = graph.add("linear_cols", [x, graph.constant(matrix, "weight")], (rows, extent), attrs, name="y")
    if bias is not None:
        column = _real(bias, "bias").reshape(-1, 1)
        if len(column) != rows:
            raise InputError(f"the bias has {len(column)} elements; a weight of shape {matrix.shape} takes {rows}")
        y = graph.add("add", [y, graph.constant(column, "bias")], y.shape, name="y")
    if activation is not None:
        y = graph.add(ACTIVATIONS[activation], [y], y.shape, name="y")
    return _returning(graph, y)


def sddmm(target: Target, mask: Any, depth: int, batch: int | None = None, *, layout: Layout | None) -> Graph:
    """``y = mask · (a @ b)`` at the nonzeros of the mask, for inputs ``a`` [rows, depth] and ``b`` [depth, columns].

    Parameters
    ----------
    mask : array [rows, columns], or anything of SciPy's with ``toarray``
        Where products are wanted, and what each is multiplied by; finite.
    depth : int
    batch : int, optional
        How many products share the mask; ``a``, ``b`` and ``y`` have it as their first dimension.
    layout : Layout
        In what order ``y`` [stored] holds the products, that of ``data`` in ``layout.pack(mask).arrays``. As it is,
        that of SciPy's ``csr_matrix(mask).data``.
    """
    pattern = _pattern(mask, "sddmm")
    for name, number in (("depth", depth), ("batch", 1 if batch is None else batch)):
        _check_size(name, number)
    layout = layout or CSR
    graph = Graph()
    leading = () if batch is None else (batch,)
    rows, columns = pattern.shape
    a = graph.input("a", (*leading, rows, depth), "float32")
    b = graph.input("b", (*leading, depth, columns), "float32")
    b = permute(graph, b, (*range(len(leading)), b.rank - 1, b.rank - 2), None)
    return _returning(graph, sampled_product(graph, a, b, graph.constant(pattern, "mask"), layout))


def attention(
    target: Target,
    mask: Any,
    heads: int,
    size: int,
    scale: float | None = None,
    empty: float = 0.0,
    *,
    layout: Layout | None,
) -> Graph:
    """``y = softmax(scale · query @ keyᵀ) @ value``, the softmax over the keys that the mask keeps for each row.

    Scores that are masked are never computed. ``query`` is float32 [heads, rows, size], ``key`` and ``value`` are
    [heads, keys, size].

    Parameters
    ----------
    mask : array [rows, keys], or anything of SciPy's with ``toarray``
        Positive where a row sees a key, and zero elsewhere; not what some libraries add to the scores.
    heads : int
        How many heads, of all samples, share the mask.
    size : int
        Of a head.
    scale : float, optional
        As it is, ``1 / sqrt(size)``.
    empty : float
        What a row is that sees no key; NaN is what a softmax of nothing but −∞ comes to.
    layout : Layout
        How the scores are stored; as it is, what should be fastest.
    """
    values = _matrix(mask, "mask", "attention takes a matrix [rows, keys]")
    _refuse(values, ~np.isfinite(values) | (values < 0), "attention")
    kept = values != 0
    for name, number in (("heads", heads), ("size", size)):
        _check_size(name, number)
    blocks = (1, 1)
    if layout is None:
        price = price_attention(kept, size, target)[0]
        layout, blocks = price.layout, (price.rows, price.columns)
    graph = Graph()
    rows, keys = kept.shape
    query = graph.input("query", (heads, rows, size), "float32")
    key, value = (graph.input(name, (heads, keys, size), "float32") for name in ("key", "value"))
    scale = size**-0.5 if scale is None else scale
    y = masked_attention(graph, query, key, value, kept, layout, scale=scale, empty=empty, blocks=blocks)
    return _returning(graph, y)


def embedding_bag(
    target: Target,
    table: Any,
    bags: int | tuple[int, int],
    size: int | None = None,
    count: int | tuple[int, int] | None = None,
    mode: str = "sum",
    weighted: bool = False,
    *,
    layout: Layout | None,
) -> Graph:
    """``y[n] = Σ weights[t] · table[ids[t]]`` over the rows ``t`` of each bag ``n``.

    Give ``size`` for bags of equal size and an input ``ids``, int64 [bags, size]. Give ``count`` for an input ``ids``,
    int64 [count], and an input ``offsets``, int64 [bags], with the place in ``ids`` where each bag starts. A number of
    no row is taken as the nearest row, a place outside of ``ids`` as the nearest one, and a bag that ends before it
    starts as empty.

    Parameters
    ----------
    table : array [rows, columns], or anything of SciPy's with ``toarray``
    bags, count : int, or (lower, upper)
    size : int
    mode : {"sum", "mean"}
        The mean of no rows is 0.
    weighted : bool
        Whether there is a last input ``weights``, float32 like ``ids``.
    layout : Layout
        Of the table; one that tells where a row is.
    """
    matrix = _matrix(table, "table", "embedding_bag takes a matrix [rows, columns]")
    if mode not in ("sum", "mean"):
        raise InputError(f"there is no mode {mode!r} of embedding_bag; the known ones are sum, mean")
    if (size is None) == (count is None):
        raise InputError("embedding_bag takes either the size of all bags, or the count of ids and where bags start")
    graph = Graph()
    many = _extent(graph, "bags", bags)
    if size is not None:
        _check_size("size", size)
    shape = (many, size) if size is not None else (_extent(graph, "count", count),)
    operands = [graph.constant(matrix, "table"), graph.input("ids", shape, "int64")]
    rest = []
    if size is None:
        rest.append("offsets")
        operands.append(graph.input("offsets", (many,), "int64"))
    if weighted:
        rest.append("weights")
        operands.append(graph.input("weights", shape, "float32"))
    layout = layout or choose_table(matrix, target)
    attrs = {"rest": tuple(rest), "layout": str(layout), "size": size or 0, "mean": mode == "mean", "wrap": False}
    y = graph.add("embedding_bag", operands, (many, matrix.shape[1]), attrs, dtype="float32")
    return _returning(graph, y)


def low_bit_matmul(
    target: Target,
    weight: Any,
    columns: int | tuple[int, int],
    weights: str = "binary",
    activations: str = "uint2",
    scale: Any = None,
    batch: int | None = None,
    *,
    layout: Layout | None,
) -> Graph:
    """``y = weight @ x`` of integers of few bits, from products of single bits: exact, in int32 [rows, columns].

    An input ``x`` [depth, columns] is uint8 where the activations have no sign, and int8 where they have one; of each
    number those bits are taken that its encoding has. There are ``uint1`` to ``uint4``, ``int1`` to ``int4`` in two's
    complement, and ``binary``, which are the numbers −1 and 1.

    Parameters
    ----------
    weight : array [rows, depth], or anything of SciPy's with ``toarray``
        Integers of the encoding of the weights.
    columns : int, or (lower, upper)
        How many columns ``x`` has.
    weights, activations : str
        The encoding of each.
    scale : float, or array [rows], optional
        What is multiplied to each row of ``y``, which then is float32.
    batch : int, optional
        How many ``x`` meet the weight; ``x`` and ``y`` have it as their first dimension.
    layout : Layout
        Of the words that hold 32 weights of a row each, ``k`` being the word; as it is, what should be fastest.
    """
    encodings = _encoding("weights", weights), _encoding("activations", activations)
    matrix = _matrix(weight, "weight", "low_bit_matmul takes a matrix [rows, depth]")
    if not np.array_equal(matrix, matrix.round()) or not encodings[0].holds(matrix.astype(np.int64)):
        low, high = encodings[0].low, encodings[0].high
        raise InputError(f"the weight has other numbers than those of {weights!r}, which are from {low} to {high}")
    (rows, depth), graph = matrix.shape, Graph()
    if batch is not None:
        _check_size("batch", batch)
    extent = _extent(graph, "columns", columns)
    shape = (depth, extent) if batch is None else (batch, depth, extent)
    x = graph.input("x", shape, "uint8" if encodings[1].low >= 0 else "int8")
    given = x if batch is not None else reshape(graph, x, (1, *shape), None)
    scales = None if scale is None else np.broadcast_to(_real(scale, "scale"), rows).copy()
    y = low_bit_product(graph, matrix.astype(np.int64), given, encodings, target, scales, layout)
    return _returning(graph, y if batch is not None else reshape(graph, y, (rows, extent), None))


def _encoding(name: str, given: str) -> Encoding:
    encoding = Encoding.parse(given)
    if encoding is None:
        raise InputError(f"{name}={given!r} was given; expected binary, uint1 to uint4, or int1 to int4")
    return encoding


OPERATORS: dict[str, Callable[..., Graph]] = {
    "attention": attention,
    "embedding_bag": embedding_bag,
    "low_bit_matmul": low_bit_matmul,
    "matmul": matmul,
    "sddmm": sddmm,
}

CALLS = {
    "attention": 'sparsec.op("attention", mask, heads=12, size=64)',
    "embedding_bag": 'sparsec.op("embedding_bag", table, bags=8, size=16)',
    "low_bit_matmul": 'sparsec.op("low_bit_matmul", weight, columns=64)',
    "matmul": 'sparsec.op("matmul", weight, columns=64)',
    "sddmm": 'sparsec.op("sddmm", mask, depth=64)',
}
"""How each is called at the least."""

MASKED = ("attention", "sddmm")
"""Operators whose constant is a mask, so that there are no weights to store."""


def _layout(given: Given | None) -> Layout | None:
    """The layout of a mask or a table, None where it is free."""
    layout = None if given is None else read_layout(given)
    if isinstance(layout, Sum):
        raise InputError(f"a mask or a table cannot be stored as {layout}; give one layout, which is no sum")
    return layout


def _returning(graph: Graph, y: Value) -> Graph:
    y.name = "y"
    graph.outputs = [y]
    return graph


def _extent(graph: Graph, name: str, given: Any) -> Any:
    """A dimension of an input; of a range, as a symbol."""
    low, high = given if isinstance(given, tuple) and len(given) == 2 else (given, given)
    if not (_is_size(low) and _is_size(high) and low <= high):
        raise InputError(f"{name}={given!r} was given; expected a number from 1, or a range (lower, upper) of them")
    if not isinstance(given, tuple):
        return given
    graph.symbols[name] = given
    return tirx.Var(name, "int64")


def _pattern(mask: Any, operator: str) -> np.ndarray:
    """A mask as uint8 where all of it is 0 or 1, else as float32."""
    values = _matrix(mask, "mask", f"{operator} takes a matrix [rows, columns]")
    _refuse(values, ~np.isfinite(values), operator)
    return values.astype(np.uint8) if np.isin(values, (0, 1)).all() else values


def _refuse(mask: np.ndarray, wrong: np.ndarray, operator: str) -> None:
    """Refuse a mask with values that are wrong, such as one of 0 and −∞, which means the opposite of what it does."""
    if wrong.any():
        raise InputError(
            f"the mask holds {mask[wrong][0]:g}, but {operator} takes one that is nonzero where a result is wanted and "
            "zero elsewhere, not one that is added to scores; of such a mask pass `mask == 0`"
        )


def _matrix(values: Any, name: str, taken: str) -> np.ndarray:
    matrix = _real(values.toarray() if hasattr(values, "toarray") else values, name)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InputError(f"the {name} has shape {matrix.shape}; {taken} with elements")
    return matrix


def _real(values: Any, name: str) -> np.ndarray:
    """Values as float32, unless they are no real numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"the {name} has the type {array.dtype}; expected real numbers, which are taken as float32")
    return np.ascontiguousarray(array, dtype=np.float32)


def _check_size(name: str, value: Any) -> None:
    if not _is_size(value):
        raise InputError(f"{name}={value!r} was given; expected a number from 1")


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1
