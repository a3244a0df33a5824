"""Layers of quantised models as products of integers.

Where a layer reads ``sx · (x − zx)`` and its constant weight is ``sw · (w − zw)``, with sw for each output::

    y[i] = Σ sx · (x − zx) · sw[i] · w[i]   =   sx · sw[i] · (Σ x · w[i]  −  zx · Σ w[i])

The sums are of integers, and exact; what follows is elementwise, and joins what the model does next, up to the
``quantize`` for the next layer, in the epilogue of the product (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 2.3). Around an image stands zx, the integer
that means zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.quantized import Quantized, cast, dequantized, flipped, gather_integers, spell_out
from sparsec.graph.requantize import requantize
from sparsec.ir.types import BYTES
from sparsec.targets import Target

EXACT = 2**31 - 1
"""No sum may be larger, since sums are int32."""

SAME_SCALE = 1e-5
"""A bias has the scale of the sums if it differs by no more than this part, since exporters round the product."""


@dataclass(frozen=True)
class _Weight:
    """A constant weight as integers without a zero.

    Parameters
    ----------
    data : int8, as the layer takes it
    scale : float32, one, or one for each output
    sums, reach : Σ w and Σ |w| of each output, int64
    column : the shape in which a number for each output meets the results
    """

    data: np.ndarray
    scale: np.ndarray
    sums: np.ndarray
    reach: np.ndarray
    column: tuple[int, ...]


def integer_layers(graph: Graph, target: Target) -> None:
    """Let layers of a quantised model, as it was imported, add up integers, and write the rest in floats.

    Weights and activations that are no integers of 8 bits, and products of two activations, are computed in floats.
    """
    if not any(node.op in ("dequantize", "quantize") for node in graph.nodes):
        return
    gather_integers(graph, target.activations)
    for node in list(graph.nodes):
        if node.op in _OUTPUTS and len(node.inputs) == 2:
            _layer(graph, node, target)
    spell_out(graph)
    requantize(graph)
    graph.verify()


def _layer(graph: Graph, node: Node, target: Target) -> None:
    operands = [dequantized(value) for value in node.inputs]
    place = next((n for n, each in enumerate(operands) if each is not None and each.q.is_constant), None)
    if place is None or operands[1 - place] is None or not _is_plain(node, place):
        return
    x, weight = operands[1 - place], _integers(operands[place], *_OUTPUTS[node.op][place])  # type: ignore[arg-type]
    assert x is not None
    if weight is None or not x.is_uniform or x.q.dtype not in BYTES or x.q.is_constant:
        return
    padded = any(node.attrs.get("padding", ()))
    if x.zero.data is None and (padded or x.q.dtype != target.activations):
        return  # an unknown zero cannot stand around an image
    if x.q.dtype != target.activations:
        x = flipped(graph, x, node)
    largest = 255 if x.q.dtype == "uint8" else 128
    if (2 * largest * weight.reach).max(initial=0) > EXACT:
        return
    total = _sums(graph, node, x, weight, place)
    scale = _scale(graph, x, weight, node)
    old, total = _add_bias(graph, node.output, total, scale, weight, node)
    shape = node.output.shape
    result = cast(graph, total, "float32", node)
    if scale.is_all(1):  # the integers themselves were asked for
        for user in [user for user in old.users if user.op == "astype" and user.output.dtype == "int32"]:
            graph.replace(user.output, total)
    else:
        result = graph.add("multiply", [result, scale], shape, before=node)
    graph.replace(old, cast(graph, result, old.dtype, node))


def _is_plain(node: Node, place: int) -> bool:
    if node.op == "matmul":
        return node.inputs[1 - place].rank > 1
    layouts = (node.attrs.get("data_layout"), node.attrs.get("kernel_layout"))
    return place == 1 and layouts in (("NCHW", "OIHW"), ("NCW", "OIW"))


def _integers(weight: Quantized, outputs: int, column: tuple[int, ...]) -> _Weight | None:
    """A constant weight with the axis `outputs`; None where int8 cannot hold it, or other axes have scales."""
    q, scale, zero = weight.q.data, weight.scale.data, weight.zero.data
    if q is None or scale is None or zero is None or q.ndim < 2 or q.dtype.name not in BYTES:
        return None
    outputs %= q.ndim
    if len(column) < q.ndim and any(extent != 1 for extent in q.shape[:-2]):
        return None  # a matrix for each batch
    if not weight.is_uniform and weight.axis % q.ndim != outputs:
        return None
    along = [-1 if axis == outputs else 1 for axis in range(q.ndim)]
    data = q.astype(np.int32) - zero.astype(np.int32).reshape(along if zero.size > 1 else ())
    if data.size and (data.min() < -128 or data.max() > 127):
        return None
    others = tuple(axis for axis in range(q.ndim) if axis != outputs)
    sums, reach = (part.sum(axis=others, dtype=np.int64) for part in (data, np.abs(data)))
    return _Weight(data.astype(np.int8), scale.astype(np.float32).reshape(-1), sums, reach, column)


def _sums(graph: Graph, node: Node, x: Quantized, weight: _Weight, place: int) -> Value:
    """Σ (x − zx) · w, int32."""
    blank = 0 if x.zero.data is None else int(x.zero.data.item())
    attrs = node.attrs | {"out_dtype": "int32"} | ({} if node.op == "matmul" else {"blank": blank})
    name = node.inputs[place].name
    inputs = [x.q, graph.constant(weight.data, name)] if place else [graph.constant(weight.data, name), x.q]
    shape, y = node.output.shape, node.output.name
    total = graph.add(node.op, inputs, shape, attrs, dtype="int32", before=node, name=y)
    if x.zero.data is not None:
        return _add(graph, total, -blank * weight.sums, weight, node)
    zero = graph.add("reshape", [cast(graph, x.zero, "int32", node)], (), {"shape": ()}, before=node)
    sums = graph.constant(weight.sums.astype(np.int32).reshape(weight.column), "sums")
    shift = graph.add("multiply", [sums, zero], sums.shape, before=node)
    return graph.add("subtract", [total, shift], shape, before=node)


def _scale(graph: Graph, x: Quantized, weight: _Weight, before: Node) -> Value:
    """What a unit of the sums is worth."""
    own = graph.constant(weight.scale.reshape(weight.column if weight.scale.size > 1 else ()), "scale")
    if x.scale.data is not None:
        assert own.data is not None
        return graph.constant(x.scale.data.astype(np.float32).reshape(()) * own.data, "scale")
    factor = graph.add("reshape", [cast(graph, x.scale, "float32", before)], (), {"shape": ()}, before=before)
    return graph.add("multiply", [own, factor], own.shape, before=before)


def _add_bias(graph: Graph, y: Value, total: Value, scale: Value, weight: _Weight, before: Node) -> tuple[Value, Value]:
    """The result that the sums stand for, with the bias behind y if that is integers of their scale, and the sums."""
    user = y.users[0] if len(y.users) == 1 and y not in graph.outputs else None
    if user is None or user.op != "add" or scale.data is None:
        return y, total
    bias = dequantized(next((value for value in user.inputs if value is not y), y))
    if bias is None or bias.q.data is None or bias.scale.data is None or bias.q.dtype != "int32":
        return y, total
    if bias.zero.data is None or bias.zero.data.any() or bias.q.data.size != weight.sums.size:
        return y, total
    column = weight.sums.reshape(weight.column).shape
    if column[-bias.q.rank :] != bias.q.data.shape[-len(column) :]:
        return y, total
    if not np.allclose(bias.scale.data.reshape(-1), scale.data.reshape(-1), rtol=SAME_SCALE, atol=0):
        return y, total
    return user.output, _add(graph, total, bias.q.data.reshape(-1).astype(np.int64), weight, before)


def _add(graph: Graph, total: Value, shift: np.ndarray, weight: _Weight, before: Node) -> Value:
    """The sums with a constant for each output, which is joined with one that was added before."""
    last = total.producer
    if last is not None and last.op == "add" and last.inputs[1].data is not None:
        total, shift = last.inputs[0], shift + last.inputs[1].data.reshape(-1)
    if not shift.any():
        return total
    shift = np.clip(shift, -EXACT, EXACT).astype(np.int32)
    return graph.add("add", [total, graph.constant(shift.reshape(weight.column), "shift")], total.shape, before=before)


_OUTPUTS: dict[str, dict[int, tuple[int, tuple[int, ...]]]] = {
    "matmul": {0: (-2, (-1, 1)), 1: (-1, (-1,))},
    "nn.conv1d": {1: (0, (1, -1, 1))},
    "nn.conv2d": {1: (0, (1, -1, 1, 1))},
}
"""By operator and place of the weight: its axis of outputs, and how a number for each of these meets the results."""
