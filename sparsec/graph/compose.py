"""One layer in the place of several that follow each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.graph.shape import Dim, Shape, equal, evaluate_dim, product, symbols_of
from sparsec.ir.types import is_float

LARGEST = 1 << 23
"""Elements of the largest matrix that is made in the search for cheaper ones."""

Run = tuple[int, int]
"""The first node of a chain that a layer replaces, and the one behind the last."""


@dataclass(frozen=True)
class Composed:
    """A layer: x in the shape `source`, times `weight`, plus `bias` for each output, has the shape `shape`."""

    op: str
    source: Shape
    weight: np.ndarray
    bias: np.ndarray
    shape: Shape
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (1, -1, 1, 1) if self.op == "conv2d" else (-1,)


# Linear layers, and what moves and scales features between them


def is_row_step(node: Node) -> bool:
    """Whether a node maps every row of its first input by itself, linearly but for a shift."""
    if node.op == "linear":
        return node.inputs[1].is_constant and is_float(node.output.dtype)
    return node.op in ("permute_dims", "reshape") or _is_scale_or_shift(node)


def _is_scale_or_shift(node: Node) -> bool:
    return (
        node.op in ("add", "multiply")
        and node.inputs[1].is_constant
        and len(node.inputs[0].shape) == len(node.output.shape)
        and all(map(equal, node.inputs[0].shape, node.output.shape))
    )


def compose_rows(chain: Sequence[Node]) -> Iterator[tuple[Run, Composed]]:
    """Every run of a chain as a linear layer, where it is one, over as many rows as possible.

    What a run does to one row is found by sending the rows of an identity matrix through it.
    """
    batches = _batches(chain)
    for start in range(len(chain)):
        done: set[int] = set()
        for batch in batches:
            for stop, made in _extend(chain, start, batch):
                if stop not in done:
                    done.add(stop)
                    yield (start, stop), made


def _batches(chain: Sequence[Node]) -> list[Dim]:
    """The products of leading axes in a chain, of which each may count the rows, the largest first."""
    found: list[Dim] = []
    for value in (chain[0].inputs[0], *(node.output for node in chain)):
        for k in range(1, value.rank):
            batch = product(value.shape[:k])
            if not any(equal(batch, other) for other in found):
                found.append(batch)
    return sorted(found, key=_guess, reverse=True)


def _guess(d: Dim) -> int:
    """The size of a dimension if all symbols were a large prime, of which no constant is a multiple."""
    return evaluate_dim(d, {v.name: 1_000_003 for v in symbols_of([d])})


@dataclass(frozen=True)
class _Rows:
    """A value as rows: its first `axes` axes hold every row `parts` times; the other axes are `rest`."""

    axes: int
    parts: int
    rest: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.parts * math.prod(self.rest)


def _as_rows(value: Value, batch: Dim) -> _Rows | None:
    """How a value holds so many rows; None where axes mix them."""
    for k in range(value.rank):
        parts, remainder = divmod(_guess(product(value.shape[:k])), _guess(batch))
        if parts and not remainder and equal(product(value.shape[:k]), product((batch, parts))):
            rest = value.shape[k:]
            return _Rows(k, parts, tuple(map(int, rest))) if all(isinstance(d, int) for d in rest) else None
    return None


def _extend(chain: Sequence[Node], start: int, batch: Dim) -> Iterator[tuple[int, Composed]]:
    """The runs from one node on, as long as they map rows to rows."""
    x = chain[start].inputs[0]
    rows = _as_rows(x, batch)
    if rows is None or rows.size**2 > LARGEST:
        return
    source = (*x.shape[: rows.axes], rows.size) if rows.parts == 1 else (batch, rows.size)
    # The rows of an identity matrix, and one of zeros, which alone takes the shifts.
    image = np.eye(rows.size + 1, rows.size).reshape(-1, rows.parts, *rows.rest)
    layers = 0
    for stop, node in enumerate(chain[start:], start + 1):
        target = _as_rows(node.output, batch)
        moved = None if target is None else _apply(node, image, rows, target)
        if moved is None or target is None:
            return
        image, rows = moved, target
        layers += node.op == "linear"
        if layers and stop - start > 1:
            flat = image.reshape(len(image), -1)
            weight = flat[:-1].T
            yield stop, Composed("linear", source, weight, flat[-1], (*source[:-1], len(weight)))


def _apply(node: Node, image: np.ndarray, rows: _Rows, target: _Rows) -> np.ndarray | None:
    """What a node does to images of rows; None where it mixes rows, or the images become too large."""
    if len(image) * target.size > LARGEST:
        return None
    if node.op == "reshape":
        return image.reshape(-1, target.parts, *target.rest)
    if (rows.axes, rows.parts) != (target.axes, target.parts):
        return None
    if node.op == "permute_dims":
        axes = node.attrs["axes"]
        if tuple(axes[: rows.axes]) != tuple(range(rows.axes)):
            return None
        return image.transpose(0, 1, *(axis - rows.axes + 2 for axis in axes[rows.axes :]))
    constant = node.inputs[1].data
    assert constant is not None
    if node.op == "linear":
        flat = image.reshape(-1, constant.shape[1]) if rows.rest else None
        return None if flat is None else (flat @ constant.T.astype("float64")).reshape(-1, target.parts, *target.rest)
    operand = constant.reshape((1,) * (node.output.rank - constant.ndim) + constant.shape)
    if math.prod(operand.shape[: rows.axes]) != 1:
        return None
    operand = operand.reshape(1, 1, *operand.shape[rows.axes :]).astype("float64")
    if node.op == "multiply":
        return image * operand
    return np.concatenate([image[:-1], image[-1:] + operand])


# Convolutions with pointwise ones before or behind them


def is_image_step(node: Node) -> bool:
    """Whether a node is a convolution over all channels, or its bias."""
    if node.op == "conv2d":
        return node.inputs[1].is_constant and node.attrs["groups"] == 1 and is_float(node.output.dtype)
    return node.op == "add" and _is_scale_or_shift(node) and _channel_shift(node) is not None


def _channel_shift(node: Node) -> np.ndarray | None:
    """A constant with one number per channel of an image."""
    constant, rank = node.inputs[1].data, node.output.rank
    if constant is None or rank != 4:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(extent != 1 for axis, extent in enumerate(shape) if axis != 1):
        return None
    return np.broadcast_to(constant.reshape(-1).astype("float64"), (int(node.output.shape[1]),))  # type: ignore[arg-type]


def compose_images(chain: Sequence[Node]) -> Iterator[tuple[Run, Composed]]:
    """Every run of a chain that is one convolution."""
    for start, first in enumerate(chain):
        if first.op != "conv2d":
            continue
        made = _as_composed(first)
        for stop, node in enumerate(chain[start + 1 :], start + 2):
            if node.op == "add":
                shift = _channel_shift(node)
                assert shift is not None
                made = replace(made, bias=made.bias + shift)
            else:
                joined = _join(made, _as_composed(node))
                if joined is None:
                    break
                made = joined
                yield (start, stop), made


def _as_composed(conv: Node) -> Composed:
    x, weight = conv.inputs
    assert weight.data is not None
    bias = np.zeros(len(weight.data))
    return Composed("conv2d", x.shape, weight.data.astype("float64"), bias, conv.output.shape, conv.attrs)


def _join(first: Composed, second: Composed) -> Composed | None:
    """One convolution for two, of which one is pointwise.

    A shift between them is one of the whole image only if the second reads no padding.
    """
    if not any(second.attrs["padding"]) and second.weight.shape[2:] == (1, 1):
        weight = np.einsum("oc,cirs->oirs", second.weight[:, :, 0, 0], first.weight, optimize=True)
        strides = tuple(a * b for a, b in zip(first.attrs["strides"], second.attrs["strides"], strict=True))
        attrs = {**first.attrs, "strides": strides}
    elif (
        first.weight.shape[2:] == (1, 1)
        and not any(first.attrs["padding"])
        and first.attrs["strides"] == (1, 1)
        and not (first.bias.any() and any(second.attrs["padding"]))
    ):
        weight = np.einsum("ocrs,ci->oirs", second.weight, first.weight[:, :, 0, 0], optimize=True)
        attrs = second.attrs
    else:
        return None
    bias = second.bias + second.weight.sum(axis=(2, 3)) @ first.bias
    return Composed("conv2d", first.source, weight, bias, second.shape, attrs)
