"""How groups without a product compute with half precision: in float32, or as bits where they only move elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.ir.types import HALVES

MOVES = frozenset({
    "broadcast_to", "concat", "expand_dims", "flip", "gather_elements", "permute_dims", "repeat", "reshape", "split",
    "squeeze", "strided_slice", "take", "tile",
})  # fmt: skip
"""Operators that compute nothing."""


@dataclass(frozen=True, eq=False)
class Body:
    """The nodes of a group, in topological order, what they read from memory and what others read of them."""

    nodes: tuple[Node, ...]
    parameters: tuple[Value, ...]
    outputs: tuple[Value, ...]


def widen(body: Body) -> Body:
    """Return a body that means the same on the same bytes, without arithmetic in half precision.

    Before:  `y: bfloat16 = nn.relu(x: bfloat16)`
    After:   `a: float32 = astype(x); b: float32 = nn.relu(a); y: bfloat16 = astype(b)`

    Processors compute in float32 as fast, results are rounded once, as those of products are, and TVM has loops and
    vector functions for it. What only moves elements of bfloat16 takes them as uint16.
    """
    types = {value.dtype for node in body.nodes for value in (*node.inputs, *node.outputs)}
    if types.isdisjoint(HALVES) or any(node.op == "call_tir" for node in body.nodes):
        return body
    if all(node.op in MOVES for node in body.nodes):
        return _as_bits(body) if "bfloat16" in types else body
    return _in_float32(body)


def _in_float32(body: Body) -> Body:
    made: list[Node] = []
    wide: dict[Value, Value] = {}

    def read(value: Value) -> Value:
        if value.dtype not in HALVES:
            return value
        if value not in wide:
            wide[value] = Value(value.name, value.shape, "float32")
            if value.data is not None and value not in body.parameters:  # written into the code
                wide[value].data = value.data.astype(np.float32)
            else:
                made.append(Node("astype", [value], [wide[value]], {"dtype": "float32"}))
        return wide[value]

    for node in body.nodes:
        inputs = [read(value) for value in node.inputs]
        wide |= {v: Value(v.name, v.shape, "float32") for v in node.outputs if v.dtype in HALVES}
        types = {name: "float32" for name in ("dtype", "out_dtype") if node.attrs.get(name) in HALVES}
        made.append(Node(node.op, inputs, [wide.get(v, v) for v in node.outputs], node.attrs | types, node.where))
    made += [Node("astype", [wide[v]], [v], {"dtype": v.dtype}) for v in body.outputs if v in wide]
    return Body(tuple(made), body.parameters, body.outputs)


def _as_bits(body: Body) -> Body:
    bits: dict[Value, Value] = {}

    def of(values: Sequence[Value]) -> tuple[Value, ...]:
        for value in values:
            if value not in bits:
                whole = value.dtype != "bfloat16"
                data = value.data if whole or value.data is None else value.data.view(np.uint16)
                bits[value] = value if whole else Value(value.name, value.shape, "uint16", data)
        return tuple(bits[value] for value in values)

    nodes = tuple(Node(n.op, list(of(n.inputs)), list(of(n.outputs)), n.attrs, n.where) for n in body.nodes)
    return Body(nodes, of(body.parameters), of(body.outputs))
