"""Compute in float32 what is stored in half precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.ir.types import HALVES

MOVES = frozenset({
    "astype", "broadcast_to", "concat", "expand_dims", "flip", "gather_elements", "permute_dims", "repeat", "reshape",
    "split", "squeeze", "strided_slice", "take", "tile",
})  # fmt: skip
"""Operators that compute nothing, so that they may as well move halves."""


def widen(nodes: Sequence[Node], parameters: Sequence[Value], outputs: Sequence[Value]) -> tuple[Node, ...]:
    """Return the nodes of a group with arithmetic in float32 in place of half precision, as kernels of products have.

    Before:  `y: bfloat16 = nn.relu(x: bfloat16)`
    After:   `a: float32 = astype(x); b: float32 = nn.relu(a); y: bfloat16 = astype(b)`

    Processors compute in float32 as fast, results are rounded once, and TVM has loops and vector functions for it.

    Parameters
    ----------
    nodes : in topological order; they stay as they are
    parameters : what the nodes read from memory; constants that are not among them are written into the code
    outputs : results that others read, which the nodes that are returned compute too
    """
    values = {value for node in nodes for value in (*node.inputs, *node.outputs)}
    fixed = any(node.op == "call_tir" for node in nodes)
    if fixed or all(node.op in MOVES for node in nodes) or not any(value.dtype in HALVES for value in values):
        return tuple(nodes)
    made: list[Node] = []
    wide: dict[Value, Value] = {}

    def read(value: Value) -> Value:
        if value.dtype not in HALVES:
            return wide.get(value, value)
        if value not in wide:
            wide[value] = _like(value)
            if value.data is not None and value not in parameters:
                wide[value].data = value.data.astype(np.float32)
            else:
                made.append(Node("astype", [value], [wide[value]], {"dtype": "float32"}))
        return wide[value]

    for node in nodes:
        inputs = [read(value) for value in node.inputs]
        wide |= {value: _like(value) for value in node.outputs if value.dtype in HALVES}
        attrs = {name: "float32" if attr in HALVES else attr for name, attr in node.attrs.items() if name in _TYPES}
        results = [wide.get(value, value) for value in node.outputs]
        made.append(Node(node.op, inputs, results, node.attrs | attrs, node.where))
    for value in outputs:
        if value in wide:
            made.append(Node("astype", [wide[value]], [value], {"dtype": value.dtype}))
    return tuple(made)


_TYPES = ("dtype", "out_dtype")


def _like(value: Value) -> Value:
    return Value(value.name, value.shape, "float32")
