"""Recognise attention under a constant mask, and compute what the mask keeps and nothing else.

    softmax(scale · Q Kᵀ + mask) V,  softmax(where(mask, scale · Q Kᵀ, −∞)) V

The mask is a constant of the model that is the same for all heads and samples, such as the windows and the global
tokens of Longformer (Beltagy, Peters and Cohan, 2020) and BigBird (Zaheer et al., 2020). It is followed where that is
cheaper than to compute all scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.masked_attention import masked_attention
from sparsec.graph.shape import same_shape
from sparsec.graph.simplify import permute
from sparsec.schedules.rules.masked_attention import price_attention, price_dense
from sparsec.targets import Target

NEGLIGIBLE = -1e4
"""A score that a mask lowers by so much or more has the weight zero; models write −10⁴, the lowest float or −∞."""

WORTH = 0.9
"""The part of the price of all scores that the price of those that are kept must stay below."""


def recognize_masked_attention(graph: Graph, target: Target) -> None:
    """Rewrite attention under constant masks to `masked_attention`."""
    for node in list(graph.nodes):
        found = _find(graph, node) if node.op == "matmul" else None
        if found is None:
            continue
        rows, keys = found.mask.shape
        size = found.query.shape[-1]
        assert isinstance(size, int)
        price = price_attention(found.mask, size, target)[0]
        if price.cycles < WORTH * price_dense((rows, keys), size, target):
            result = masked_attention(
                graph,
                found.query,
                found.key,
                found.value,
                found.mask,
                price.layout,
                scale=found.scale,
                empty=found.empty,
                blocks=(price.rows, price.columns),
                before=node,
            )
            graph.replace(node.output, result)
    graph.remove_dead()
    graph.verify()


@dataclass(frozen=True)
class _Attention:
    """The operands ``[.., rows or keys, size]``, the mask, bool [rows, keys], and what a row is that sees no key."""

    query: Value
    key: Value
    value: Value
    mask: np.ndarray
    scale: float
    empty: float


def _find(graph: Graph, node: Node) -> _Attention | None:
    weights, value = node.inputs
    softmax, empty = _softmax(weights)
    if softmax is None or not _is_private(graph, softmax) or value.is_constant:
        return None
    scores = _Scores(softmax.inputs[0])
    if scores.product is None or scores.kept is None:
        return None
    query, key = scores.product.inputs
    known = all(isinstance(dim, int) for operand in (query, key, value) for dim in operand.shape[-2:])
    leading = query.shape[:-2]
    if not known or not (same_shape(leading, key.shape[:-2]) and same_shape(leading, value.shape[:-2])):
        return None
    if 0 in query.shape or query.dtype != "float32":
        return None
    unseen = ~scores.kept.any(axis=1)
    if scores.finite[unseen].any():
        return None  # the lowered scores of such a row still differ
    swap = (*range(key.rank - 2), key.rank - 1, key.rank - 2)
    return _Attention(query, permute(graph, key, swap, scores.product), value, scores.kept, scores.scale, empty)


class _Scores:
    """What is done to a product of activations before its softmax, read backwards.

    ``product`` is None where something else is done. ``kept`` is where the mask leaves scores as they are, None without
    a mask, and ``finite`` where it lowers them by a number that is not infinite. ``scale`` is what the scores are
    multiplied by, and on the way back to the product, so far, what a mask is multiplied by, too.
    """

    def __init__(self, value: Value) -> None:
        self.shape = value.shape
        self.scale = 1.0
        self.kept: np.ndarray | None = None
        self.finite = np.zeros((1, 1), bool)
        self.product = self._read(value)

    def _read(self, value: Value) -> Node | None:
        node = value.producer
        if node is None or not same_shape(value.shape, self.shape):
            return None
        if node.op == "matmul":
            return node if not any(operand.is_constant for operand in node.inputs) else None
        if node.op in ("multiply", "divide"):
            factor, inner = _number(node)
            if factor is None or inner is None or not factor > 0:
                return None
            self.scale *= factor if node.op == "multiply" else 1 / factor
            return self._read(inner)
        added = self._added(node)
        if added is None:
            return None
        mask, inner = added
        plane = self._plane(mask)
        if plane is None or not ((plane == 0) | (plane * self.scale <= NEGLIGIBLE)).all():
            return None
        self.kept = plane == 0 if self.kept is None else self.kept & (plane == 0)
        self.finite = self.finite | (np.isfinite(plane) & (plane != 0))
        return self._read(inner)

    def _added(self, node: Node) -> tuple[np.ndarray, Value] | None:
        """Return what a mask adds to the scores, and the scores."""
        if node.op == "add":
            for mask, inner in (node.inputs, node.inputs[::-1]):
                if mask.data is not None and not inner.is_constant:
                    return mask.data, inner
        if node.op == "where" and node.inputs[0].data is not None:
            condition, first, second = node.inputs
            assert condition.data is not None
            if first.data is None and second.data is not None:
                return np.where(condition.data, 0, second.data), first
            if second.data is None and first.data is not None:
                return np.where(condition.data, first.data, 0), second
        return None

    def _plane(self, mask: np.ndarray) -> np.ndarray | None:
        """Return a mask as [rows, keys], if it is the same for all heads and samples."""
        if mask.ndim > len(self.shape) or not all(isinstance(dim, int) for dim in self.shape[-2:]):
            return None
        planes = mask.reshape(-1, *(1, 1, *mask.shape)[-2:])
        if not (planes == planes[0]).all():
            return None
        return np.broadcast_to(planes[0].astype(np.float64), self.shape[-2:])  # type: ignore[arg-type]


def _softmax(weights: Value) -> tuple[Node | None, float]:
    """Return the softmax along the last axis that made the weights, and what it makes of a row of −∞."""
    node, empty = weights.producer, math.nan
    if node is not None and node.op == "where":  # PyTorch's softmax that is 0 there, see `recognize`
        dead, zero, inner = node.inputs
        test = dead.producer
        softmax = inner.producer
        if test is None or test.op != "equal" or softmax is None or zero.data is None or zero.data.any():
            return None, empty
        largest, lowest = test.inputs[0].producer, test.inputs[1].data
        if largest is None or largest.op != "max" or largest.inputs != softmax.inputs:
            return None, empty
        if lowest is None or not np.all(lowest == -np.inf):
            return None, empty
        node, empty = softmax, 0.0
    if node is None or node.op != "nn.softmax" or node.attrs["axis"] not in (-1, node.output.rank - 1):
        return None, empty
    return node, empty


def _is_private(graph: Graph, softmax: Node) -> bool:
    """Whether the weights of attention are for nothing else than to be multiplied."""
    users, value = softmax.output.users, softmax.output
    while len(users) == 1 and users[0].op == "where" and value not in graph.outputs:
        value = users[0].output
        users = value.users
    return len(users) == 1 and users[0].op == "matmul" and value not in graph.outputs


def _number(node: Node) -> tuple[float | None, Value | None]:
    """Return the constant factor of a product or a quotient, and the other operand."""
    pairs = (node.inputs[::-1],) if node.op == "divide" else (node.inputs, node.inputs[::-1])
    for number, other in pairs:
        if number.data is not None and number.data.size == 1 and not other.is_constant:
            return float(number.data.reshape(())), other
    return None, None
