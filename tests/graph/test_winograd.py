"""Convolutions by minimal filtering mean the same, and are used where they multiply less."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

import sparsec
from sparsec.errors import LayoutError
from sparsec.graph import winograd
from sparsec.graph.evaluate import evaluate_node
from sparsec.graph.given_layouts import read_layout
from sparsec.graph.graph import Graph
from sparsec.graph.plan_images import plan_images
from sparsec.graph.products import find_anchor
from sparsec.graph.winograd import use_winograd
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.rules.product import propose
from sparsec.schedules.steps import Tile
from sparsec.targets import Target
from tests.graph.small_models import canonical, import_small, ops, run, same
from tests.graph.test_plan_images import chain, conv, planned, relu
from tests.graph.test_products import computed
from tests.ir.product_cases import NATIVE
from tests.test_compiler import Builder

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
ZEN = Target.parse("znver4")


@pytest.fixture
def always(monkeypatch):
    """Use it wherever it is right, cheap or not."""
    monkeypatch.setattr(winograd, "GAIN", math.inf)


def rewritten(*layers, target=ZEN, is_free=lambda name: True, **options) -> Graph:
    build, shape = chain(*layers, **options)
    graph = canonical(import_small(build, shape))
    before = run(graph)
    use_winograd(graph, target, is_free)
    same(before, run(graph))
    return graph


def filters(out, channels, kernel=(3, 3), keep=None, **options):
    """A convolution that keeps the size of its image, with weights of which `keep` says which are no zeros."""
    data = np.random.default_rng(0).standard_normal((out, channels, *kernel)).astype("float32")
    weight = relax.const(data if keep is None else data * keep(data))
    padding = options.pop("padding", (kernel[0] // 2, kernel[1] // 2) * 2)
    return lambda builder, x: op.nn.conv2d(x, weight, padding=padding, **options)


# -- what it means -------------------------------------------------------------------------------------------------


@st.composite
def keeping_size(draw):
    """Convolutions that keep the size of their image, padded on any side, and the image."""
    kernel = draw(st.sampled_from([(3, 3), (3, 1), (3, 5), (5, 5), (5, 3), (3, 2)]))
    above, left = (draw(st.integers(0, extent - 1)) for extent in kernel)
    padding = (above, left, kernel[0] - 1 - above, kernel[1] - 1 - left)
    height = draw(st.sampled_from([n for n in (3, 4, 5, 7, 8, 13, 16, 17) if n >= kernel[0]]))  # no tap sees nothing
    size = height, draw(st.sampled_from([1, 2, 3, 5, 8, 15, 17]))
    return conv(out=draw(st.sampled_from([4, 8])), kernel=kernel, padding=padding), size


@PROPERTY
@given(keeping_size(), st.integers(1, 2))
def test_any_image(convolution, batch):
    layer, size = convolution
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "GAIN", math.inf)
        graph = rewritten(layer, size=size, batch=batch)
    assert {"winograd_input", "conv2d", "winograd_output"} <= set(ops(graph))
    before = run(graph)
    same(before, run(planned(graph)))


def test_chains_of_layers(always):
    """What stands around the pixels of one image reaches none of the next one."""
    layers = conv(), relu, conv(seed=1), relu, conv(kernel=(5, 5), seed=2), conv(groups=2, seed=3), conv(seed=4)
    graph = rewritten(*layers)
    before = run(graph)
    assert ops(graph).count("winograd_input") == 4
    same(before, run(planned(graph)))


@pytest.mark.parametrize("size", [(3, 1), (3, 5), (4, 16), (7, 7), (9, 37), (14, 14)], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_kernels_of_transforms(always, size, batch):
    """Interpreted and compiled, on integers: sums of small ones are exact."""
    graph = rewritten(conv(), size=size, batch=batch)
    plan_images(graph)
    checked = 0
    for node in graph.nodes:
        if not node.op.startswith("winograd"):
            continue
        x = np.random.default_rng(0).integers(-4, 5, node.inputs[0].shape).astype("float32")
        (wanted,) = evaluate_node(node, [x, node.inputs[1].data], {})
        image = node.attrs["image"]
        rows = np.arange(image.height * image.pitch).reshape(image.height, -1)[:, : image.width] + image.origin
        pixels = [rows.ravel()]
        if node.attrs.get("borders") is not None:
            pixels.append(np.arange(image.origin - image.before, image.origin + image.run + image.after))
        read = np.unique(np.concatenate(pixels))
        for found in computed(find_anchor(node), {"X": x}, {}):
            np.testing.assert_array_equal(found.reshape(wanted.shape)[..., read], wanted[..., read])
        checked += 1
    assert checked == 2


# -- where it is used ----------------------------------------------------------------------------------------------


def uses(layer, **options) -> bool:
    return "winograd_input" in ops(rewritten(layer, **options))


LARGE = {"channels": 32, "size": (28, 28)}


def test_dense_layers_use_it():
    assert uses(filters(32, 32), **LARGE)
    assert uses(filters(32, 32, (5, 5)), **LARGE)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (filters(32, 32, strides=(2, 2)), LARGE),
        (filters(32, 32, padding=(0, 0, 0, 0)), LARGE),
        (filters(32, 32, padding=(2, 2, 2, 2), dilation=(2, 2)), LARGE),
        (filters(32, 32, (1, 3), padding=(0, 1, 0, 1)), LARGE),
        (filters(32, 32, (7, 7)), LARGE),
        (filters(32, 16, groups=2), LARGE),
    ],
    ids=["strides", "smaller image", "dilation", "one row", "seven rows", "groups"],
)
def test_layers_that_do_not(layer, options):
    assert not uses(layer, **options)


def test_few_channels_are_not_worth_transforms():
    assert not uses(filters(4, 3), channels=3, size=(64, 64))


def test_zeros_without_structure_are_worth_more():
    assert not uses(filters(32, 32, keep=lambda w: np.random.default_rng(1).random(w.shape) < 0.3), **LARGE)


def test_zeros_of_whole_kernels_stay_zeros():
    def keep(weight):
        return np.random.default_rng(1).random(weight.shape[:2])[..., None, None] < 0.3

    graph = rewritten(filters(64, 64, keep=keep), channels=64, size=(28, 28))
    (layer,) = (node for node in graph.nodes if node.op == "conv2d")
    assert 0.25 < np.mean(layer.inputs[1].data != 0) < 0.35


def test_images_are_transformed_once_for_all_that_read_them_alike(always):
    def build(builder, x):
        same = [builder.emit(conv(seed=seed)(builder, x)) for seed in (1, 2)]
        other = builder.emit(conv(kernel=(5, 5), seed=3)(builder, x))
        return builder.emit(op.concat([*same, other], axis=1))

    graph = canonical(import_small(build, (1, 4, 9, 8)))
    before = run(graph)
    use_winograd(graph, ZEN, lambda name: True)
    assert ops(graph).count("winograd_input") == 2 and ops(graph).count("winograd_output") == 3
    same(before, run(graph))


def test_layers_of_half_their_weights_are_no_slower_than_dense_ones():
    """Sparse loops over half of a weight take longer than half of the products of all of it."""
    half = filters(64, 64, keep=lambda weight: np.random.default_rng(1).random(weight.shape) < 0.5)
    assert uses(half, channels=64, size=(56, 56), target=Target.parse("znver3"))


def test_what_dense_layers_would_take_is_known_of_sparse_ones():
    def priced(keep):
        graph = rewritten(filters(64, 64, keep=keep), channels=64, size=(28, 28))
        (node,) = (node for node in graph.nodes if node.op == "conv2d")
        return node.attrs["dense_seconds"]

    assert priced(lambda w: np.random.default_rng(1).random(w.shape) < 0.1) == priced(None)


def test_layouts_that_are_given_are_kept():
    assert not uses(filters(32, 32), is_free=lambda name: False, **LARGE)


def test_what_lies_between_groups_is_not_computed():
    """The dense layout of a grouped convolution holds its groups alone."""
    graph = rewritten(filters(32, 32), **LARGE)
    plan_images(graph)
    (node,) = (node for node in graph.nodes if node.op == "conv_padded")
    anchor = find_anchor(node)
    dense = propose(anchor.product, anchor.matrix(), NATIVE, only_dense=True)
    assert "diagonal" in str(dense.product.layout)
    assert dense.product.layout.pack(anchor.matrix()).arrays["data"].size == node.inputs[1].data.size


# -- compiled ------------------------------------------------------------------------------------------------------


class Block(torch.nn.Module):
    """Two filters with a residual, between pointwise layers."""

    def __init__(self, channels):
        super().__init__()
        self.into = torch.nn.Conv2d(3, channels, 1)
        self.first = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.second = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.out_of = torch.nn.Conv2d(channels, 8, 1)

    def forward(self, x):
        x = torch.relu(self.into(x))
        return self.out_of(torch.relu(self.second(torch.relu(self.first(x))) + x))


@pytest.mark.parametrize("size", [(14, 14), (7, 9), (28, 31)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network(always, size, batch):
    torch.manual_seed(0)
    model, x = Block(32).eval(), torch.randn(batch, 3, *size)
    with torch.no_grad():
        wanted = model.double()(x.double()).numpy()
        model.float()
    artifact = sparsec.compile(model, example_inputs=(x,))
    assert [layer.get("filtering") for layer in artifact.manifest["layers"]] == [None, "F(4, 3)", "F(4, 3)", None]
    found = [artifact.load(threads=threads)(x.numpy()) for threads in (1, 2)]
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(found[0], found[1])


def test_an_open_batch(always):
    b = Builder()
    rng = np.random.default_rng(0)
    w = [rng.standard_normal((8, 8, 3, 3)).astype("float32") / 8 for _ in range(2)]
    bias = rng.standard_normal(8).astype("float32")
    y = b.Relu(b.Conv("x", w[0], bias, pads=[1] * 4))
    b.Add(b.Conv(y, w[1], pads=[1] * 4), "x", name="y")
    model = b.model({"x": ["n", 8, 9, 7]}, {"y": ["n", 8, 9, 7]})
    artifact = sparsec.compile(model, shapes={"n": (1, 8)})
    assert [layer["filtering"] for layer in artifact.manifest["layers"]] == ["F(4, 3)"] * 2
    session = artifact.load(threads=2)
    for n in (1, 3, 8):
        x = rng.standard_normal((n, 8, 9, 7)).astype("float32")
        image, first, second, shift = (torch.from_numpy(each).double() for each in (x, *w, bias))
        middle = torch.relu(torch.conv2d(image, first, shift, padding=1))
        wanted = torch.conv2d(middle, second, padding=1) + image
        np.testing.assert_allclose(session(x), wanted.numpy(), rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("target", ["native", "x86-64-v2"])
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_filters_of_several_rows(always, target, taps, padding):
    """Padded alike above and below, or not."""
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(8, 12, (taps, 3), bias=True), torch.randn(1, 8, 11, 9)
    b = Builder()
    weight, bias = (value.detach().numpy() for value in (layer.weight, layer.bias))
    b.Conv("x", weight, bias, pads=[padding, 0, taps - 1 - padding, 2], name="y")
    artifact = sparsec.compile(b.model({"x": x.shape}, {"y": [1, 12, 11, 9]}), target=target)
    assert artifact.manifest["layers"][0]["filtering"] == f"F({7 - taps}, {taps})"
    around = torch.nn.functional.pad(x, (0, 2, padding, taps - 1 - padding))
    np.testing.assert_allclose(artifact.load()(x.numpy()), layer(around).detach().numpy(), rtol=0, atol=2e-5)


class Readers(torch.nn.Module):
    """An image that is an output, pooled, reduced, joined to another and read by a filter."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 5, padding=2)

    def forward(self, x):
        y = self.first(x)
        z = self.second(y)
        return y, z, torch.nn.functional.max_pool2d(y, 2), y.mean((2, 3)), torch.cat([y, z], 1)


