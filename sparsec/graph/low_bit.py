"""Products of few bits in a graph: activations are taken apart into planes, which meet those of the weight.

``bit_planes(X; encoding, total)``
    ``X[b, k, m]`` as words of bits ``[b, bits, words, m]``, and the sums of the columns ``[b, m]`` where ``total`` is
    wanted.
``low_bit_product(planes, W, offset?, total?, scale?; rest, layout, weight_encoding, encoding, depth)``
    ``Y[b, i, m] = scale[i] · Σ_k W[i, k] · X[b, k, m]``, an integer without a scale. ``W`` holds words [rows, words],
    and ``rest`` names the operands after it.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.layer import Layer, structure
from sparsec.graph.patterned import PATTERNED, Patterned
from sparsec.graph.shape import Dim
from sparsec.graph.work import Work
from sparsec.ir.bit_planes import BitPlanes, Encoding, pack_words, unpack_words
from sparsec.ir.bit_planes import words as words_of
from sparsec.ir.kernel import Buffer, Load, call
from sparsec.ir.layout import Layout
from sparsec.ir.low_bit import LowBitProduct, differ
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import ROW, SUM
from sparsec.ir.stored import MIN_INDEX_BITS
from sparsec.schedules.rules.low_bit import lay_out_words, low_bit_seconds, schedule_bit_planes, schedule_low_bit
from sparsec.schedules.rules.prices import extent
from sparsec.targets import Target


def low_bit_product(
    graph: Graph,
    weight: np.ndarray,
    x: Value,
    encodings: tuple[Encoding, Encoding],
    target: Target,
    scale: np.ndarray | None = None,
    layout: Layout | None = None,
    before: Node | None = None,
) -> Value:
    """Add the product of a constant with activations, and return it.

    Parameters
    ----------
    weight : integers [rows, depth]
    x : uint8 or int8 [batch, depth, columns]
    encodings : of the weights, and of the activations
    scale : float32 [rows], what the sums of each row are multiplied by; without one the result is int32
    layout : of the words of the weight; chosen if not given
    """
    weight_encoding, encoding = encodings
    (rows, depth), (batch, _, columns) = weight.shape, x.shape
    words = pack_words(weight, weight_encoding)
    wants_total = bool(weight_encoding.zero) and not differ(*encodings)
    shapes = [(batch, encoding.bits, words_of(depth), columns), (batch, columns)][: 1 + wants_total]
    attrs = {"encoding": encoding, "total": wants_total}
    planes = graph.add_node("bit_planes", [x], [(shape, "int32") for shape in shapes], attrs, before=before)
    rest: dict[str, Value] = {}
    if encoding.zero and not differ(*encodings):
        sums = weight.sum(axis=1, dtype=np.int32) + depth * weight_encoding.zero
        rest["offset"] = graph.constant(np.int32(encoding.zero * sums), "offset")
    if wants_total:
        rest["total"] = planes.outputs[1]
    if scale is not None:
        rest["scale"] = graph.constant(scale, "scale")
    inputs = [planes.outputs[0], graph.constant(words, "weight"), *rest.values()]
    attrs = {"rest": tuple(rest), "weight_encoding": weight_encoding, "encoding": encoding, "depth": depth}
    kind = "int32" if scale is None else "float32"
    product = graph.add_node("low_bit_product", inputs, [((batch, rows, columns), kind)], attrs, before=before)
    product.attrs["layout"] = str(layout or lay_out_words(_product(product), words, target))
    return product.output


def price(node: Node, target: Target) -> float:
    """Return the seconds that a product takes on one core, with packing and with reading its results once more."""
    words = node.inputs[1].data
    assert words is not None
    return low_bit_seconds(_product(node).stored_as(parse_layout(node.attrs["layout"])), words, target)


def _matrix(node: Node) -> np.ndarray:
    """Return the weight of a ``low_bit_product``, integers [rows, depth]."""
    words = node.inputs[1].data
    assert words is not None
    return unpack_words(words, node.attrs["weight_encoding"], node.attrs["depth"])


def _describe(node: Node, work: Work, target: Target) -> Layer:
    """Describe a ``low_bit_product``; ``dense_seconds`` are those of a product of bytes, where the node has them."""
    op, matrix, words = _product(node), _matrix(node), node.inputs[1].data
    assert words is not None
    layout = parse_layout(node.attrs["layout"])
    nbytes = sum(array.nbytes for array in layout.pack(words, min_index_bits=MIN_INDEX_BITS).arrays.values())
    batch, columns = extent(op.y.shape[0]), extent(op.y.shape[2])
    seconds = price(node, target)
    planes, results = batch * columns * words_of(op.depth) * op.encoding.bits * 4, batch * columns * len(matrix) * 4
    return Layer(
        name=node.where,
        op="linear",
        shape=(len(matrix), op.depth),
        sparsity=1 - work.entries / matrix.size,
        structure=structure(matrix),
        layout=str(layout),
        nbytes=nbytes,
        dense_nbytes=words.nbytes,
        seconds=seconds,
        dense_seconds=node.attrs.get("dense_seconds", seconds),
        flops=work.assumed_flops,
        traffic=nbytes + planes + results,
        storage=str(op.weight_encoding),
        reads=str(op.encoding),
        writes=op.y.dtype,
    )


def _bit_planes(node: Node) -> Patterned:
    (x,), (planes, *totals), encoding = node.inputs, node.outputs, node.attrs["encoding"]
    batch, depth, columns = (_extent(*dim) for dim in zip(x.shape, ("batch", "depth", "columns"), strict=True))
    total = Buffer("total", "int32", (batch, columns)) if totals else None
    y = Buffer("Y", "int32", (batch, *planes.shape[1:3], columns))
    op = BitPlanes("bit_planes", Buffer("X", x.dtype, (batch, depth, columns)), y, encoding, total)
    named = {"X": x, "Y": planes, **({"total": totals[0]} if totals else {})}
    return Patterned(op, schedule_bit_planes, {}, {name: (value, value.shape) for name, value in named.items()})


def _low_bit_product(node: Node) -> Patterned:
    planes, weight, *rest = node.inputs
    assert weight.data is not None
    named = {"X": planes, "Y": node.output, **dict(zip(node.attrs["rest"], rest, strict=True))}
    op = _product(node).stored_as(parse_layout(node.attrs["layout"]))
    values = {name: (value, value.shape) for name, value in named.items()}
    layer = partial(_matrix, node), partial(_describe, node)
    return Patterned(op, schedule_low_bit, {"W": weight.data}, values, *layer)


def _product(node: Node) -> LowBitProduct:
    """Return the product of a node, its weight in no layout yet."""
    (planes, weight, *_), y, attrs = node.inputs, node.output, node.attrs
    batch, rows, columns = (_extent(*dim) for dim in zip(y.shape, ("batch", "rows", "columns"), strict=True))
    optional = {"offset": (rows,), "total": (batch, columns)}
    offset, total = (Buffer(n, "int32", shape) if n in attrs["rest"] else None for n, shape in optional.items())
    scaled = "scale" in attrs["rest"]
    return LowBitProduct(
        "low_bit",
        Buffer("W", "int32", weight.shape),
        Buffer("X", "int32", (batch, *planes.shape[1:3], columns)),
        Buffer("Y", y.dtype, (batch, rows, columns)),
        attrs["weight_encoding"],
        attrs["encoding"],
        attrs["depth"],
        offset,
        total,
        (Buffer("scale", "float32", (rows,)),) if scaled else (),
        call("float", SUM) * Load("scale", (ROW,)) if scaled else SUM,
    )


def _extent(dim: Dim, name: str) -> int | str:
    return dim if isinstance(dim, int) else name


PATTERNED |= {"bit_planes": _bit_planes, "low_bit_product": _low_bit_product}
