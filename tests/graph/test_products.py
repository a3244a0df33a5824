"""Layers as products: their kernels, interpreted and compiled, compute what the graph means."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.relax import op

from sparsec.graph.evaluate import evaluate_node
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.plan_images import plan_images
from sparsec.graph.products import Anchor, find_anchor
from sparsec.graph.shape import evaluate_dim
from sparsec.ir.image import Image
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Load
from sparsec.ir.product import SUM
from sparsec.schedules.rules.product import propose
from tests.graph.convolution_strategies import convolutions
from tests.graph.small_models import canonical, import_small
from tests.ir.product_cases import NATIVE, Compiled, integers, sparse

Arrays = Mapping[str, np.ndarray]


def computed(anchor: Anchor, arrays: Arrays, symbols: Mapping[str, int], run: bool = True) -> list[np.ndarray]:
    """Y, flat as the kernel writes it, of the interpreter and of compiled code."""
    product = anchor.product
    matrix = anchor.matrix() if anchor.matrix else None
    proposal = propose(product, matrix, NATIVE)
    scheduled = proposal.trace.apply(proposal.product)

    def extents(buffer: Buffer) -> list[int]:
        return [evaluate_dim(dim, symbols) for dim in anchor.shapes.get(buffer.name, buffer.shape)]

    given = {b.name: arrays[b.name].reshape(extents(b)) for b in product.inputs if b.name in arrays}
    given |= anchor.constants | ({} if matrix is None else proposal.product.parts(matrix))
    y_shape = tuple(extents(product.y))
    sizes = {dim: n for dim, n in zip(product.y.shape, y_shape, strict=True) if isinstance(dim, str)}
    found = [interpret(scheduled.kernel, given, sizes)["Y"]]
    if run:
        found.append(Compiled(scheduled.lowered, scheduled.func)(given, {"Y": y_shape})["Y"])
    return found


# -- matrices ------------------------------------------------------------------------------------------------------


def node_of(op_name, shapes, y_shape, weight=None, **attrs) -> Node:
    """A node over inputs of these shapes; the last one may be a constant."""
    graph = Graph()
    inputs = [graph.input(f"x{n}", shape, "float32") for n, shape in enumerate(shapes)]
    if weight is not None:
        inputs.append(graph.constant(weight))
    return graph.add(op_name, inputs, y_shape, attrs).producer


def linear_node(batch=(), columns=37, rows=12, depth=20, density=0.3) -> Node:
    weight = sparse(rows, depth, density)
    return node_of("linear_cols", [(*batch, depth, columns)], (*batch, rows, columns), weight)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("columns", [1, 37])
def test_linear_layers(batch, columns):
    node = linear_node(batch, columns)
    x = integers(*batch, 20, columns)
    (wanted,) = evaluate_node(node, [x, node.inputs[1].data], {})
    for found in computed(find_anchor(node), {"X": x}, {}):
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("open_dims", [("b",), ("m",), ("b", "m")], ids=str)
def test_linear_layers_of_symbolic_shape(open_dims):
    sizes = {"b": 3, "m": 37}
    batch, columns = (tirx.Var(name, "int64") if name in open_dims else n for name, n in sizes.items())
    node = linear_node((batch,), columns)
    x = integers(3, 20, 37)
    (wanted,) = evaluate_node(node, [x, node.inputs[1].data], sizes)
    for found in computed(find_anchor(node), {"X": x}, sizes):
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seq", [None, 19], ids=["constant", "symbolic"])
def test_attention(transposed, shared, seq):
    """Scores of two heads: [heads, keys, depth] by [heads, depth, queries], where the sequence may be open."""
    m = 19 if seq is None else tirx.Var("seq", "int64")
    heads = (1,) if shared else (2,)
    a_shape = (*heads, 8, m) if transposed else (*heads, m, 8)
    node = node_of("batch_matmul", [a_shape, (2, 8, m)], (2, m, m), lhs_transposed=transposed)
    a = integers(*heads, *((8, 19) if transposed else (19, 8)))
    b = integers(2, 8, 19, seed=1)
    (wanted,) = evaluate_node(node, [a, b], {"seq": 19})
    for found in computed(find_anchor(node), {"W": a, "X": b}, {"seq": 19}):
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


def test_matrices_that_broadcast_in_part_are_no_product():
    node = node_of("batch_matmul", [(2, 1, 8, 4), (2, 3, 4, 5)], (2, 3, 8, 5), lhs_transposed=False)
    assert find_anchor(node) is None


def test_other_types_are_no_product():
    node = linear_node()
    node.inputs[0].dtype = "float64"
    assert find_anchor(node) is None


# -- operands of epilogues -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        ((3,), ()),
        ((3,), (1,)),
        ((3,), (1, 1, 1)),
        ((3,), (12, 1)),
        ((3,), (1, 12, 1)),
        ((3,), (37,)),
        ((3,), (12, 37)),
        ((3,), (3, 12, 37)),
        ((3,), (3, 1, 37)),
        ((3,), (3, 12, 1)),
        ((3,), (3, 1, 1)),
        ((12,), (12, 1, 1)),
        ((2, 3), (2, 1, 1, 37)),
        ((2, 3), (1, 3, 12, 1)),
        ((2, 3), (3, 1, 1)),
        ((2, 3), (2, 3, 12, 37)),
        ((), (12, 1)),
        ((), (12, 37)),
    ],
    ids=str,
)
def test_operands_that_broadcast(batch, shape):
    node = linear_node(batch)
    x, other = integers(*batch, 20, 37), integers(*shape, seed=5)
    (wanted,) = evaluate_node(node, [x, node.inputs[1].data], {})
    anchor = with_operand(find_anchor(node), shape)
    for found in computed(anchor, {"X": x, "e": other}, {}, run=False):
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted + other)


def with_operand(anchor: Anchor, shape: tuple[int, ...]) -> Anchor:
    """The anchor whose epilogue adds a value of this shape."""
    read = anchor.operand(Value("e", shape, "float32"), "e")
    assert read is not None
    buffer, load, extents = read
    assert isinstance(load, Load) and buffer.name == load.buffer
    product = replace(anchor.product, operands=(buffer,), epilogue=SUM + load)
    return replace(anchor, product=product, shapes=anchor.shapes | {"e": extents})


def test_operands_of_other_types_and_ranks_are_refused():
    anchor = find_anchor(linear_node((3,)))
    assert anchor.operand(Value("e", (12, 1), "int64"), "e") is None
    assert anchor.operand(Value("e", (1, 3, 12, 37), "float32"), "e") is None


# -- convolutions --------------------------------------------------------------------------------------------------


def kernels_agree(build, *shapes, run=True, **symbols) -> Graph:
    """Run a planned graph, its convolutions by their kernels, and hold it against the graph before.

    Between two convolutions, all that a kernel need not write is NaN.
    """
    model = import_small(build, *shapes, **{name: (1, 8) for name in symbols})
    x = integers(*(symbols.get(extent, extent) for extent in shapes[0]))
    graph = canonical(model)
    (wanted,) = values(graph, x, symbols, {})
    plan_images(graph)
    assert any(node.op == "conv_padded" for node in graph.nodes)
    for way in range(1 + run):
        (found,) = values(
            graph, x, symbols, {"conv_padded": lambda node, args, way=way: conv(node, args, symbols, way)}
        )
        np.testing.assert_array_equal(found, wanted)
    return graph


def values(graph, x, symbols, kernels):
    known = {graph.inputs[0]: x}
    for node in graph.nodes:
        args = [v.data if v.data is not None else known[v] for v in node.inputs]
        run = kernels.get(node.op)
        results = [run(node, args)] if run else evaluate_node(node, args, symbols)
        known.update(zip(node.outputs, results, strict=True))
    return [known[v] for v in graph.outputs]


def conv(node, args, symbols, way):
    """The result of a convolution's kernel, interpreted or compiled; with borders it has zeros around its pixels."""
    (wanted,) = evaluate_node(node, args, symbols)
    found = computed(find_anchor(node), {"X": args[0]}, symbols, run=way == 1)[way].reshape(wanted.shape)
    image = node.attrs["image"]
    there = written(image) if node.attrs["borders"] is not None else pixels(image)
    np.testing.assert_array_equal(found[..., there], wanted[..., there])
    return np.where(there, found, np.float32(np.nan))


