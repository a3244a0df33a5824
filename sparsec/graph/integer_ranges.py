"""Between which numbers the integers of a value lie, whatever the input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.graph.quantized import MOVES
from sparsec.ir.types import is_float

Range = tuple[float, float]


def range_of(value: Value) -> Range:
    """Return the least and the greatest number that a value can hold; infinite where that is not known."""
    if value.data is not None:
        return (float(value.data.min()), float(value.data.max())) if value.data.size else (0.0, 0.0)
    low, high = _made(value.producer) if value.producer is not None else (-math.inf, math.inf)
    least, most = _of_type(value.dtype)
    if low < least or high > most:  # what does not fit may have wrapped around
        return least, most
    return low, high


def _of_type(dtype: str) -> Range:
    if is_float(dtype):
        return -math.inf, math.inf
    if dtype == "bool":
        return 0.0, 1.0
    limits = np.iinfo(dtype)
    return float(limits.min), float(limits.max)


def _made(node: Node) -> Range:
    if node.op in MOVES or node.op == "concat":
        inputs = node.inputs if node.op == "concat" else node.inputs[:1]
        lows, highs = zip(*map(range_of, inputs), strict=True)
        return min(lows), max(highs)
    return _RULES[node.op](node) if node.op in _RULES else (-math.inf, math.inf)


def _clip(node: Node) -> Range:
    low, high = range_of(node.inputs[0])
    least, most = float(node.attrs["min"]), float(node.attrs["max"])
    return min(max(low, least), most), max(min(high, most), least)


def _pairwise(combine: Callable[[float, float], float]) -> Callable[[Node], Range]:
    """Return the rule of an operator that grows with both of its operands."""

    def rule(node: Node) -> Range:
        (a, b), (c, d) = map(range_of, node.inputs)
        return combine(a, c), combine(b, d)

    return rule


_RULES: dict[str, Callable[[Node], Range]] = {
    "add": _pairwise(lambda a, b: a + b),
    "astype": lambda node: range_of(node.inputs[0]),
    "clip": _clip,
    "maximum": _pairwise(max),
    "minimum": _pairwise(min),
    "nn.relu": lambda node: (max(range_of(node.inputs[0])[0], 0.0), max(range_of(node.inputs[0])[1], 0.0)),
    "round": lambda node: range_of(node.inputs[0]),
}
