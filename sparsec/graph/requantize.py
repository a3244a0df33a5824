"""One factor in the place of the scales that a product is multiplied by and the one that its result is divided by."""

from __future__ import annotations

import numpy as np

from sparsec.graph.graph import Graph, Node, Value


def requantize(graph: Graph) -> None:
    """Take the division of a ``quantize`` into the factors and constants before it.

    Before:  `round(relu(float(sums) * scale + bias) / step)`
    After:   `round(relu(float(sums) * (scale / step) + bias / step))`

    Results are other integers only where the quotient is as close to the middle between two as float32 can tell, since
    it is rounded fewer times.
    """
    for node in list(graph.nodes):
        step = node.inputs[1].scalar if node.op == "divide" else 0.0
        if step > 0 and any(user.op == "round" for user in node.output.users):
            quotient = _divided(graph, node.inputs[0], step, node)
            if quotient is not None:
                graph.replace(node.output, quotient)
    graph.remove_dead()


def _divided(graph: Graph, x: Value, step: float, before: Node) -> Value | None:
    """x / step without a division; None where x is no affine function of sums, or is needed as it is.

    Quotients of stored integers are often in the middle exactly, so that these stay divisions.
    """
    if x.data is not None:
        return graph.constant((x.data.astype(np.float64) / step).astype(x.dtype), x.name)
    node = x.producer
    if node is None or len(x.users) > 1 or x in graph.outputs:
        return None
    if node.op == "multiply" and node.inputs[1].is_constant and _is_sum(node.inputs[0]):
        inputs: list[Value | None] = [node.inputs[0], _divided(graph, node.inputs[1], step, before)]
    elif node.op in _HOMOGENEOUS:
        inputs = [_divided(graph, value, step, before) for value in node.inputs]
    else:
        return None
    divided = [value for value in inputs if value is not None]
    if len(divided) < len(inputs):
        return None
    limits = {name: float(np.float32(limit / step)) for name, limit in node.attrs.items()}  # those of a clip
    return graph.add(node.op, divided, x.shape, limits, before=before, name=x.name)


_HOMOGENEOUS = {"add", "clip", "maximum", "minimum", "nn.relu", "subtract"}
"""f(x, y) / s = f(x / s, y / s) for every positive s, attributes that are limits divided too."""


def _is_sum(x: Value) -> bool:
    """Whether a value is sums of integers as floats."""
    return x.producer is not None and x.producer.op == "astype" and x.producer.inputs[0].dtype == "int32"
