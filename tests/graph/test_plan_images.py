"""Padded images hold what plain ones do, over every form of convolution and what stands between them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

from sparsec.graph.graph import Graph
from sparsec.graph.image_borders import WRITES_BORDERS, keep_borders
from sparsec.graph.plan_images import plan_images
from sparsec.ir.image import Image
from tests.graph.convolution_strategies import convolutions
from tests.graph.small_models import canonical, import_small, ops, run, same

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)


def weight(*shape, seed=0):
    return relax.const(np.random.default_rng([seed, *shape]).standard_normal(shape).astype("float32"))


def planned(graph: Graph, masked: bool = True) -> Graph:
    """Plan images; `masked` as if convolutions and pools wrote the borders of their results, as their kernels do."""
    plan_images(graph)
    writers = [node for node in graph.nodes if masked and node.op in WRITES_BORDERS]
    while keep_borders(graph, {node.output: node.attrs["borders"] for node in writers}):
        graph.verify()
    return graph


def means_the_same(build, *shapes, **symbols) -> Graph:
    """Hold a planned graph against the one before."""
    model = import_small(build, *shapes, **{name: (1, 8) for name in symbols})
    before = run(canonical(model), **symbols)
    graph = planned(canonical(model))
    assert "conv2d" not in ops(graph)
    same(before, run(graph, **symbols))
    return graph


def chain(*layers, channels=4, size=(7, 9), batch=1):
    """A model of layers, each of which makes an operator from the builder and the last result."""

    def build(builder, x):
        for layer in layers:
            x = builder.emit(layer(builder, x))
        return x

    return build, (batch, channels, *size)


def conv(out=4, kernel=(3, 3), channels=4, groups=1, seed=0, **options):
    """A convolution that keeps the size of its image, unless it is told otherwise."""
    options.setdefault("padding", (kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2))
    filters = weight(out, channels // groups, *kernel, seed=seed)
    return lambda builder, x: op.nn.conv2d(x, filters, groups=groups, **options)


def unary(function):
    return lambda builder, x: function(x)


relu, sigmoid = unary(op.nn.relu), unary(op.sigmoid)


# -- one convolution -----------------------------------------------------------------------------------------------


@PROPERTY
@given(convolutions(conv), st.integers(1, 2))
def test_any_convolution(convolution, batch):
    layer, size = convolution
    build, shape = chain(layer, size=size, batch=batch)
    means_the_same(build, shape)


@PROPERTY
@given(convolutions(conv), st.sampled_from([relu, sigmoid]))
def test_any_convolution_after_one_of_stride_one(convolution, between):
    layer, size = convolution
    build, shape = chain(conv(), between, layer, size=size)
    means_the_same(build, shape)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_symbolic_batch(batch):
    build, (_, *rest) = chain(conv(), relu, conv(strides=(2, 2)))
    means_the_same(build, ("n", *rest), n=batch)


# -- what is copied ------------------------------------------------------------------------------------------------


def test_a_chain_of_convolutions_is_copied_in_and_out_only():
    build, shape = chain(conv(), relu, conv(kernel=(5, 5)), relu, conv(kernel=(1, 1)), conv(dilation=(2, 2), padding=2))
    assert ops(means_the_same(build, shape)).count("repack") == 2


def test_a_residual_block_is_copied_in_and_out_only():
    def build(builder, x):
        first = builder.emit(op.nn.relu(builder.emit(conv()(builder, x))))
        second = builder.emit(conv(seed=1)(builder, first))
        return op.nn.relu(builder.emit(op.add(first, second)))

    assert ops(means_the_same(build, (1, 4, 7, 9))).count("repack") == 2


def test_convolutions_that_read_alike_share_a_copy():
    def build(builder, x):
        x = builder.emit(conv()(builder, x))
        down = builder.emit(conv(kernel=(1, 1), strides=(2, 2))(builder, x))
        other = builder.emit(conv(kernel=(1, 1), strides=(2, 2), seed=1)(builder, x))
        return op.add(down, other)

    assert ops(means_the_same(build, (1, 4, 8, 8))).count("repack") == 3


def test_a_filter_of_one_tap_reads_one_phase():
    build, shape = chain(conv(kernel=(1, 1), strides=(2, 2), padding=0), size=(8, 8))
    graph = means_the_same(build, shape)
    (copy,) = [node for node in graph.nodes if node.op == "repack" and node.attrs["source"] is None]
    assert copy.attrs["phases"] == (1, 1)
    assert copy.output.shape[1] == 4


def test_two_filters_of_one_image_share_its_form():
    def build(builder, x):
        x = builder.emit(conv()(builder, x))
        wide = builder.emit(conv(2, (5, 5))(builder, x))
        narrow = builder.emit(conv(3, (1, 1))(builder, x))
        return op.concat([wide, narrow], axis=1)

    graph = means_the_same(build, (1, 4, 7, 9))
    assert len({node.attrs["image"] for node in graph.nodes if node.op == "conv_padded"}) == 1
    assert ops(graph).count("repack") == 2


def test_other_operators_read_plain_images():
    def build(builder, x):
        x = builder.emit(conv()(builder, x))
        pooled = builder.emit(op.nn.avg_pool2d(x, (3, 3), strides=(2, 2), padding=(1, 1)))
        return op.nn.conv2d(pooled, weight(4, 4, 3, 3, seed=1), padding=(1, 1))

    graph = means_the_same(build, (1, 4, 9, 9))
    (pool,) = [node for node in graph.nodes if "avg_pool2d" in node.op]
    assert pool.inputs[0].shape == (1, 4, 9, 9)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel, borders", [((3, 3), 0), ((1, 1), None)])
def test_pooling_goes_from_form_to_form(kernel, borders, ceil_mode):
    pool = unary(lambda x: op.nn.max_pool2d(x, (3, 3), strides=(2, 2), padding=(1, 1), ceil_mode=ceil_mode))
    build, shape = chain(conv(), pool, conv(kernel=kernel, seed=1), size=(8, 12))
    graph = means_the_same(build, shape)
    assert ops(graph) == ["repack", "conv_padded", "max_pool", "conv_padded", "repack"]
    (pooled,) = (node for node in graph.nodes if node.op == "max_pool")
    assert pooled.attrs["source"] and pooled.attrs["image"] and pooled.attrs["borders"] == borders


@pytest.mark.parametrize("tail", [0, 3])
def test_pooling_keeps_the_form_that_filters_behind_other_operators_read(tail):
    def build(builder, x):
        x = builder.emit(conv()(builder, x))
        pools = [builder.emit(op.nn.max_pool2d(x, (size, size), padding=(size // 2,) * 4)) for size in (3, 5)]
        joined = builder.emit(op.concat([builder.emit(op.nn.relu(pools[0])), pools[1], x], axis=1))
        result = builder.emit(conv(channels=12, seed=1)(builder, joined))
        return builder.emit(relax.Tuple([result, pools[0]] if tail else [result]))

    graph = means_the_same(build, (1, 4, 7, 9 + tail))
    assert ops(graph).count("max_pool") == 2 and ops(graph).count("repack") == (3 if tail else 2)


def test_pooling_gives_a_plain_image_to_what_is_no_filter():
    build, shape = chain(conv(), unary(lambda x: op.nn.max_pool2d(x, (2, 2), strides=(2, 2))), unary(op.exp))
    graph = means_the_same(build, shape)
    assert ops(graph) == ["repack", "conv_padded", "max_pool", "exp"]
    build, shape = chain(unary(lambda x: op.nn.max_pool2d(x, (2, 2), strides=(2, 2))))
    assert ops(means_the_same(build, shape)) == ["nn.max_pool2d"]


def test_a_result_that_is_also_an_output():
    def build(builder, x):
        first = builder.emit(conv()(builder, x))
        return relax.Tuple([first, builder.emit(conv(seed=1)(builder, first))])

    means_the_same(build, (1, 4, 5, 6))


# -- elementwise operators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1), (1, 1, 7, 9), (7, 9), (9,)], ids=str
)
def test_operands_of_any_rank(shape):
    other = relax.const(np.random.default_rng(0).standard_normal(shape).astype("float32"))

    def build(builder, x):
        x = builder.emit(conv()(builder, x))
        x = builder.emit(op.maximum(x, other))
        return conv(seed=1)(builder, x)

    means_the_same(build, (1, 4, 7, 9))


def test_channels_gated_by_an_activation():
    def build(builder, x, gate):
        x = builder.emit(conv()(builder, x))
        x = builder.emit(op.multiply(x, gate))
        return conv(seed=1)(builder, x)

    means_the_same(build, (2, 4, 7, 9), (2, 4, 1, 1))


def test_squeeze_and_excitation_copies_no_image():
    def build(builder, x):
        image = builder.emit(conv()(builder, x))
        squeezed = builder.emit(op.mean(image, axis=[2, 3], keepdims=True))
        for layer in (conv(2, (1, 1)), conv(4, (1, 1), 2)):
            squeezed = builder.emit(op.nn.relu(builder.emit(layer(builder, squeezed))))
        gated = builder.emit(op.multiply(image, builder.emit(op.sigmoid(squeezed))))
        return builder.emit(conv()(builder, gated))

    graph = means_the_same(build, (2, 4, 7, 9))
    copied = [node.inputs[0] for node in graph.nodes if node.op == "repack"]
    assert sum(np.prod(value.shape[2:]) > 16 for value in copied) == 2 and ops(graph).count("pixels") == 1


@pytest.mark.parametrize("reduce, axis", [(op.max, [3, 2]), (op.sum, [-2, -1]), (op.mean, [2, 3])])
def test_what_reduces_all_pixels_reads_them_where_they_lie(reduce, axis):
    def build(builder, x):
        return builder.emit(reduce(builder.emit(conv()(builder, x)), axis=axis))

    assert ops(means_the_same(build, (1, 4, 5, 6))).count("pixels") == 1


@pytest.mark.parametrize("axis", [[2], [1, 2, 3]])
def test_what_reduces_other_axes_reads_a_plain_image(axis):
    def build(builder, x):
        return builder.emit(op.mean(builder.emit(conv()(builder, x)), axis=axis))

    assert "pixels" not in ops(means_the_same(build, (1, 4, 5, 6)))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("between", "kept"),
    [
        (relu, True),
        (unary(op.nn.gelu), True),
        (unary(lambda x: op.clip(x, relax.prim_value(0), relax.prim_value(6))), True),
        (unary(lambda x: op.multiply(x, relax.const(2.0, "float32"))), True),
        (unary(lambda x: op.divide(x, relax.const(2.0, "float32"))), True),
        (sigmoid, False),
        (unary(op.exp), False),
        (unary(lambda x: op.add(x, relax.const(1.0, "float32"))), False),
        (unary(lambda x: op.clip(x, relax.prim_value(1), relax.prim_value(6))), False),
        (unary(lambda x: op.divide(relax.const(2.0, "float32"), x)), False),
    ],
)
def test_zeros_around_pixels_are_kept_or_restored(between, kept, masked):
    """Where nothing masks the result of the first convolution, all zeros around it are restored."""
    build, shape = chain(conv(), between, conv(seed=1))
    graph = canonical(import_small(build, shape))
    before = run(graph)
    graph = planned(graph, masked)
    assert ops(graph).count("where") == (0 if kept and masked else 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        same(before, run(graph))


def test_nothing_is_restored_for_filters_without_padding():
    build, shape = chain(conv(kernel=(1, 1)), sigmoid, conv(kernel=(1, 1), seed=1))
    assert "where" not in ops(means_the_same(build, shape))


# -- forms ---------------------------------------------------------------------------------------------------------


def test_borders_are_as_wide_as_filters_reach():
    build, shape = chain(conv(kernel=(1, 1)), relu, conv(kernel=(5, 3)))
    graph = means_the_same(build, shape)
    images = {node.attrs["image"] for node in graph.nodes if node.op == "conv_padded"}
    assert images == {Image(7, 9, pitch=10, before=2 * 10 + 1, after=2 * 10 + 1)}