def test_all_that_reads_an_image(always):
    torch.manual_seed(0)
    model, x = Readers().eval(), torch.randn(2, 8, 10, 7)
    session = sparsec.compile(model, example_inputs=(x,)).load(threads=2)
    for found, wanted in zip(session(x.numpy()), model(x), strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=0, atol=1e-5)


def test_layers_are_told_as_the_model_has_them():
    """And not as what was made of them."""
    torch.manual_seed(0)
    model, x = Block(64).eval(), torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        model.first.weight *= torch.rand(model.first.weight.shape) >= 0.3
    report = sparsec.inspect(model, example_inputs=(x,), options=True)
    layers = {layer.name.partition(":")[0]: layer for layer in report.layers}
    assert list(layers) == ["into", "first", "second", "out_of"]
    assert (layers["into"].shape, layers["into"].filtering) == ((64, 3, 1, 1), "")
    first, second = layers["first"], layers["second"]
    assert (first.shape, first.filtering, first.structure) == ((64, 64, 3, 3), "F(4, 3)", "unstructured")
    assert first.sparsity == pytest.approx(0.3, abs=0.01)
    assert first.dense_nbytes == 4 * model.first.weight.numel() < first.nbytes
    assert report.maps[1].density.max() <= 1 and report.maps[1].density.mean() == pytest.approx(0.7, abs=0.01)
    assert second.sparsity == 0 and first.dense_seconds == pytest.approx(second.dense_seconds, rel=0.2)
    (chosen,) = (option for option in second.options if option.chosen)
    assert chosen.seconds == pytest.approx(second.seconds)


