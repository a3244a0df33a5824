"""Whole channels that are pruned take the inputs of other layers with them."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import sparsec
from sparsec.errors import PruningError
from sparsec.pruning import Channels, TileWise
from tests.pruning.networks import X, exported, model_of, network, normal, run, tensors


@pytest.mark.parametrize("matmul", [False, True])
def test_dead_channels_take_their_bias_and_the_inputs_that_they_were(matmul: bool) -> None:
    model = exported(network(), matmul)
    pruned = sparsec.prune(model, Channels(), 0.5, scope="layer")
    new = {
        name: array.T if matmul and name in ("7_weight", "9_weight") else array
        for name, array in tensors(pruned.model).items()
    }
    dead = ~new["2_weight"].any(axis=(1, 2, 3))
    assert dead.sum() == 8
    for vector in ("2_bias", "3_weight", "3_bias"):
        np.testing.assert_array_equal(new[vector] == 0, dead)
    hidden = ~new["7_weight"].any(axis=1)
    assert hidden.sum() == 20
    np.testing.assert_array_equal(~new["7_weight"][~hidden].any(axis=0), np.repeat(dead, 4))
    np.testing.assert_array_equal(~new["9_weight"].any(axis=0), hidden)
    kept = {layer.name: layer.kept for layer in pruned.layers}
    assert kept["fc2"] == "computes outputs of the model"


def test_dead_channels_change_nothing_that_the_masks_of_their_own_layer_do_not() -> None:
    """The inputs that die with a channel were multiplied by zeros alone."""
    model = exported(network())
    pruned = sparsec.prune(model, Channels(), 0.5, scope="layer")
    rows_only = onnx.ModelProto()
    rows_only.CopyFrom(model)
    for tensor in rows_only.graph.initializer:
        mask = pruned.masks.get(tensor.name)
        if mask is not None:
            axes = tuple(range(1, mask.ndim))
            rows = mask.any(axis=axes, keepdims=True) if axes else mask
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * rows, tensor.name))
    np.testing.assert_allclose(run(pruned.model, X), run(rows_only, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [["Clip", "low", "high"], ["Relu"], ["HardSwish"]], ids=["relu6", "relu", "hardswish"])
def test_dead_channels_die_through_depthwise_convolutions_and_global_means(clip: list[str]) -> None:
    """As in MobileNets, written as PyTorch exports them."""
    operator, *bounds = clip
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["a"], name="stem"),
        helper.make_node("Conv", ["a", "expand", "expand_bias"], ["b"], name="expand"),
        helper.make_node(operator, ["b", *bounds], ["c"]),
        helper.make_node("Conv", ["c", "depthwise", "depthwise_bias"], ["d"], name="depthwise", group=12),
        helper.make_node(operator, ["d", *bounds], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["f"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["f", "head"], ["y"], name="head", transB=1),
    ]
    arrays = {
        "stem": normal(4, 3, 1, 1),
        "expand": normal(12, 4, 1, 1),
        "expand_bias": normal(12),
        "depthwise": normal(12, 1, 3, 3),
        "depthwise_bias": normal(12),
        "head": normal(10, 12),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    pruned = sparsec.prune(model_of(nodes, arrays, [2, 3, 8, 8], [2, 10]), Channels(), 0.5)
    new = tensors(pruned.model)
    dead = ~new["expand"].any(axis=(1, 2, 3))
    assert dead.sum() == 6
    np.testing.assert_array_equal(~new["depthwise"].any(axis=(1, 2, 3)), dead)
    for name in ("expand_bias", "depthwise_bias"):
        np.testing.assert_array_equal(new[name] == 0, dead)
    np.testing.assert_array_equal(~new["head"].any(axis=0), dead)


def test_channels_live_on_where_something_is_made_of_nothing() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="first"),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"], name="second"),
        helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        helper.make_node("MatMul", ["d", "third"], ["e"], name="third"),
        helper.make_node("Add", ["e", "scalar"], ["f"]),
        helper.make_node("MatMul", ["f", "fourth"], ["y"], name="fourth"),
    ]
    arrays = {name: normal(8, 8, seed=seed) for seed, name in enumerate(("first", "second", "third", "fourth"))}
    arrays |= {"low": np.float32(1), "high": np.float32(2), "scalar": np.float32(1)}
    new = tensors(sparsec.prune(model_of(nodes, arrays, [2, 8], [2, 8]), Channels(), 0.5, scope="layer").model)
    assert all((~new[name].any(axis=0)).sum() == 4 for name in ("first", "second", "third"))
    assert all(new[name].any(axis=1).all() for name in ("second", "third", "fourth"))


class Residual(nn.Module):
    """A channel that a residual brings back is no dead input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = torch.relu(self.second(a))
        c = torch.cat([self.third(a + b), b], 1)
        return self.head(c)


def test_channels_die_in_sums_only_where_they_are_dead_in_both() -> None:
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():
        net.first.weight[:3] = 0.0
        net.second.weight[1:4] = 0.0
        net.third.weight[6:] = 0.0
    pruned = sparsec.prune(net, Channels(), 0.3, scope="layer")
    first, second, third = (~pruned.masks[f"{name}.weight"].any(axis=1) for name in ("first", "second", "third"))
    assert (np.flatnonzero(first) < 3).all() and first.sum() == 2
    dead_inputs = ~pruned.masks["third.weight"][~third].any(axis=0)
    np.testing.assert_array_equal(dead_inputs, first & second)
    assert (first & second).any()
    kept = {layer.name: layer.kept for layer in pruned.layers}
    assert kept == {"first": "", "second": "", "third": "", "head": "computes outputs of the model"}


def test_a_module_that_cannot_be_traced_is_pruned_in_onnx() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)) if x.sum() > 0 else x

    with pytest.raises(PruningError, match=r"torch\.fx cannot trace Branch .*; export it to ONNX"):
        sparsec.prune(Branch(), Channels(), 0.5)
    kept = [layer.kept for layer in sparsec.prune(Branch(), TileWise(4, two_sided=True), 0.5).layers]
    assert kept == ["", "computes outputs of the model"]
