"""Find the integers that weights were made of, in models that store weights as integers and scales.

Importing such a model leaves floats. Passes that move, transpose or scale them by rows keep them on their grids, so the
integers are found by value, and only taken where they give every weight back.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from sparsec.graph.graph import Graph, Node
from sparsec.graph.integer_weights import IntegerWeight, in_groups, out_of_groups
from sparsec.graph.store_weights import ERROR, replace_weight

TOLERANCE = 2.0**-22
"""Of a weight, by how much a product of an integer and a scale may differ, which rounding alone explains."""

PROBED = 8
"""Groups that are tried first, of which floats of no grid fail at once."""


def find_integers(graph: Graph, groups: Iterable[int]) -> None:
    """Store the constant weights of a physical graph as the integers that they were made of.

    Weights of 8 bits whose zero is not in the middle may need more than 8 bits without it; they stay floats.

    Parameters
    ----------
    groups : how many consecutive weights share a scale in this model; 0 for all of a row
    """
    for node in list(graph.nodes):
        if node.op not in ("conv_padded", "linear_cols") or node.inputs[1].data is None:
            continue
        weight = node.inputs[1].data
        if weight.dtype != np.float32:
            continue
        for group in _groups_of(node, groups):
            found = as_integers(weight, group)
            if found is not None:
                node.attrs[ERROR] = 0.0
                replace_weight(graph, node, found)
                break
    graph.remove_dead()


def _groups_of(node: Node, groups: Iterable[int]) -> list[int]:
    """The groups to try, in elements of a row, the coarsest first."""
    if node.attrs.get("groups", 1) != 1:
        return [0]
    taps = prod(int(d) for d in node.inputs[1].shape[2:])  # type: ignore[arg-type]
    return sorted({group * taps for group in groups}, key=lambda group: -group or -(1 << 62))


def stored_groups(graph: Graph) -> frozenset[int]:
    """Return the groups of an imported graph: whole rows, if there are integers that are read as weights."""
    stored = any(node.op == "dequantize" and node.inputs[0].is_constant for node in graph.nodes)
    return frozenset({0}) if stored else frozenset()


def as_integers(weight: np.ndarray, group: int = 0) -> IntegerWeight | None:
    """Return a weight as integers of 4 or 8 bits, or None where it is not made of them.

    >>> found = as_integers(np.float32([[0.5, -1.5, 0.0, 2.0]]))
    >>> found.integers.tolist(), found.scales.tolist()
    ([[1, -3, 0, 4]], [[0.5]])

    Parameters
    ----------
    weight : float32, outputs first
    group : how many consecutive elements of a row share a scale; 0 for all of it
    """
    groups = in_groups(weight, group)
    blocks = groups.reshape(-1, groups.shape[-1])
    if not np.isfinite(blocks).all():
        return None
    probes = blocks[blocks.any(axis=1)][:PROBED]
    tolerances = [tolerance for tolerance in (0.0, TOLERANCE) if _on_grids(probes, tolerance) is not None]
    found = next(filter(None, (_on_grids(blocks, tolerance) for tolerance in tolerances)), None)
    if found is None:
        return None
    integers, scales = found
    integers = out_of_groups(integers, weight.shape)
    few = integers.min(initial=0) >= -8 and integers.max(initial=0) <= 7
    return IntegerWeight(integers.astype("int4" if few else np.int8), scales.reshape(groups.shape[:2]), group)


def _on_grids(blocks: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Integers, int8, and a scale for each block; None where a block has none.

    The smallest magnitude of a block is a small multiple of its scale, and the coarsest scale that fits is taken.
    """
    integers, scales = np.zeros(blocks.shape, np.int8), np.zeros(len(blocks), np.float32)
    left = np.flatnonzero(blocks.any(axis=1))
    for multiple in range(1, 128):
        if not left.size:
            return integers, scales
        some = blocks[left]
        sizes = np.abs(some).astype(np.float64)
        steps = np.rint(some * multiple / np.where(sizes > 0, sizes, np.inf).min(axis=1, keepdims=True))
        scale = _nearest_scale(some, steps, sizes.max(axis=1) / np.abs(steps).max(axis=1))
        off = np.abs(steps.astype(np.float32) * scale[:, None] - some)
        fits = (off <= tolerance * sizes).all(axis=1) & (steps.min(axis=1) >= -128) & (steps.max(axis=1) <= 127)
        integers[left[fits]], scales[left[fits]] = steps[fits], scale[fits]
        left = left[~fits]
    return None if left.size else (integers, scales)


def _nearest_scale(blocks: np.ndarray, steps: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The scale among the nearest of float32 that gives most weights back as they are."""
    middle = exact.astype(np.float32)
    candidates = np.stack([middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))])
    same = [(steps.astype(np.float32) * scale[:, None] == blocks).sum(axis=1) for scale in candidates]
    return candidates[np.argmax(same, axis=0), np.arange(len(blocks))]