def test_speed_ups_are_over_one_dense_layer_whatever_is_given():
    """In a batch, too, and dense layers are as fast as themselves."""
    torch.manual_seed(0)
    model, x = Block(64).eval(), torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        model.first.weight *= torch.rand(model.first.weight.shape) >= 0.9

    def inspected(layouts=None):
        report = sparsec.inspect(model, example_inputs=(x,), layouts=layouts, target="znver4")
        return {layer.name.partition(":")[0]: layer for layer in report.layers}

    free, given = inspected(), inspected({"*": "bucketed rows"})  # rows are padded more in the network: 4 %
    assert free["first"].filtering == given["second"].filtering == "" and free["second"].filtering == "F(4, 3)"
    assert free["second"].dense_seconds == pytest.approx(free["second"].seconds)
    for name in ("first", "second"):
        assert given[name].dense_seconds == pytest.approx(free["second"].dense_seconds, rel=0.05)


def test_its_dense_self_uses_it_too():
    """So that no layer is held against a dense one that is slower than it could be."""
    torch.manual_seed(0)
    model, x = Block(32).eval(), torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        for weight in (model.first.weight, model.second.weight):
            weight *= torch.rand(weight.shape) < 0.2

    def filterings(dense: bool) -> list[str | None]:
        layers = sparsec.compile(model, example_inputs=(x,), dense=dense).manifest["layers"]
        return [layer.get("filtering") for layer in layers]

    assert filterings(dense=False) == [None] * 4
    assert filterings(dense=True) == [None, "F(4, 3)", "F(4, 3)", None]


def test_rows_that_are_missing_are_for_plain_loops(always):
    graph = rewritten(conv(), size=(8, 8))
    plan_images(graph)
    anchor = next(found for node in graph.nodes if node.op == "winograd_input" and (found := find_anchor(node)))
    product = anchor.product.stored_as(read_layout("dense"))
    with pytest.raises(LayoutError, match="lacks rows of X or Y, which only plain loops"):
        build_kernel(product, Tile((8,), skip_zeros=True).tiling(product.columns, product.rows))
