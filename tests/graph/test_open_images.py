"""Convolutions over images of open size are linear layers over any number of pixels."""

import numpy as np
import torch
from hypothesis import given, settings

import sparsec
from sparsec.graph.canonicalize import canonicalize
from tests.graph.convolution_strategies import convolutions
from tests.graph.small_models import ops, run, same, small_graph
from tests.graph.test_plan_images import chain, conv

PROPERTY = settings(deadline=None, derandomize=True, max_examples=30)


def opened(layer, size, batch=2):
    build, _ = chain(layer)
    graph = small_graph(build, (batch, 4, "h", "w"), h=(1, 40), w=(1, 40))
    sizes = dict(zip("hw", size, strict=True))
    before = run(graph, **sizes)
    canonicalize(graph)
    same(before, run(graph, **sizes))
    return graph


@PROPERTY
@given(convolutions(lambda *args, **options: (conv(*args, **options), args[3])))
def test_any_convolution(convolution):
    (layer, groups), size = convolution
    found = ops(opened(layer, size))
    assert ("conv2d" in found, "linear" in found) == (groups > 1, groups == 1)


def test_a_filter_of_one_tap_copies_nothing():
    assert not {"concat", "strided_slice", "nn.pad"} & {*ops(opened(conv(kernel=(1, 1)), (5, 6)))}


def test_compiled_for_any_size():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1),
        torch.nn.BatchNorm2d(16),
        torch.nn.SiLU(),
        torch.nn.Conv2d(16, 32, 1),
        torch.nn.Conv2d(32, 32, 3, padding=1, groups=32),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 8, 3),
    ).eval()
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight *= torch.rand_like(layer.weight) < 0.3
        names = ("batch", None, "height", "width")
        dims = {n: torch.export.Dim(name, min=1 if n == 0 else 16, max=40) for n, name in enumerate(names) if name}
        program = torch.export.export(network, (torch.randn(2, 3, 20, 24),), dynamic_shapes=(dims,))
        session = sparsec.compile(program, shapes={"input": ((1, 2), 3, (16, 40), (16, 40))}).load(threads=1)
        for shape in (1, 3, 17, 33), (2, 3, 32, 16):
            x = torch.randn(*shape)
            np.testing.assert_allclose(session(x.numpy()), network(x).numpy(), rtol=1e-5, atol=1e-5)
    assert len(session.manifest["layers"]) >= 3
