"""Give every image that a convolution reads or writes a padded place in memory.

Images between convolutions of stride 1 share one form, so that nothing is copied between them; where the form changes
(a stride, a filter without padding, an operator that knows only plain images) a `repack` copies. After the pass, images
in padded form are `[N, C, plane]`, and these operators have taken the place of `conv2d`:

``conv_padded(x, W; image, x_image, x_origin, strides, dilation, groups, blank, borders, dense_seconds)``
    The pixel (y, x) of the output, at `image.origin + y * image.pitch + x`, reads its tap (r, s) in channel c at
    `x_origin + y * pitch + x + r * pitch * dilation + s * dilation` from the channel's plane. With strides, x is split
    into phases: `[N, C * sy * sx, plane]`, where pixel (y, x) of phase (p, q) is pixel (y * sy + p, x * sx + q). Where
    a filter has one tap in a direction, it reads one phase, and the stride is 1 in that direction. Around x
    stands `blank`; `borders` is what a filter will read around the pixels of what its epilogue makes, None where none
    does. `dense_seconds` are those that the layer would take without zeros in another way, for reports.
``repack(x; source, image, strides, phases, padding, blank)``
    Copy the pixels of `source` (None for plain `[N, C, H, W]`) into planes of `image` (None for plain), the pixel
    (0, 0) going to (top, left) of the padding, split by the strides into phases, of which the first `phases` are kept
    in each direction; everything else becomes `blank`: 0, or the integer that means it.
``pixels(x; image)``
    What `repack` to plain `[N, C, H, W]` copies, but in no kernel of its own: what reduces it reads it as it goes.
``max_pool(x; source, image, window, strides, dilation, padding, ceil_mode, borders)``
    Pool the pixels of `source` (None for plain) into planes of `image` (None for plain), `borders` around them.

The transforms of :mod:`sparsec.graph.winograd` read images in any form, and make some of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from sparsec.graph.evaluate import ELEMENTWISE, REDUCTIONS
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.image_borders import mark_borders
from sparsec.graph.shape import is_one, same_shape
from sparsec.ir.image import VECTOR, Image, PlainImage
from sparsec.ir.types import STORED, is_float


@dataclass(eq=False)
class _Form:
    """What the images of one form have in common; forms are merged as more is known about them."""

    height: int
    width: int
    lanes: int
    pitch: int = 0
    pads: list[tuple[int, int, int, int]] = field(default_factory=list)  # top, left, bottom, right
    merged: _Form | None = None

    def find(self) -> _Form:
        return self if self.merged is None else self.merged.find()

    def join(self, other: _Form) -> None:
        mine, theirs = self.find(), other.find()
        if mine is not theirs:
            mine.pitch, mine.lanes = max(mine.pitch, theirs.pitch), max(mine.lanes, theirs.lanes)
            mine.pads += theirs.pads
            theirs.merged = mine

    def image(self) -> Image:
        form = self.find()
        if form is not self:
            return form.image()
        border = max((max(left, right) for _, left, _, right in self.pads), default=0)
        pitch = max(self.width + border, self.pitch)
        before = max((top * pitch + left for top, left, _, _ in self.pads), default=0)
        after = max((bottom * pitch + right for _, _, bottom, right in self.pads), default=0)
        return Image(self.height, self.width, pitch, before, after, self.lanes)


def plan_images(graph: Graph, lanes: int = VECTOR) -> None:
    """Rewrite the convolutions of a canonical graph, and what stands between them, into padded form.

    Parameters
    ----------
    lanes : float32 elements that the target takes at once, which images of floats are rounded up to
    """
    planner = _Planner(graph, min(lanes, VECTOR))
    planner.assign_forms()
    planner.rewrite()
    graph.remove_dead()
    mark_borders(graph)
    graph.verify()


class _Planner:
    def __init__(self, graph: Graph, lanes: int) -> None:
        self.graph = graph
        self.lanes = lanes
        self.forms: dict[Value, _Form] = {}
        self.padded: dict[Value, Value] = {}  # a value as it was, and as it is in padded form
        self.plain: dict[Value, Value] = {}

    # -- forms -----------------------------------------------------------------------------------------------------

    def assign_forms(self) -> None:
        for node in self.graph.nodes:
            if node.op == "conv2d" and _can_pad(node):
                self._convolution(node)
            elif node.op == "nn.max_pool2d" and _can_pool(node):
                self._pool(node)
            elif node.op in TRANSFORMS:
                self._transform(node)
            elif node.op in ELEMENTWISE or node.op == "concat":
                self._follow(node)

    def _convolution(self, node: Node) -> None:
        """A filter that keeps the size of its image reads it in the form of its output."""
        x, weight = node.inputs
        assert weight.data is not None
        lanes = self.lanes if is_float(x.dtype) and is_float(node.output.dtype) else VECTOR
        form = self.forms[node.output] = _Form(*_size(node.output), lanes)
        if self._shares(node):
            self.forms[x].find().pads.append(tuple(node.attrs["padding"]))
            self.forms[x].join(form)
        else:
            form.pitch = _columns_read(node)

    def _pool(self, node: Node) -> None:
        """The result of pooling has a form of its own, where a filter reads it, or what is made of it alike."""
        if _reaches_filter(node.output):
            self.forms[node.output] = _Form(*_size(node.output), self.lanes)

    def _transform(self, node: Node) -> None:
        """Rows that lack one column of whole vectors get it."""
        height, width = _size(node.output)
        self.forms[node.output] = _Form(height, width, self.lanes, width + (width % self.lanes == self.lanes - 1))

    def _shares(self, node: Node) -> bool:
        x = node.inputs[0]
        return (
            x in self.forms
            and tuple(node.attrs["strides"]) == (1, 1)
            and same_shape(x.shape[2:], node.output.shape[2:])
        )

    def _follow(self, node: Node) -> None:
        """Elementwise operators and concatenations of channels keep the form of their images."""
        if len(node.outputs) != 1:
            return
        images = [value for value in node.inputs if self._is_image(value, node.output)]
        if node.op == "concat":
            fits = node.attrs["axis"] in (1, -3) and len(images) == len(node.inputs)
        else:
            fits = all(v in images or _per_channel(v, node.output) for v in node.inputs)
        if not images or not fits or node.output.rank != 4:
            return
        first, *rest = images
        for value in rest:
            self.forms[first].join(self.forms[value])
        self.forms[node.output] = self.forms[first].find()

    def _is_image(self, value: Value, image: Value) -> bool:
        """Whether a value has a form, and the pixels of an image: no factor for each channel, as of a gate."""
        return value in self.forms and same_shape(value.shape[2:], image.shape[2:])

    # -- rewriting -------------------------------------------------------------------------------------------------

    def rewrite(self) -> None:
        for node in list(self.graph.nodes):
            if node.op == "conv2d" and node.output in self.forms:
                self._rewrite_convolution(node)
            elif node.op == "nn.max_pool2d" and _can_pool(node) and {node.inputs[0], node.output} & self.forms.keys():
                self._rewrite_pool(node)
            elif node.op in TRANSFORMS:
                self._rewrite_transform(node)
            elif len(node.outputs) == 1 and node.output in self.forms:
                self._rewrite_follower(node)
            elif _reduces_pixels(node) and node.inputs[0] in self.padded:
                self.graph.set_inputs(node, [self._pixels(node.inputs[0], node)])
            elif any(value in self.padded for value in node.inputs):
                self.graph.set_inputs(node, [self._as_plain(value, node) for value in node.inputs])
        self.graph.outputs = [self._as_plain(value, None) for value in self.graph.outputs]

    def _rewrite_convolution(self, node: Node) -> None:
        x, weight = node.inputs
        image = self.forms[node.output].image()
        top, left = node.attrs["padding"][:2]
        if self._shares(node):
            source, x_image = self.padded[x], image
            origin = image.origin - top * image.pitch - left
        else:
            height = image.height + _reach(node, 0) // int(node.attrs["strides"][0])
            x_image = Image(height, _columns_read(node), image.pitch, after=image.columns - image.run + image.pitch)
            source, origin = self._repack(node, x, x_image), 0
        attrs = {
            "image": image,
            "x_image": x_image,
            "x_origin": origin,
            "strides": _phases(node),
            "dilation": tuple(node.attrs["dilation"]),
            "groups": node.attrs["groups"],
            "blank": node.attrs["blank"],
            "dense_seconds": node.attrs.get("dense_seconds", inf),
        }
        shape = (*node.output.shape[:2], image.plane)
        self.padded[node.output] = self._add("conv_padded", node, [source, weight], shape, attrs)

    def _rewrite_pool(self, node: Node) -> None:
        (x,), y, attrs = node.inputs, node.output, node.attrs
        source, image = (self.forms[value].image() if value in self.forms else None for value in (x, y))
        how = {name: attrs[name] for name in ("strides", "dilation", "padding", "ceil_mode")}
        how |= {"source": source, "image": image, "window": attrs["pool_size"], "borders": None}
        shape = y.shape if image is None else (*y.shape[:2], image.plane)
        pooled = self._add("max_pool", node, [self.padded.get(x, x)], shape, how)
        if image is None:
            self.graph.replace(y, pooled)
        else:
            self.padded[y] = pooled

    def _rewrite_transform(self, node: Node) -> None:
        x, matrix = node.inputs
        image = self.forms[node.output].image()
        if x in self.forms:
            x_image, source = self.forms[x].image(), self.padded[x]
        else:
            x_image = PlainImage(*_size(x), _size(x)[1])
            plane = (*x.shape[:2], x_image.plane)
            source = self.graph.add("reshape", [x], plane, {"shape": plane}, before=node)
        attrs = {**node.attrs, "x_image": x_image, "image": image}
        shape = (*node.output.shape[:2], image.plane)
        self.padded[node.output] = self._add(node.op, node, [source, matrix], shape, attrs)

    def _repack(self, node: Node, x: Value, x_image: Image) -> Value:
        phases = _phases(node)
        attrs = {
            "source": self.forms[x].image() if x in self.forms else None,
            "image": x_image,
            "strides": tuple(node.attrs["strides"]),
            "phases": phases,
            "padding": tuple(node.attrs["padding"][:2]),
            "blank": node.attrs["blank"],
        }
        channels = x.shape[1] * phases[0] * phases[1]
        source = self.padded.get(x, x)
        for user in source.users:  # two filters that read alike, as in a residual block, share a copy
            if user.op == "repack" and user.attrs == attrs:
                return user.output
        return self.graph.add("repack", [source], (x.shape[0], channels, x_image.plane), attrs, before=node)

    def _rewrite_follower(self, node: Node) -> None:
        image = self.forms[node.output].image()
        inputs = [
            self.padded[value]
            if self._is_image(value, node.output)
            else self._operand(self._as_plain(value, node), node)
            for value in node.inputs
        ]
        attrs = node.attrs | ({"axis": 1} if node.op == "concat" else {})
        shape = (*node.output.shape[:2], image.plane)
        self.padded[node.output] = self._add(node.op, node, inputs, shape, attrs)

    def _operand(self, value: Value, node: Node) -> Value:
        if value.rank < 3:
            return value  # a scalar
        shape = value.shape[:-1]
        if value.data is not None:
            return self.graph.constant(value.data.reshape(value.data.shape[:-1]), value.name)
        return self.graph.add("reshape", [value], shape, {"shape": shape}, before=node)

    def _add(self, op: str, node: Node, inputs: list[Value], shape: tuple, attrs: dict) -> Value:
        name = node.output.name
        return self.graph.add(op, inputs, shape, attrs, dtype=node.output.dtype, before=node, name=name)

    def _pixels(self, value: Value, before: Node) -> Value:
        """Return the pixels of an image for a kernel that takes them from where they lie."""
        attrs = {"image": self.forms[value].image()}
        return self.graph.add("pixels", [self.padded[value]], value.shape, attrs, dtype=value.dtype, before=before)

    def _as_plain(self, value: Value, before: Node | None) -> Value:
        """Return the value as `[N, C, H, W]`."""
        if value not in self.padded:
            return value
        if value not in self.plain:
            image = self.forms[value].image()
            attrs = {"source": image, "image": None, "strides": (1, 1), "phases": (1, 1), "padding": (0, 0), "blank": 0}
            plain = self.graph.add("repack", [self.padded[value]], value.shape, attrs, before=before, name=value.name)
            self.plain[value] = plain
        return self.plain[value]


def _can_pad(node: Node) -> bool:
    """Whether a convolution has constant weights, an image of constant size, and types that products have."""
    x, weight = node.inputs
    return weight.data is not None and _is_constant(node) and x.dtype in STORED


def _reaches_filter(value: Value) -> bool:
    """Whether a filter reads an image, through operators that keep its form if at all."""
    waiting, seen = [value], {value}
    while waiting:
        for user in waiting.pop().users:
            if user.op == "conv2d" and _can_pad(user):
                return True
            if (user.op in ELEMENTWISE or user.op == "concat") and not seen.issuperset(user.outputs):
                seen.update(user.outputs)
                waiting += user.outputs
    return False


def _can_pool(node: Node) -> bool:
    """Whether a pooling is of floats in an image of constant size; TVM makes no vectors of constants of bfloat16."""
    return _is_constant(node) and node.inputs[0].dtype in ("float32", "float16") and node.attrs["layout"] == "NCHW"


def _reduces_pixels(node: Node) -> bool:
    """Whether a node reduces all pixels of an image."""
    if node.op not in REDUCTIONS or node.inputs[0].rank != 4 or not isinstance(node.attrs.get("axis"), Sequence):
        return False
    return sorted(axis % 4 for axis in node.attrs["axis"]) == [2, 3]


def _is_constant(node: Node) -> bool:
    """Whether the images that a node reads and makes have constant sizes."""
    return all(isinstance(extent, int) for value in (node.inputs[0], node.output) for extent in value.shape[1:])


def _size(image: Value) -> tuple[int, int]:
    """Return height and width of an image of constant size."""
    height, width = (int(extent) for extent in image.shape[2:])  # type: ignore[arg-type]
    return height, width


def _reach(node: Node, axis: int) -> int:
    """Return how far the last tap is from the first one, in pixels of the input."""
    return (int(node.inputs[1].shape[2 + axis]) - 1) * int(node.attrs["dilation"][axis])  # type: ignore[arg-type]


def _phases(node: Node) -> tuple[int, int]:
    """Return how many phases of its image a filter reads in each direction."""
    sy, sx = (int(stride) for stride in node.attrs["strides"])
    return sy if _reach(node, 0) else 1, sx if _reach(node, 1) else 1


def _columns_read(node: Node) -> int:
    """Return how many columns of one phase a row of output pixels reads."""
    return int(node.output.shape[3]) + _reach(node, 1) // int(node.attrs["strides"][1])  # type: ignore[arg-type]


def _per_channel(value: Value, image: Value) -> bool:
    """Whether a value broadcasts over the pixels of an image."""
    if value.rank > image.rank:
        return False
    return all(is_one(extent) for extent in value.shape) or (
        value.rank > 2 and all(is_one(extent) for extent in value.shape[-2:])
    )


TRANSFORMS = ("winograd_input", "winograd_output")
"""Operators of `sparsec.graph.winograd`, whose images have forms of their own."""
