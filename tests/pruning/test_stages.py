"""Pruning in stages, with what is pruned held at zero while the rest is trained."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import sparsec
from tests.pruning.networks import X, exported, linear, network, tensors


@pytest.mark.parametrize("make", [network, lambda: exported(network())], ids=["torch", "onnx"])
def test_stages_call_back_with_the_model_and_its_sparsity(make: Any) -> None:
    calls = []
    source = make()
    pruned = sparsec.prune(source, "unstructured", [0.25, 0.5, 0.75], fine_tune=lambda *args: calls.append(args))
    assert [sparsity for _, sparsity in calls] == [0.25, 0.5, 0.75]
    assert all(model is pruned.model for model, _ in calls)
    assert pruned.sparsity == pytest.approx(0.75, abs=1e-3)


def test_later_stages_rank_what_training_made_of_the_weights() -> None:
    model = linear(np.arange(1, 17, dtype=np.float32).reshape(4, 4))

    def reverse(model: onnx.ModelProto, sparsity: float) -> None:
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(17 - np.arange(1, 17, dtype=np.float32).reshape(4, 4), "w0"))

    pruned = sparsec.prune(model, "unstructured", [0.25, 0.5], fine_tune=reverse)
    left = np.zeros((4, 4), np.float32)
    left.ravel()[4:12] = np.arange(12, 4, -1)  # the first four went at once, the last four are the smallest now
    np.testing.assert_array_equal(tensors(pruned.model)["w0"], left)


def train(net: nn.Module, steps: int = 5) -> None:
    """With momentum from before and weight decay, both of which move weights whose gradient is zero."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    net.train()
    for step in range(steps):
        loss = nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.tensor([step % 10, 2]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("pattern", ["tile-wise:8", "channels"])
def test_masks_hold_while_the_module_is_trained(pattern: str) -> None:
    net = network()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step() -> None:
        optimiser.zero_grad()
        net(torch.from_numpy(X)).square().sum().backward()
        optimiser.step()

    step()  # gives pruned weights a momentum
    names = list(net.state_dict())
    pruned = sparsec.prune(net, pattern, 0.75, fine_tune=lambda net, _: step())
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    with pruned.hold():
        step()
        for name, mask in pruned.masks.items():
            path, _, attribute = name.rpartition(".")
            assert not getattr(net.get_submodule(path), attribute).detach().numpy()[~mask].any()
        train(net)
    assert list(net.state_dict()) == names
    for name, value in net.named_parameters():
        mask = pruned.masks.get(name, np.ones(value.shape, bool))
        assert not value.detach().numpy()[~mask].any()
        assert not torch.equal(value, before[name]), f"{name} was not trained"


def test_masks_are_let_go_when_training_fails() -> None:
    net = network()

    def fail(net: nn.Module, sparsity: float) -> None:
        raise RuntimeError("out of patience")

    with pytest.raises(RuntimeError, match="out of patience"):
        sparsec.prune(net, "2:4", fine_tune=fail)
    assert type(net[7]) is nn.Linear and isinstance(net[7].weight, nn.Parameter)


def test_a_pruned_module_compiles() -> None:
    net = network()
    sparsec.prune(net, "unstructured", 0.9)
    session_input = (torch.from_numpy(X),)
    layers = sparsec.inspect(net, example_inputs=session_input).layers
    assert any(layer.sparsity > 0.8 for layer in layers)
