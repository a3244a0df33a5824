"""What is known about one layer with weights: its zeros, the layout that was chosen, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, prod
from typing import Any

import numpy as np

from sparsec.graph.fuse import Group
from sparsec.graph.graph import Graph
from sparsec.graph.products import Anchor
from sparsec.graph.store_weights import ERROR
from sparsec.graph.why import why
from sparsec.graph.winograd import algorithm_of, transform_cycles
from sparsec.ir.product import Product
from sparsec.ir.stored import dense_bytes
from sparsec.ir.structures import FULL, Combined, find_structures
from sparsec.schedules.rules.families import holds_groups_alone
from sparsec.schedules.rules.options import Option
from sparsec.schedules.rules.prices import batch, extent
from sparsec.schedules.rules.product import Proposal, propose
from sparsec.targets import Target

NEARLY_ALL = 0.995
"""The part of rows or columns with nonzeros from which on the others are not worth a word."""


@dataclass(frozen=True)
class Layer:
    """A layer and the choice for it.

    Parameters
    ----------
    name, op : the node in the model, and the product that it is
    shape : of the weight, outputs first, without the channels that are gone
    removed_outputs, removed_inputs : channels that are gone, since zeros left them without effect
    sparsity : the part of the weight that is zero
    structure : how the zeros lie: ``dense``, ``unstructured``, ``2:4``, ``4x1 blocks``, ``rows 50 % empty``, …
    layout : in the notation of :mod:`sparsec.ir.notation`
    nbytes, dense_nbytes : of the weight as its kernel reads it, and of its elements alone
    filtering : ``F(4, 3)`` where filters of three rows make four rows of pixels at once; see `sparsec.graph.winograd`
    storage : the type of a stored weight, as ``float32`` or ``int4:64``, where 64 of a row share a scale; in a
        product of few bits the name of its encoding, as are `reads`
    storage_error : how far off the stored weights are, the norm of the differences over that of the weights
    reads, writes : the types of activations; layers of quantised models read ``uint8``, or ``int8`` on some targets
    seconds, dense_seconds : for one core, in this layout and in the best one for a weight without zeros
    timed : whether both were measured when the layout was chosen, rather than predicted; transforms of filtering never
        are, nor is what a grouped convolution of integers would take without zeros
    flops : of one run that meet a nonzero, a multiply-add being two; as predictions assume where sizes are open
    traffic : bytes that one run moves at least: the weight in this layout, and what is read and written, once
        for each slice of a batch
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
    filtering: str = ""
    storage: str = "float32"
    storage_error: float = 0.0
    reads: str = "float32"
    writes: str = "float32"
    timed: bool = False
    removed_outputs: int = 0
    removed_inputs: int = 0
    options: tuple[Option, ...] = ()
    why: str = ""

    def repeated(self, times: int) -> Layer:
        """The layer in a run that calls it for so many slices of a batch."""
        options = tuple(replace(option, seconds=times * option.seconds) for option in self.options)
        return replace(
            self,
            seconds=times * self.seconds,
            dense_seconds=times * self.dense_seconds,
            flops=times * self.flops,
            traffic=times * self.traffic,
            options=options,
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values; options and the like only where there are any."""
        fields = asdict(self) | {"shape": list(self.shape), "options": [asdict(option) for option in self.options]}
        return {name: value for name, value in fields.items() if value or name not in ("filtering", "options", "why")}


def in_model(layers: Iterable[Layer], graph: Graph) -> list[Layer]:
    """Return the layers of a graph as one run of the model has them: for all slices, and with what they have lost."""
    removed = {name: iter(counts) for name, counts in graph.removed.items()}
    found = []
    for layer in layers:
        outputs, inputs = next(removed.get(layer.name, iter(())), (0, 0))
        found.append(replace(layer.repeated(graph.slices), removed_outputs=outputs, removed_inputs=inputs))
    return found


def describe_layer(
    group: Group,
    matrix: np.ndarray,
    proposal: Proposal,
    target: Target,
    options: Sequence[Option] = (),
    stored: int | None = None,
) -> Layer:
    """Describe a product with a constant weight, whose arrays take `stored` bytes, if it is stored already.

    The matrix of a grouped convolution has zeros between the groups, which are none of the weight's own.
    """
    anchor, product, layout = group.anchor, proposal.product, proposal.product.layout
    assert anchor is not None and anchor.weight.data is not None and layout is not None
    algorithm, weight, own = algorithm_of(anchor.x), own_matrix(anchor), (anchor.weight.origin or anchor.weight).shape
    dense_seconds, has_dense = proposal.dense_seconds, product.groups == 1 or holds_groups_alone(product)
    if not has_dense:
        dense_seconds = propose(group.product, _filled(matrix.shape, product.groups), target).seconds
    (work,), nbytes = group.works, stored if stored is not None else proposal.nbytes(matrix)
    nbytes += scale_bytes(product)
    moved = sum(
        prod(_size(product, dim) for dim in buffer.shape) * np.dtype(buffer.dtype).itemsize
        for buffer in (product.x, product.y)
    )
    transforms = 0.0
    if algorithm:
        transforms = transform_cycles(moved / 4) / (target.ghz * 1e9)
        moved = round(moved * (2 + algorithm.outputs / algorithm.reads))
        options = tuple(replace(option, seconds=option.seconds + transforms) for option in options)
        dense_seconds += transforms
    else:
        dense_seconds = min(dense_seconds, group.nodes[0].attrs.get("dense_seconds", inf))
    return Layer(
        name=group.label,
        op=product.name,
        shape=tuple(int(d) for d in own),  # type: ignore[arg-type]
        filtering="" if algorithm is None else str(algorithm),
        sparsity=1 - np.count_nonzero(weight) / weight.size,
        structure=structure(weight, prod(own[2:])),  # type: ignore[arg-type]
        layout=str(layout),
        nbytes=nbytes,
        dense_nbytes=dense_bytes(weight.size, product.weight.dtype),
        seconds=proposal.seconds + transforms,
        dense_seconds=dense_seconds,
        flops=work.assumed_flops,
        traffic=nbytes + moved,
        storage=product.weight.dtype + (f":{product.group}" if product.group else ""),
        storage_error=group.nodes[0].attrs.get(ERROR, 0.0),
        reads=product.x.dtype,
        writes=product.y.dtype,
        timed=proposal.timed and has_dense and algorithm is None,
        options=tuple(options),
        why=why(options, dense_seconds),
    )


def own_matrix(anchor: Anchor) -> np.ndarray:
    """Return a weight as the model has it, by outputs; one of a grouped convolution without what is between groups."""
    data = (anchor.weight.origin or anchor.weight).data
    assert data is not None
    return data.reshape(len(data), -1)


def scale_bytes(product: Product) -> int:
    """Return what the scales of groups of weights take."""
    scales = product.scales
    return 0 if scales is None else prod(map(int, scales.shape)) * np.dtype(scales.dtype).itemsize


def _filled(shape: tuple[int, ...], groups: int) -> np.ndarray:
    """Return the matrix of a grouped convolution whose weight has no zeros."""
    rows, depth = shape
    return np.kron(np.eye(groups), np.ones((rows // groups, depth // groups))).astype(np.float32)


def _size(product: Product, dim: int | str) -> int:
    """Return a dimension, or what the predictions assume for it where it is symbolic."""
    return batch(product) if dim == product.batch else extent(dim)


def structure(matrix: np.ndarray, taps: int = 1) -> str:
    """Say how the zeros of a matrix lie, whose depth ends in so many taps of kernels.

    >>> structure(np.kron(np.eye(4), np.ones((4, 1))))
    '4x1 blocks'
    """
    mask = matrix != 0
    if np.count_nonzero(mask) >= FULL * mask.size:
        return "dense"
    if not mask.any():
        return "all zero"
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    found = [
        f"{name} {1 - used.mean():.0%} empty"
        for name, used in (("rows", rows), ("columns", columns))
        if used.mean() < NEARLY_ALL
    ]
    if np.count_nonzero(mask) < FULL * np.count_nonzero(rows) * np.count_nonzero(columns):
        found.append(_inside(mask, rows, taps))
    return ", ".join(found) or "dense"


def _inside(mask: np.ndarray, rows: np.ndarray, taps: int) -> str:
    """Say how the zeros lie among rows that are used; tiles may have been made of these alone."""
    masks = [mask] if rows.all() else [mask, mask[rows]]
    found = [each for each in (next(find_structures(one, taps), None) for one in masks) if each]
    if found:
        return str(max(found, key=lambda each: prod(each.period)))
    combined = Combined(max(2, round(mask.size / np.count_nonzero(mask))))
    return str(combined) if combined.fits(mask) else "unstructured"
