"""Anchors: the nodes whose work is a product, each as a `Product` over flat buffers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.graph.shape import Dim, Shape, product, same_shape
from sparsec.ir.image import VECTOR, Image
from sparsec.ir.kernel import Buffer, Const, Expr, Load, Var, call
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, Product
from sparsec.ir.types import BYTES, NARROW, SINGLE_OR_HALF, STORED, is_float


@dataclass(frozen=True)
class Anchor:
    """A node as a product.

    Parameters
    ----------
    product : without layout and epilogue
    weight, x, y : the values that `product.weight`, `product.x` and `product.y` stand for
    matrix : makes the constant weight as `[rows, depth]`; None for an activation
    shapes : the shape of every buffer of the product in graph dimensions, where it is not the buffer's own
    constants : what `product.valid` holds
    channel, channels : which channel of an image y a row is, and how many there are; where None, each is one
    is_layer : whether the constant weight is one of the model
    """

    product: Product
    weight: Value
    x: Value
    y: Value
    matrix: Callable[[], np.ndarray] | None
    shapes: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    channel: Expr = ROW
    channels: int | None = None
    is_layer: bool = True

    def operand(self, value: Value, name: str) -> tuple[Buffer, Expr, Shape] | None:
        """Return how the epilogue reads a value that broadcasts against y, or None where it cannot.

        Returns
        -------
        The kernel's buffer, the load of the element that meets `acc`, and the buffer's shape in graph dimensions.
        """
        if value.dtype not in STORED:
            return None
        shape = (1,) * (self.y.rank - value.rank) + tuple(value.shape)
        if len(shape) != self.y.rank:
            return None
        if same_shape(shape, self.y.shape):
            flat = self.shapes.get("Y", self.product.y.shape)
            return Buffer(name, value.dtype, self.product.y.shape), Load(name, self.product.y_index), flat
        if product(shape) == 1:
            return Buffer(name, value.dtype, (1,)), Load(name, (Const(0),)), (1,)
        row_axis = 1 if self.has_image else self.y.rank - 2
        channels = self.channels or self.product.rows
        if isinstance(channels, int) and shape[row_axis] == channels == product(shape):
            return Buffer(name, value.dtype, (channels,)), Load(name, (self.channel,)), (channels,)
        return self._broadcast(shape, value.dtype, name)

    @property
    def has_image(self) -> bool:
        """Whether y is a padded image, and x may be read past its edges."""
        return self.y.producer is not None and "image" in self.y.producer.attrs

    def _broadcast(self, shape: Shape, dtype: str, name: str) -> tuple[Buffer, Expr, Shape] | None:
        """Read an operand of `[b.., n or 1, m or 1]` by the axes that it has."""
        if self.has_image:
            return None
        names = _Names()
        indices: list[Expr] = []
        inner: Dim = 1
        for axis in reversed(range(len(shape))):
            full = self.y.shape[axis]
            if axis == len(shape) - 1:
                index: Expr = COLUMN
            elif axis == len(shape) - 2:
                index = ROW
            else:
                if not isinstance(inner, int):
                    return None
                index = BATCH // inner if inner != 1 else BATCH
                if axis:
                    if not isinstance(full, int):
                        return None
                    index = index % full
                inner = inner * full
            indices.insert(0, Const(0) if shape[axis] == 1 else index)
        return Buffer(name, dtype, tuple(names(d) for d in shape)), Load(name, tuple(indices)), shape


def find_anchor(node: Node) -> Anchor | None:
    """Return the node as a product, or None if it is not one."""
    make = ANCHORS.get(node.op)
    return make(node) if make and _has_sums(node) else None


def _has_sums(node: Node) -> bool:
    """Whether there are kernels for products of these types: floats in float32, integers of 8 bits in int32.

    What meets floats may be constant integers.
    """
    (x, weight), y = node.inputs[:2], node.output
    if is_float(x.dtype):
        fits = weight.dtype in SINGLE_OR_HALF or (weight.is_constant and weight.dtype in NARROW)
        return fits and all(value.dtype in SINGLE_OR_HALF for value in (x, y))
    return x.dtype in BYTES and weight.dtype == "int8" and y.dtype == "int32"


class _Names:
    """Kernel dimensions for graph dimensions: integers as they are, expressions by a name made from their text."""

    def __call__(self, dim: Dim) -> int | str:
        return dim if isinstance(dim, int) else re.sub(r"\W+", "_", f"n_{dim}").strip("_")


def _linear(node: Node) -> Anchor:
    x, weight = node.inputs[:2]
    rows, depth = weight.shape
    columns = x.shape[-1]
    data = weight.data
    assert data is not None and isinstance(rows, int) and isinstance(depth, int)
    return _scaled(_matrix_product(node, x, weight, rows, depth, columns, (), lambda: data), node)


def _scaled(anchor: Anchor, node: Node) -> Anchor:
    """A product whose weight is integers with scales for groups of depths, `[groups, rows]`, as a third operand."""
    if node.attrs.get("rounded"):
        anchor = replace(anchor, product=replace(anchor.product, rounded=True))
    if len(node.inputs) == 2:
        return anchor
    scales = node.inputs[2].data
    assert scales is not None
    buffer = Buffer("S", str(scales.dtype), scales.shape)
    product = replace(anchor.product, scales=buffer, group=node.attrs["group"])
    return replace(anchor, product=product, constants={**anchor.constants, buffer.name: scales})


def _attention(node: Node) -> Anchor | None:
    a, b = node.inputs
    transposed = bool(node.attrs["lhs_transposed"])
    depth, columns = b.shape[-2:]
    rows = node.output.shape[-2]
    names = _Names()
    batch = _weight_batch(a.shape[:-2], node.output.shape[:-2])
    if batch is None or not same_shape(b.shape[:-2], node.output.shape[:-2]):
        return None
    index = (batch, DEPTH, ROW) if transposed else (batch, ROW, DEPTH)
    anchor = _matrix_product(node, b, a, names(rows), names(depth), columns, index, None)
    return anchor


def _weight_batch(shape: Shape, full: Shape) -> Expr | None:
    """Return which matrix of the flattened `shape` meets batch `b` of the flattened `full`."""
    if same_shape(shape, full):
        return BATCH
    return Const(0) if product(shape) == 1 else None


def _matrix_product(
    node: Node,
    x: Value,
    weight: Value,
    rows: int | str,
    depth: int | str,
    columns: Dim,
    weight_index: tuple[Expr, ...],
    matrix: Callable[[], np.ndarray] | None,
) -> Anchor:
    """Make the product of `[b.., k, m]` images: flat where all is constant, so that offsets are."""
    names = _Names()
    y = node.output
    batch: Dim = product(y.shape[:-2])
    x_shape: Shape = (batch, x.shape[-2], columns)
    y_shape: Shape = (batch, y.shape[-2], columns)
    x_index: tuple[Expr, ...] = (BATCH, DEPTH, COLUMN)
    y_index: tuple[Expr, ...] = (BATCH, ROW, COLUMN)
    if isinstance(columns, int) and isinstance(depth, int) and isinstance(rows, int):
        x_shape, x_index = (batch, depth * columns), (BATCH, DEPTH * columns + COLUMN)
        y_shape, y_index = (batch, rows * columns), (BATCH, ROW * columns + COLUMN)
    weight_shape: Shape = weight.shape if matrix else (product(weight.shape[:-2]), *weight.shape[-2:])

    def buffer(name: str, value: Value, shape: Shape) -> Buffer:
        return Buffer(name, value.dtype, tuple(names(dim) for dim in shape))

    return Anchor(
        Product(
            "linear" if matrix else "matmul",
            buffer("W", weight, weight_shape),
            buffer("X", x, x_shape),
            buffer("Y", y, y_shape),
            x_index,
            y_index,
            names(batch),
            rows,
            depth,
            names(columns),
            weight_index,
        ),
        weight,
        x,
        y,
        matrix,
        {"W": weight_shape, "X": x_shape, "Y": y_shape},
    )


def _convolution(node: Node) -> Anchor:
    """`conv_padded(x, weight)`: see `sparsec.graph.plan_images`."""
    x, weight = node.inputs[:2]
    data = weight.data
    assert data is not None
    out_channels, _, height, width = data.shape
    attrs = node.attrs
    image, x_image, strides = attrs["image"], attrs["x_image"], attrs["strides"]
    batch, x_plane = x.shape[0], product(x.shape[1:])
    assert isinstance(x_plane, int) and isinstance(image, Image) and isinstance(x_image, Image)
    assert image.pitch == x_image.pitch, f"{node.where}: rows of {x_image.pitch} cannot become rows of {image.pitch}"
    depth = x_plane // x_image.plane // (strides[0] * strides[1]) * height * width
    names = _Names()
    columns, borders = image.columns, attrs["borders"]
    if x.dtype in BYTES and borders is None and image.pitch == image.width and image.run >= VECTOR:
        columns = image.run  # whose last tiles may overlap
    valid = np.arange(columns) % image.pitch < image.width
    valid[image.run :] = False
    masked = borders is not None and not valid.all()
    cleared = ((-image.before, 0), (columns, image.run + image.after)) if borders is not None else ()
    x_index = _tap(DEPTH, (height, width), strides, attrs["dilation"], x_image) + COLUMN
    if attrs["x_origin"]:
        x_index = x_index + attrs["x_origin"]
    y_index = ROW * image.plane + COLUMN
    if image.origin:
        y_index = y_index + image.origin

    def matrix() -> np.ndarray:
        return _block_diagonal(data.reshape(out_channels, -1), attrs["groups"])

    anchor = Anchor(
        Product(
            "conv2d",
            Buffer("W", weight.dtype, (out_channels, depth)),
            Buffer("X", x.dtype, (names(batch), x_plane)),
            Buffer("Y", node.output.dtype, (names(batch), out_channels * image.plane)),
            (BATCH, x_index),
            (BATCH, y_index),
            names(batch),
            out_channels,
            depth,
            columns,
            valid=Buffer("valid", "int32", (columns,)) if masked else None,
            cleared=tuple(run for run in cleared if run[0] < run[1]),
            blank=borders or 0,
            pixels=(image.height, image.width, image.pitch),
            taps=height * width,
            span=(height - 1) * x_image.pitch + width - 1,
            groups=attrs["groups"],
        ),
        weight,
        x,
        node.output,
        matrix,
        {"X": (batch, x_plane), "Y": (batch, out_channels * image.plane)},
        {"valid": valid.astype(np.int32)} if masked else {},
    )
    return _scaled(anchor, node)


def _winograd_input(node: Node) -> Anchor:
    """`winograd_input(x, matrix)`: see `sparsec.graph.winograd`."""
    x, image, x_image = node.inputs[0], node.attrs["image"], node.attrs["x_image"]
    channels, tiles = int(x.shape[1]), image.height  # type: ignore[arg-type]
    plane, tile = BATCH // tiles % channels, BATCH % tiles
    row = tile * node.attrs["step"] + DEPTH - node.attrs["top"]
    to = ROW * (channels * image.plane) + plane * image.plane + tile * image.pitch + COLUMN + image.origin
    behind = x_image.plane - x_image.origin - (x_image.height - 1) * x_image.pitch  # the last row of a plane begins
    cleared = ((-image.before, 0), (image.width, image.pitch)) if node.attrs["borders"] is not None else ()
    return _transform(
        node,
        channels * tiles,
        plane * x_image.plane + row * x_image.pitch + COLUMN + x_image.origin,
        to,
        columns=_whole_columns(image, behind),
        reads=_is_row(row, x_image.height),
        cleared=tuple(run for run in cleared if run[0] < run[1]),
    )


def _winograd_output(node: Node) -> Anchor:
    """`winograd_output(x, matrix)`: see `sparsec.graph.winograd`."""
    y, image, x_image = node.output, node.attrs["image"], node.attrs["x_image"]
    channels, tiles = int(y.shape[1]), x_image.height  # type: ignore[arg-type]
    plane, tile = BATCH // tiles % channels, BATCH % tiles
    row = tile * node.attrs["step"] + ROW
    source = DEPTH * (channels * x_image.plane) + plane * x_image.plane + tile * x_image.pitch + COLUMN
    anchor = _transform(
        node,
        channels * tiles,
        source + x_image.origin,
        plane * image.plane + row * image.pitch + COLUMN + image.origin,
        columns=_whole_columns(image, x_image.pitch),
        writes=_is_row(row, image.height),
    )
    return replace(anchor, channel=plane, channels=channels)


def _transform(node: Node, tiles: int, source: Expr, to: Expr, columns: int, **more: Any) -> Anchor:
    """Make the product of a small constant matrix with some rows of an image.

    Parameters
    ----------
    tiles : of all channels; `b` runs over them
    source, to : where element `m` of row `k` of X and of row `i` of Y are in an image
    """
    (x, matrix), y, names = node.inputs[:2], node.output, _Names()
    data, image = matrix.data, BATCH // tiles
    assert data is not None
    shapes: dict[str, Shape] = {name: (v.shape[0], product(v.shape[1:])) for name, v in (("X", x), ("Y", y))}
    made = Product(
        node.op,
        Buffer("W", matrix.dtype, data.shape),
        Buffer("X", x.dtype, tuple(map(names, shapes["X"]))),
        Buffer("Y", y.dtype, tuple(map(names, shapes["Y"]))),
        (image, source),
        (image, to),
        names(y.shape[0]),
        data.shape[0],
        data.shape[1],
        columns,
        tiles=tiles,
        **more,
    )
    return Anchor(made, matrix, x, y, lambda: data, shapes, is_layer=False)


def _whole_columns(image: Image, readable: int) -> int:
    """Return the columns of a row of pixels, with what stands behind them if they are whole vectors together."""
    return image.pitch if image.pitch % image.lanes == 0 and image.pitch <= readable else image.width


def _is_row(row: Expr, height: int) -> Expr:
    return call("and", call("<=", 0, row), call("<", row, height))


ANCHORS: dict[str, Callable[[Node], Anchor | None]] = {
    "batch_matmul": _attention,
    "conv_padded": _convolution,
    "linear_cols": _linear,
    "winograd_input": _winograd_input,
    "winograd_output": _winograd_output,
}
"""How the nodes of each operator are products, by its name."""


def _tap(k: Var, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int], image: Image) -> Expr:
    """Return the offset in x of depth `k`, which is the tap (r, s) of channel c."""
    taps = kernel[0] * kernel[1]
    sy, sx = strides
    if taps == 1:
        return k * (sy * sx * image.plane)
    r: Expr = k % taps // kernel[1]
    s: Expr = k % kernel[1]
    if taps == kernel[1]:
        r = Const(0)
    r = r * dilation[0] if dilation[0] != 1 else r
    s = s * dilation[1] if dilation[1] != 1 else s
    channel = k // taps * (sy * sx * image.plane)
    if (sy, sx) == (1, 1):
        return _sum(channel, r * image.pitch, s)
    phase = (r % sy * sx + s % sx) * image.plane
    return _sum(channel, phase, r // sy * image.pitch, s // sx)


def _sum(first: Expr, *rest: Expr) -> Expr:
    """Add up, as one term of an index."""
    total = rest[0]
    for term in rest[1:]:
        total = total + term
    return first + total


def _block_diagonal(matrix: np.ndarray, groups: int) -> np.ndarray:
    """Return the matrix over all channels of a grouped convolution."""
    if groups == 1:
        return matrix
    rows, depth = matrix.shape
    whole = np.zeros((groups, rows // groups, groups, depth), matrix.dtype)
    whole[np.arange(groups), :, np.arange(groups)] = matrix.reshape(groups, -1, depth)
    return whole.reshape(rows, groups * depth)
