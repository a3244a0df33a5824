"""Layers of float32 models that multiply bfloat16."""

import numpy as np
import pytest
import torch

import sparsec
from sparsec.errors import InputError, TargetError
from sparsec.graph.graph import Graph
from sparsec.graph.products import find_anchor
from sparsec.graph.round_activations import round_activations
from sparsec.targets import Target

RAPIDS = Target.parse("sapphirerapids")


def two_layers() -> Graph:
    """Both read x, which an addition reads too."""
    graph = Graph()
    x = graph.input("x", (64, 32), "float32")
    weights = (np.random.default_rng(n).standard_normal((64, 64)).astype(np.float32) for n in range(2))
    a, b = (graph.add("linear_cols", [x, graph.constant(w)], (64, 32)) for w in weights)
    graph.outputs = [graph.add("add", [graph.add("add", [a, b], a.shape), x], a.shape)]
    return graph


def test_what_layers_read_is_rounded_once_and_sums_stay():
    graph = two_layers()
    round_activations(graph, RAPIDS, "bfloat16")
    graph.verify()
    assert [node.op for node in graph.nodes] == ["astype", "linear_cols", "linear_cols", "add", "add"]
    for node in graph.nodes[1:3]:
        product = find_anchor(node).product
        assert (product.x.dtype, product.weight.dtype, product.y.dtype, product.rounded) == (
            *["bfloat16"] * 2, "float32", True
        )  # fmt: skip


def test_grouped_convolutions_stay():
    graph = Graph()
    x = graph.input("x", (1, 8, 16), "float32")
    weight = graph.constant(np.ones((8, 1, 1, 1), np.float32))
    graph.outputs = [graph.add("conv_padded", [x, weight], (1, 8, 16), {"groups": 8, "image": None})]
    round_activations(graph, RAPIDS, "bfloat16")
    assert len(graph.nodes) == 1


def test_processors_without_instructions_are_refused():
    with pytest.raises(TargetError, match=r"^haswell has no instruction that multiplies bfloat16 .*$"):
        round_activations(two_layers(), Target.parse("haswell"), "bfloat16")


def test_other_types_are_refused():
    with pytest.raises(InputError, match=r"^layers cannot be computed in 'float16'; compute is one of bfloat16$"):
        sparsec.compile(torch.nn.Linear(4, 4), example_inputs=(torch.zeros(2, 4),), compute="float16")


@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("target", ["emulate:sapphirerapids", "emulate:armv8.6"])
def test_results_are_within_their_bounds(target, density):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(48, 64, bias=False), torch.randn(32, 48)
    layer.weight.data *= torch.rand(64, 48) < density
    artifact = sparsec.compile(layer, target=target, example_inputs=(x,), compute="bfloat16")
    (described,) = artifact.manifest["layers"]
    assert (artifact.manifest["compute"], described["storage"]) == ("bfloat16", "bfloat16")
    found = np.asarray(artifact.load(threads=1)(x.numpy()))
    given = x.numpy(), layer.weight.detach().numpy()
    (a, w), (near_a, near_w) = ([v.astype(t).astype(np.float64) for v in given] for t in (np.float32, "bfloat16"))
    size = np.abs(a) @ np.abs(w.T)
    assert (np.abs(found - near_a @ near_w.T) <= 2.0**-18 * size).all()
    assert (np.abs(found - a @ w.T) <= 2.0**-7 * size).all()
