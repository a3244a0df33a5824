"""Transposed convolutions are what PyTorch says they are, as convolutions of the graph and compiled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

import sparsec
from tests.graph.small_models import canonical, import_small, ops, run, same

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)


@st.composite
def one_axis(draw):
    """Extent, taps, stride, padding, output padding and dilation of one direction."""
    taps, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    extra = draw(st.integers(0, stride - 1))
    reach = (taps - 1) * dilation + 1
    extent = draw(st.integers(1, 6))
    most = min(reach - 1, ((extent - 1) * stride + reach + extra - 1) // 2)
    return extent, taps, stride, draw(st.integers(0, most)), extra, dilation


def expected(x, weight, **options) -> np.ndarray:
    function = torch.nn.functional.conv_transpose2d if x.ndim == 4 else torch.nn.functional.conv_transpose1d
    return function(torch.from_numpy(x), torch.from_numpy(weight), **options).numpy()


def model(weight, strides, padding, extra, dilation, groups):
    function = op.nn.conv2d_transpose if weight.ndim == 4 else op.nn.conv1d_transpose
    how = {"output_padding": extra, "dilation": dilation, "groups": groups}
    return lambda builder, x: builder.emit(function(x, relax.const(weight), strides, padding, **how))


@PROPERTY
@given(st.lists(one_axis(), min_size=1, max_size=2), st.sampled_from([1, 2, 4]), st.integers(1, 2))
def test_any_transposed_convolution(axes, groups, batch):
    extents, taps, strides, padding, extra, dilation = zip(*axes, strict=True)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, *taps)).astype("float32")
    graph = canonical(import_small(model(weight, strides, padding, extra, dilation, groups), (batch, 4, *extents)))
    assert ops(graph).count("conv2d") == 1 and not any("transpose" in name for name in ops(graph))
    x = np.random.default_rng(0).standard_normal((batch, 4, *extents)).astype("float32")
    how = {"stride": strides, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups}
    same([expected(x, weight, **how)], run(graph))


@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_done_to_channels_joins_the_convolution(groups):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((4, 3, 2, 2)).astype("float32")
    bias, *statistics = rng.uniform(0.5, 2, (5, 3 * groups)).astype("float32")  # gamma, beta, mean, variance

    def build(builder, x):
        y = builder.emit(model(weight, (2, 2), (0, 0), (0, 0), (1, 1), groups)(builder, x))
        y = builder.emit(op.add(relax.const(bias.reshape(1, -1, 1, 1)), y))
        norm = builder.emit(op.nn.batch_norm(y, *map(relax.const, statistics), axis=1, training=False))
        return builder.emit(op.nn.relu(builder.emit(relax.TupleGetItem(norm, 0))))

    graph = canonical(import_small(build, (2, 4, 5, 6)))
    assert ops(graph)[:4] == ["conv2d", "add", "nn.relu", "reshape"] and "nn.batch_norm" not in ops(graph)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 6)).astype("float32")
    y = torch.from_numpy(expected(x, weight, stride=2, groups=groups) + bias.reshape(1, -1, 1, 1))
    gamma, beta, mean, variance = map(torch.from_numpy, statistics)
    same([torch.relu(torch.nn.functional.batch_norm(y, mean, variance, gamma, beta)).numpy()], run(graph))


def test_a_result_that_is_read_twice_is_put_together_first():
    weight = np.random.default_rng(1).standard_normal((4, 3, 2, 2)).astype("float32")

    def build(builder, x):
        y = builder.emit(model(weight, (2, 2), (0, 0), (0, 0), (1, 1), 1)(builder, x))
        return builder.emit(op.multiply(builder.emit(op.nn.relu(y)), builder.emit(op.sigmoid(y))))

    graph = canonical(import_small(build, (1, 4, 3, 5)))
    assert ops(graph)[:2] == ["conv2d", "reshape"]
    y = torch.from_numpy(
        expected(np.random.default_rng(0).standard_normal((1, 4, 3, 5)).astype("float32"), weight, stride=2)
    )
    same([(torch.relu(y) * torch.sigmoid(y)).numpy()], run(graph))


def test_dilation_without_stride_adds_no_taps():
    weight = np.ones((4, 3, 3, 3), "float32")
    graph = canonical(import_small(model(weight, (1, 1), (2, 2), (0, 0), (4, 4), 1), (1, 4, 20, 20)))
    (node,) = (node for node in graph.nodes if node.op == "conv2d")
    assert node.inputs[1].shape == (3, 4, 3, 3) and node.attrs["dilation"] == (4, 4)


@pytest.mark.parametrize("taps, stride, padding", [(2, 2, 0), (4, 2, 1), (3, 2, 1)])
def test_pruned_and_compiled(taps, stride, padding):
    class Upscale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.ConvTranspose2d(8, 6, taps, stride, padding)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.layer(x))

    torch.manual_seed(0)
    network = Upscale().eval()
    with torch.no_grad():
        network.layer.weight *= torch.rand_like(network.layer.weight) < 0.2
        x = torch.randn(1, 8, 9, 11)
        artifact = sparsec.compile(network, example_inputs=(x,))
        np.testing.assert_allclose(artifact.load(threads=1)(x.numpy()), network(x).numpy(), rtol=1e-5, atol=1e-5)
    (layer,) = artifact.load(threads=1).manifest["layers"]
    assert 0.6 < layer["sparsity"] < 0.95
