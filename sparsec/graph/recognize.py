"""Rewrite the many ways to write a layer to one canonical operator.

After :func:`recognize` these stand for all their spellings (operands in order, attributes by name):

``linear(x, W)``
    ``y[..., n] = Σ_k x[..., k] · W[n, k]`` with a constant ``W``; a bias is an ``add`` behind it.
``matmul(a, b)``
    A product of two activations, as in attention; with a constant matrix for each batch it is ``linear`` as well.
``conv2d(x, W; strides, padding, dilation, groups, blank)``
    NCHW and OIHW, ``padding`` as (top, left, bottom, right); dense, grouped, depthwise, and 1-D with a height of one.
    Transposed ones are rewritten to it, see :mod:`sparsec.graph.transposed_convolutions`.
    Around the image stands ``blank``, which is 0 except where integers are convolved. A bias is an ``add`` of a
    constant ``[1, C, 1, 1]`` behind it.
``nn.layer_norm(x, gamma, beta; axes, epsilon)``, ``nn.softmax(x; axis)``, ``nn.gelu(x)``
    Each also where the model spells it out.
"""

import math

import numpy as np

from sparsec.graph.batched_layers import batched_linear
from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.merge_duplicates import merge_duplicates
from sparsec.graph.shape import Dim, broadcast, is_one, same_shape
from sparsec.graph.simplify import permute, reshape
from sparsec.graph.transposed_convolutions import transposed_convolution
from sparsec.ir.types import is_float


def recognize(graph: Graph) -> None:
    """Rewrite to the canonical operators above."""
    for rules in (_SPELLED_OUT, _LAYERS):
        for node in list(graph.nodes):
            rule = rules.get(node.op)
            replacement = rule(graph, node) if rule else None
            if replacement is not None:
                graph.replace(node.outputs[0], replacement)
        merge_duplicates(graph)


# Products


def _matmul(graph: Graph, node: Node) -> Value | None:
    """A product with a constant matrix on either side is a linear layer."""
    left, right = node.inputs
    if right.is_constant and _is_matrix(right):
        rows = (1, *left.shape) if left.rank == 1 else left.shape
        result = _linear(graph, reshape(graph, left, rows, node), _weight(graph, right, transposed=True), node)
        return reshape(graph, result, node.output.shape, node)
    if left.is_constant and _is_matrix(left) and not right.is_constant:
        if right.rank == 1:
            x = reshape(graph, right, (1, *right.shape), node)
            return reshape(graph, _linear(graph, x, _weight(graph, left), node), node.output.shape, node)
        swap = (*range(right.rank - 2), right.rank - 1, right.rank - 2)
        result = _linear(graph, permute(graph, right, swap, node), _weight(graph, left), node)
        return permute(graph, result, swap, node)
    return _vector_product(graph, node) if min(left.rank, right.rank) == 1 else batched_linear(graph, node)


