"""How much a weight matters: by magnitude, by gradients and by calibration inputs."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

import sparsec
from sparsec.pruning import Activations, Taylor
from tests.pruning import oracle
from tests.pruning.networks import X, exported, model_of, network, normal, tensors


@pytest.mark.parametrize("evaluator", ["onnxruntime", "reference"])
@pytest.mark.parametrize("name", ["2_weight", "7_weight"])
def test_activation_scores_are_sizes_times_norms(name: str, evaluator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if evaluator == "reference":
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    net = network()
    batches = [normal(2, 3, 8, 8, seed=seed) for seed in (1, 2)]
    others = [other for other in ("2_weight", "7_weight", "9_weight") if other != name]
    score = Activations([{"x": batch} for batch in batches])
    pruned = sparsec.prune(exported(net), "unstructured", 0.6, score=score, skip=others)
    x = torch.from_numpy(np.concatenate(batches))
    with torch.no_grad():
        if name == "2_weight":
            columns = nn.functional.unfold(net[:2](x), 3, padding=1, stride=2)  # [n, channels * taps, positions]
        else:
            columns = net[:7](x)[..., None]
    norms = columns.square().sum(dim=(0, 2)).sqrt().numpy().astype(np.float64)
    weight = tensors(exported(net))[name]
    scores = np.abs(weight.reshape(len(weight), -1)) * norms
    (expected,) = oracle.unstructured([scores], 0.6)
    np.testing.assert_array_equal(pruned.masks[name], expected.reshape(weight.shape))


def test_activation_scores_of_padded_dilated_and_grouped_convolutions() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding="valid", dilation=(1, 2), groups=2)
    x = torch.randn(3, 4, 9, 8)
    pruned = sparsec.prune(conv, "unstructured", 0.5, score=Activations(x), include=["*"])
    columns = nn.functional.unfold(x, (3, 2), dilation=(1, 2), stride=(2, 1))
    norms = columns.square().sum(dim=(0, 2)).sqrt().numpy().reshape(2, 1, -1)
    weight = conv.weight.detach().numpy()
    scores = np.abs(np.where(pruned.masks["weight"], weight, 0)).reshape(2, 3, -1) * norms
    untouched = nn.Conv2d(4, 6, (3, 2), groups=2)
    torch.manual_seed(1)
    untouched = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding="valid", dilation=(1, 2), groups=2)
    whole = np.abs(untouched.weight.detach().numpy()).reshape(2, 3, -1) * norms
    kept = pruned.masks["weight"].reshape(whole.shape)
    assert kept.sum() == whole.size // 2
    assert whole[kept].min() >= whole[~kept].max()
    np.testing.assert_array_equal(scores > 0, kept)


def test_same_padding_of_onnx_is_the_padding_it_stands_for() -> None:
    weight = normal(4, 3, 3, 3)
    scores = []
    for attributes in ({"auto_pad": "SAME_UPPER"}, {"pads": [0, 0, 1, 1]}):
        node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], **attributes)
        model = model_of([node], {"w": weight}, [2, 3, 8, 8], [2, 4, 4, 4])
        score = Activations({"x": X})
        scores.append(sparsec.prune(model, "unstructured", 0.5, score=score, include=["*"]).masks["w"])
    np.testing.assert_array_equal(*scores)


def test_activation_scores_find_the_inputs_of_turned_products() -> None:
    """A weight that stands first has its inputs on the last axis but one, as has a Gemm of a transposed operand."""
    x, weight = normal(8, 6), normal(5, 8, seed=1)
    nodes = {
        "first": [helper.make_node("MatMul", ["w", "x"], ["y"])],
        "gemm": [helper.make_node("Gemm", ["x", "w"], ["y"], transA=1, transB=1)],
    }
    norms = np.sqrt(np.square(x.astype(np.float64)).sum(axis=1))
    (expected,) = oracle.unstructured([np.abs(weight) * norms], 0.5)
    for kind, y in (("first", [5, 6]), ("gemm", [6, 5])):
        model = model_of(nodes[kind], {"w": weight}, [8, 6], y)
        masks = sparsec.prune(model, "unstructured", 0.5, score=Activations({"x": x})).masks
        np.testing.assert_array_equal(masks["w"], expected)


def test_taylor_scores_are_asked_for_anew_at_each_stage() -> None:
    asked = []

    def fresh(model: nn.Module) -> dict[str, Any]:
        asked.append(np.count_nonzero(model[9].weight.detach().numpy()))
        return {name: torch.ones_like(value) for name, value in model.named_parameters()}

    sparsec.prune(network(), "unstructured", [0.3, 0.6], score=Taylor(fresh), scope="layer")
    assert asked == [400, 280]