def pixels(image: Image) -> np.ndarray:
    """Where in a plane the pixels are."""
    place = np.arange(image.plane) - image.origin
    return (place >= 0) & (place // image.pitch < image.height) & (place % image.pitch < image.width)


def written(image: Image) -> np.ndarray:
    """Where in a plane a kernel must write: the pixels, and what filters read around them."""
    place = np.arange(image.plane) - image.origin
    return pixels(image) | (image.halo & (place >= -image.before) & (place < image.run + image.after))


def convolution(out, kernel, channels=4, groups=1, density=0.5, **options):
    """A layer of integer weights, of which every fourth output channel is zero."""
    filters = sparse(out, channels // groups * kernel[0] * kernel[1], density)
    filters[3::4] = 0
    filters = relax.const(filters.reshape(out, channels // groups, *kernel))
    return lambda builder, x: op.nn.conv2d(x, filters, groups=groups, **options)


def one(layer):
    return lambda builder, x: layer(builder, x)


CASES = {  # layer, image
    "1x1": (convolution(6, (1, 1)), (1, 4, 7, 9)),
    "1x1 of one pixel": (convolution(6, (1, 1)), (1, 4, 1, 1)),
    "3x3": (convolution(6, (3, 3), padding=(1, 1)), (1, 4, 7, 7)),
    "3x3 of one pixel": (convolution(6, (3, 3), padding=(1, 1)), (1, 4, 1, 1)),
    "3x3, batch": (convolution(6, (3, 3), padding=(1, 1)), (2, 4, 5, 11)),
    "3x3, no padding": (convolution(6, (3, 3)), (1, 4, 7, 9)),
    "3x3, stride 2": (convolution(6, (3, 3), padding=(1, 1), strides=(2, 2)), (1, 4, 13, 13)),
    "3x3, stride 2 of an even image": (convolution(6, (3, 3), padding=(1, 1), strides=(2, 2)), (2, 4, 8, 8)),
    "3x3, dense": (convolution(8, (3, 3), padding=(1, 1), density=1.0), (1, 4, 7, 7)),
    "3x3, no weight": (convolution(4, (3, 3), padding=(1, 1), density=0.0), (1, 4, 5, 5)),
    "3x3, dilation 2": (convolution(6, (3, 3), padding=(2, 2), dilation=(2, 2)), (1, 4, 7, 7)),
    "3x3, uneven padding": (convolution(6, (3, 3), padding=(0, 1, 2, 3)), (1, 4, 7, 7)),
    "3x3, stride 3 and dilation 2": (
        convolution(6, (3, 3), padding=(2, 1, 1, 2), strides=(3, 3), dilation=(2, 2)),
        (1, 4, 11, 11),
    ),
    "5x5": (convolution(6, (5, 5), padding=(2, 2)), (1, 4, 7, 7)),
    "7x7, stride 2": (convolution(8, (7, 7), 3, padding=(3, 3), strides=(2, 2)), (1, 3, 17, 17)),
    "1x7": (convolution(6, (1, 7), padding=(0, 3)), (1, 4, 7, 7)),
    "7x1": (convolution(6, (7, 1), padding=(3, 0)), (1, 4, 7, 7)),
    "1x1, stride 2": (convolution(6, (1, 1), strides=(2, 2)), (1, 4, 9, 9)),
    "1x3, stride 2 in x": (convolution(6, (1, 3), padding=(0, 1), strides=(1, 2)), (1, 4, 5, 9)),
    "2 groups": (convolution(8, (3, 3), 4, 2, padding=(1, 1)), (1, 4, 7, 7)),
    "depthwise": (convolution(4, (3, 3), 4, 4, density=1.0, padding=(1, 1)), (1, 4, 7, 7)),
    "depthwise, stride 2": (convolution(8, (3, 3), 4, 4, density=1.0, padding=(1, 1), strides=(2, 2)), (1, 4, 7, 7)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_convolution(name):
    layer, shape = CASES[name]
    kernels_agree(one(layer), shape)


@pytest.mark.parametrize("name", ["3x3", "3x3, stride 2", "5x5", "1x1", "depthwise", "3x3, no padding"])
def test_a_convolution_of_one_that_wrote_zeros_around(name):
    layer, shape = CASES[name]

    def build(builder, x):
        x = builder.emit(convolution(4, (3, 3), padding=(1, 1))(builder, x))
        return layer(builder, builder.emit(op.nn.relu(x)))

    kernels_agree(build, shape)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(convolutions(convolution, largest=7), st.integers(1, 2))
def test_any_convolution(drawn, batch):
    layer, size = drawn
    kernels_agree(one(layer), (batch, 4, *size), run=False)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_of_symbolic_batch(batch):
    layer, (_, *rest) = CASES["3x3"]
    kernels_agree(one(layer), ("n", *rest), n=batch)


def padded_convolution() -> Node:
    """A convolution whose result another one reads with a border."""

    def build(builder, x):
        y = builder.emit(convolution(8, (3, 3), padding=(1, 1))(builder, x))  # 6 are left of its channels
        return convolution(4, (5, 5), 8, padding=(2, 2))(builder, y)

    graph = canonical(import_small(build, (1, 4, 7, 7)))
    plan_images(graph)
    return next(node for node in graph.nodes if node.op == "conv_padded")


@pytest.mark.parametrize("shape", [(1, 6, 1), (6, 1), (1, 1, 1), (), "image"], ids=str)
def test_operands_of_images(shape):
    node = padded_convolution()
    image: Image = node.attrs["image"]
    x = integers(*(int(extent) for extent in node.inputs[0].shape))
    extents = node.output.shape if shape == "image" else shape
    other = integers(*extents, seed=4)
    (wanted,) = evaluate_node(node, [x, node.inputs[1].data], {})
    wanted = np.where(pixels(image), wanted + other, 0)
    assert image.halo
    for found in computed(with_operand(find_anchor(node), extents), {"X": x, "e": other}, {}):
        there = written(image)
        np.testing.assert_array_equal(found.reshape(wanted.shape)[..., there], wanted[..., there])


def test_operands_that_vary_over_pixels_but_not_channels_are_refused():
    node = padded_convolution()
    plane = node.attrs["image"].plane
    assert find_anchor(node).operand(Value("e", (1, 1, plane), "float32"), "e") is None