def _vector_product(graph: Graph, node: Node) -> Value:
    """A product with a vector is one with a matrix of one row or column."""
    left, right = node.inputs
    a = reshape(graph, left, (1, *left.shape), node) if left.rank == 1 else left
    b = reshape(graph, right, (*right.shape, 1), node) if right.rank == 1 else right
    shape = (*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    result = graph.add("matmul", [a, b], shape, node.attrs, dtype=node.output.dtype, before=node)
    return reshape(graph, result, node.output.shape, node)


def _is_matrix(value: Value) -> bool:
    return value.rank >= 2 and all(map(is_one, value.shape[:-2]))


def _linear(graph: Graph, x: Value, weight: Value, before: Node) -> Value:
    shape = (*x.shape[:-1], weight.shape[0])
    return graph.add("linear", [x, weight], shape, dtype=before.output.dtype, before=before, name=before.output.name)


def _weight(graph: Graph, value: Value, transposed: bool = False) -> Value:
    """The constant as a contiguous matrix [outputs, inputs]; a transpose of a transpose shares its array."""
    assert value.data is not None
    matrix = value.data.reshape(value.data.shape[-2:])
    return graph.constant(np.ascontiguousarray(matrix.T if transposed else matrix), value.name)


def _attention(graph: Graph, node: Node) -> Value:
    """Relax's fused attention over [batch, tokens, heads, size], written out."""
    query, key, value = (permute(graph, v, (0, 2, 1, 3), node) for v in node.inputs[:3])
    batch, heads, rows, size = query.shape
    columns, dtype = key.shape[2], query.dtype
    scale = node.attrs.get("scale")
    scale = 1 / math.sqrt(size) if scale is None else scale
    shape = (batch, heads, rows, columns)
    product = {"out_dtype": None}
    scores = graph.add("matmul", [query, permute(graph, key, (0, 1, 3, 2), node)], shape, product, before=node)
    scores = graph.add("multiply", [scores, graph.constant(np.array(scale, dtype))], shape, before=node)
    if len(node.inputs) > 3:
        scores = graph.add("add", [scores, node.inputs[3]], shape, before=node)
    if node.attrs.get("causal_mask") is not None:
        shift = columns - rows if node.attrs["causal_mask"] == "BottomRight" else 0
        scores = _mask_future(graph, scores, shift, node)
    weights = graph.add("nn.softmax", [scores], shape, {"axis": -1}, before=node)
    mixed = graph.add("matmul", [weights, value], (batch, heads, rows, value.shape[3]), product, before=node)
    return permute(graph, mixed, (0, 2, 1, 3), node)


def _mask_future(graph: Graph, scores: Value, shift: Dim, before: Node) -> Value:
    """Scores[i, j] where j ≤ i + shift, −∞ elsewhere."""
    rows, columns = scores.shape[-2:]

    def count(start: Dim, extent: Dim) -> Value:
        attrs = {"start": start, "end": start + extent, "step": 1, "dtype": "int64"}
        return graph.add("arange", [], (extent,), attrs, dtype="int64", before=before)

    row, column = reshape(graph, count(shift, rows), (rows, 1), before), count(0, columns)
    allowed = graph.add("less_equal", [column, row], (rows, columns), dtype="bool", before=before)
    lowest = graph.constant(np.array(-np.inf, scores.dtype))
    return graph.add("where", [allowed, scores, lowest], scores.shape, dtype=scores.dtype, before=before)


# Convolutions


def _conv2d(graph: Graph, node: Node) -> Value | None:
    attrs = node.attrs
    if attrs.get("data_layout", "NCHW") != "NCHW" or attrs.get("kernel_layout", "OIHW") != "OIHW":
        return None
    x, weight = node.inputs
    return _convolve(graph, node, x, weight, attrs["strides"], attrs["padding"], attrs["dilation"])


def _conv1d(graph: Graph, node: Node) -> Value | None:
    """A convolution of images of height one."""
    attrs = node.attrs
    if attrs.get("data_layout", "NCW") != "NCW" or attrs.get("kernel_layout", "OIW") != "OIW":
        return None
    x, weight = (reshape(graph, v, (*v.shape[:2], 1, v.shape[2]), node) for v in node.inputs)
    left, right = attrs["padding"][0], attrs["padding"][-1]
    result = _convolve(graph, node, x, weight, (1, *attrs["strides"]), (0, left, 0, right), (1, *attrs["dilation"]))
    return reshape(graph, result, node.output.shape, node)


def _convolve(
    graph: Graph, node: Node, x: Value, weight: Value, strides: tuple, padding: tuple, dilation: tuple
) -> Value:
    shape = node.output.shape if node.output.rank == 4 else (*node.output.shape[:2], 1, node.output.shape[2])
    padding = padding if len(padding) == 4 else (*padding, *padding)
    attrs = {"strides": strides, "padding": padding, "dilation": dilation, "groups": node.attrs["groups"]}
    attrs["blank"] = node.attrs.get("blank", 0)
    return graph.add("conv2d", [x, weight], shape, attrs, dtype=node.output.dtype, before=node, name=node.output.name)


def _batch_norm(graph: Graph, node: Node) -> Value | None:
    """As for images of height one, so that it meets the convolution that becomes one."""
    x, *parameters = node.inputs
    if x.rank != 3 or node.attrs["axis"] % 3 != 1 or any(v.users for v in node.outputs[1:]):
        return None
    image = reshape(graph, x, (*x.shape[:2], 1, x.shape[2]), node)
    types = [(image.shape, x.dtype), *((v.shape, v.dtype) for v in node.outputs[1:])]
    norm = graph.add_node(node.op, [image, *parameters], types, {**node.attrs, "axis": 1}, before=node)
    return reshape(graph, norm.outputs[0], x.shape, node)


# Operators that the model spells out


def _softmax(graph: Graph, node: Node) -> Value | None:
    """exp(x − max x) / Σ exp(x − max x)."""
    top, total = node.inputs
    exp, reduction = _made_by(top, "exp"), _made_by(total, "sum")
    if exp is None or reduction is None or reduction.inputs[0] is not top or not reduction.attrs["keepdims"]:
        return None
    axes = reduction.attrs["axis"]
    shifted = _made_by(exp.inputs[0], "subtract")
    largest = shifted and _made_by(shifted.inputs[1], "max")
    if axes is None or len(axes) != 1 or not shifted or not largest or largest.inputs[0] is not shifted.inputs[0]:
        return None
    if largest.attrs["axis"] != axes or not largest.attrs["keepdims"]:
        return None
    return graph.add("nn.softmax", [shifted.inputs[0]], node.output.shape, {"axis": axes[0]}, before=node)


def _safe_softmax(graph: Graph, node: Node) -> Value | None:
    """PyTorch's softmax that is zero, not NaN, where a whole row is −∞: where(not any(x ≠ −∞), 0, softmax x).

    Where no row of x can be −∞ it is a softmax; else the row's maximum tells, which is one reduction in place of five
    passes over x.
    """
    dead, zero, weights = node.inputs
    softmax, nobody = _made_by(weights, "nn.softmax"), _made_by(dead, "logical_not")
    alive = nobody and _made_by(_uncast(nobody.inputs[0]), "max")
    finite = alive and _made_by(_uncast(alive.inputs[0]), "logical_not")
    test = finite and _made_by(finite.inputs[0], "equal")
    if not softmax or not alive or not test or zero.scalar != 0 or not alive.attrs["keepdims"]:
        return None
    x, axis = softmax.inputs[0], softmax.attrs["axis"] % weights.rank
    if test.inputs[0] is not x or test.inputs[1].scalar != -math.inf or _axes(alive) != (axis,):
        return None
    if not _may_be_masked(x):
        return weights
    attrs = {"axis": (axis,), "keepdims": True}
    largest = graph.add("max", [x], alive.outputs[0].shape, attrs, before=node)
    is_dead = graph.add("equal", [largest, test.inputs[1]], largest.shape, dtype="bool", before=node)
    return graph.add("where", [is_dead, zero, weights], node.output.shape, dtype=node.output.dtype, before=node)


def _uncast(value: Value) -> Value:
    node = _made_by(value, "astype")
    return value if node is None else _uncast(node.inputs[0])


def _axes(reduction: Node) -> tuple[int, ...]:
    return tuple(axis % reduction.inputs[0].rank for axis in reduction.attrs["axis"] or ())


def _may_be_masked(value: Value) -> bool:
    """Whether −∞ can come into a tensor other than by overflow."""
    if value.data is not None:
        return bool(np.isneginf(value.data).any())
    if value.producer is None or value.producer.op not in ELEMENTWISE:
        return value.producer is None or value.producer.op not in ("matmul", "linear")
    return any(_may_be_masked(v) for v in value.producer.inputs if is_float(v.dtype))


def _divide(graph: Graph, node: Node) -> Value | None:
    return _softmax(graph, node) or _normalized(graph, node)


def _normalized(graph: Graph, node: Node) -> Value | None:
    """(x − mean x) / √(mean (x − mean x)² + ε), as a quotient or as a product with the inverse root."""
    for centred, scale in (node.inputs, node.inputs[::-1]):
        root = _made_by(scale, "sqrt" if node.op == "divide" else "rsqrt")
        found = root and _match_variance(root.inputs[0], centred)
        if found:
            x, axes, epsilon = found
            sizes = x.shape[x.rank - len(axes) :]
            if not all(isinstance(d, int) for d in sizes):
                return None
            gamma, beta = graph.constant(np.ones(sizes, x.dtype)), graph.constant(np.zeros(sizes, x.dtype))
            attrs = {"axes": axes, "epsilon": epsilon, "center": True, "scale": True}
            return graph.add("nn.layer_norm", [x, gamma, beta], x.shape, attrs, before=node)
        if node.op == "divide":
            return None
    return None


def _match_variance(value: Value, centred: Value) -> tuple[Value, tuple[int, ...], float] | None:
    """The x, axes and ε for which centred is x − mean x and value is mean (x − mean x)² + ε."""
    difference, total = _made_by(centred, "subtract"), _made_by(value, "add")
    if difference is None or total is None:
        return None
    x, mean = difference.inputs[0], _made_by(difference.inputs[1], "mean")
    variance, epsilon = total.inputs if total.inputs[1].is_constant else total.inputs[::-1]
    if mean is None or mean.inputs[0] is not x or epsilon.data is None or epsilon.data.size != 1:
        return None
    power = _made_by(variance, "mean")
    is_variance = power is not None and _is_square_of(power.inputs[0], centred)
    if power is None:
        power = _made_by(variance, "variance")
        is_variance = power is not None and power.inputs[0] is x
    axes = _trailing_axes(mean, x.rank)
    if not is_variance or power is None or axes is None or axes != _trailing_axes(power, x.rank):
        return None
    return x, axes, float(epsilon.data.reshape(()))


def _trailing_axes(reduction: Node, rank: int) -> tuple[int, ...] | None:
    """The reduced axes, counted from the end, where they are the last ones and are kept with size one."""
    axes = reduction.attrs["axis"]
    if axes is None or not reduction.attrs["keepdims"]:
        return None
    found = tuple(sorted(axis % rank - rank for axis in axes))
    return found if found == tuple(range(-len(found), 0)) else None


def _is_square_of(value: Value, base: Value) -> bool:
    node = value.producer
    if node is None or node.inputs[:1] != [base]:
        return False
    if node.op == "power":
        exponent = node.inputs[1].data
        return exponent is not None and exponent.size == 1 and exponent.reshape(()) == 2
    return node.op == "square" or (node.op == "multiply" and node.inputs[1] is base)


def _affine(graph: Graph, node: Node) -> Value | None:
    """A scale or shift behind a layer norm whose own is still the identity."""
    parameter = 1 if node.op == "multiply" else 2
    for value, constant in (node.inputs, node.inputs[::-1]):
        norm = _made_by(value, "nn.layer_norm")
        if norm is None or constant.data is None or len(value.users) > 1 or value in graph.outputs:
            continue
        gamma, beta = norm.inputs[1], norm.inputs[2]
        is_free = beta.is_all(0) and (parameter == 2 or gamma.is_all(1))
        rank = gamma.rank
        fits = all(map(is_one, constant.shape[:-rank])) and same_shape(constant.shape[-rank:], gamma.shape)
        if is_free and fits:
            inputs = list(norm.inputs)
            inputs[parameter] = graph.constant(constant.data.reshape(gamma.shape), constant.name)
            return graph.add("nn.layer_norm", inputs, value.shape, norm.attrs, before=node)
    return None


def _multiply(graph: Graph, node: Node) -> Value | None:
    return _normalized(graph, node) or _gelu(graph, node) or _affine(graph, node)


def _gelu(graph: Graph, node: Node) -> Value | None:
    """x · (1 + erf(x / √2)) · ½, with its factors in any order."""
    factors, scale = _factors(node.output), 1.0
    terms = [f for f in factors if not f.is_constant]
    for factor in factors:
        scale *= factor.scalar if factor.is_constant else 1
    if len(terms) != 2 or not math.isclose(scale, 0.5):
        return None
    for x, term in (terms, terms[::-1]):
        if _is_one_plus_erf(term, x):
            return graph.add("nn.gelu", [x], node.output.shape, before=node)
    return None


def _factors(value: Value) -> list[Value]:
    node = _made_by(value, "multiply")
    return [value] if node is None else [f for v in node.inputs for f in _factors(v)]


def _is_one_plus_erf(value: Value, x: Value) -> bool:
    total = _made_by(value, "add")
    if total is None:
        return False
    for curve, one in (total.inputs, total.inputs[::-1]):
        erf = _made_by(curve, "erf")
        if erf is not None and one.scalar == 1:
            inner = erf.inputs[0].producer
            if inner is not None and inner.op in ("divide", "multiply") and inner.inputs[0] is x:
                expected = math.sqrt(2) if inner.op == "divide" else math.sqrt(0.5)
                return math.isclose(inner.inputs[1].scalar, expected, rel_tol=1e-6)
    return False


def _made_by(value: Value, op: str) -> Node | None:
    return value.producer if value.producer is not None and value.producer.op == op else None


_SPELLED_OUT = {
    "divide": _divide,
    "multiply": _multiply,
    "add": _affine,
    "nn.attention": _attention,
    "where": _safe_softmax,
}
_LAYERS = {
    "matmul": _matmul,
    "nn.batch_norm": _batch_norm,
    "nn.conv1d": _conv1d,
    "nn.conv1d_transpose": transposed_convolution,
    "nn.conv2d": _conv2d,
    "nn.conv2d_transpose": transposed_convolution,
}
