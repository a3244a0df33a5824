"""What is known about one layer with weights: its zeros, the layout that was chosen, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from sparsec.graph.fuse import Group
from sparsec.graph.why import why
from sparsec.ir.product import Product
from sparsec.schedules.rules.options import Option
from sparsec.schedules.rules.prices import batch, extent
from sparsec.schedules.rules.product import Proposal, propose
from sparsec.targets import Target

BLOCKS = ((16, 1), (8, 1), (4, 1), (2, 1), (1, 16), (1, 8), (1, 4), (4, 4))
"""Shapes of blocks, rows by columns, that pruning is done in."""

FULL = 0.95
"""The part of a structure's elements that must be nonzero for the structure to describe the zeros."""

NEARLY_ALL = 0.995
"""The part of rows or columns with nonzeros from which on the others are not worth a word."""


@dataclass(frozen=True)
class Layer:
    """A layer and the choice for it.

    Parameters
    ----------
    name, op : the node in the model, and the product that it is
    shape : of the weight in the model, outputs first
    sparsity : the part of the weight that is zero
    structure : how the zeros lie: ``dense``, ``unstructured``, ``2:4``, ``4x1 blocks``, ``rows 50 % empty``, …
    layout : in the notation of :mod:`sparsec.ir.notation`
    nbytes, dense_nbytes : of the weight as its kernel reads it, and of its elements alone
    seconds, dense_seconds : predicted for one core, in this layout and in the best one for a weight without zeros
    flops : of one call that meet a nonzero, a multiply-add being two
    traffic : bytes that one call moves at least: the weight in this layout, and what is read and written, once
    options : the layouts that were thought of, where the report was asked for them
    why : why this one was chosen, in a sentence, where there are options
    """

    name: str
    op: str
    shape: tuple[int, ...]
    sparsity: float
    structure: str
    layout: str
    nbytes: int
    dense_nbytes: int
    seconds: float
    dense_seconds: float
    flops: int
    traffic: int
    options: tuple[Option, ...] = ()
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values; options and the reason only where there are any."""
        fields = asdict(self) | {"shape": list(self.shape), "options": [asdict(option) for option in self.options]}
        return {name: value for name, value in fields.items() if value or name not in ("options", "why")}


def describe_layer(
    group: Group, matrix: np.ndarray, proposal: Proposal, target: Target, options: Sequence[Option] = ()
) -> Layer:
    """Describe a product with a constant weight.

    The matrix of a grouped convolution has zeros between the groups, which are none of the weight's own.
    """
    anchor, product, layout = group.anchor, proposal.product, proposal.product.layout
    assert anchor is not None and anchor.weight.data is not None and layout is not None
    weight = anchor.weight.data.reshape(len(matrix), -1)
    groups = matrix.size // weight.size
    dense_seconds = proposal.dense_seconds
    if groups > 1:
        dense_seconds = propose(group.product, _filled(matrix.shape, groups), target).seconds
    nonzeros, nbytes = np.count_nonzero(matrix), proposal.nbytes(matrix)
    columns = batch(product) * extent(product.columns)
    moved = sum(
        prod(_size(product, dim) for dim in buffer.shape) * np.dtype(buffer.dtype).itemsize
        for buffer in (product.x, product.y)
    )
    return Layer(
        group.label,
        product.name,
        tuple(int(d) for d in anchor.weight.shape),  # type: ignore[arg-type]
        float(1 - nonzeros / weight.size),
        structure(weight),
        str(layout),
        nbytes,
        weight.nbytes,
        proposal.seconds,
        dense_seconds,
        int(2 * nonzeros * columns),
        nbytes + moved,
        tuple(options),
        why(options, dense_seconds),
    )


def _filled(shape: tuple[int, ...], groups: int) -> np.ndarray:
    """Return the matrix of a grouped convolution whose weight has no zeros."""
    rows, depth = shape
    return np.kron(np.eye(groups), np.ones((rows // groups, depth // groups))).astype(np.float32)


def _size(product: Product, dim: int | str) -> int:
    """Return a dimension, or what the predictions assume for it where it is symbolic."""
    return batch(product) if dim == product.batch else extent(dim)


def structure(matrix: np.ndarray) -> str:
    """Say how the zeros of a matrix lie.

    >>> structure(np.kron(np.eye(4), np.ones((4, 1))))
    '4x1 blocks'
    """
    mask = matrix != 0
    if mask.mean() >= FULL:
        return "dense"
    if not mask.any():
        return "all zero"
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    kept = mask[rows][:, columns]
    found = [
        f"{name} {1 - used.mean():.0%} empty"
        for name, used in (("rows", rows), ("columns", columns))
        if used.mean() < NEARLY_ALL
    ]
    if kept.mean() < FULL:
        found.append(_pattern(kept))
    return ", ".join(found) or "dense"


def _pattern(mask: np.ndarray) -> str:
    quads = mask.reshape(len(mask), -1, 4) if mask.shape[1] % 4 == 0 else None
    if quads is not None and mask.mean() > 0.4 and quads.sum(axis=2).max() <= 2:
        return "2:4"
    for r, c in BLOCKS:
        if mask.shape[0] % r or mask.shape[1] % c:
            continue
        blocks = mask.reshape(mask.shape[0] // r, r, -1, c).any(axis=(1, 3))
        if mask.sum() >= FULL * blocks.sum() * r * c:
            return f"{r}x{c} blocks"
    return "unstructured"
