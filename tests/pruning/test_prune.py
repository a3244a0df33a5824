"""Pruning of ONNX models and PyTorch modules: what is pruned alike, and what files keep."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import sparsec
from sparsec.errors import ModelError
from sparsec.pruning import Activations, Magnitude, Taylor
from tests.pruning.networks import X, exported, network, run, tensors


def gradients() -> dict[str, torch.Tensor]:
    net = network()
    nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.tensor([1, 2])).backward()
    return {name: value.grad for name, value in net.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("matmul", [False, True])
@pytest.mark.parametrize("score", ["magnitude", "taylor", "activations"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "tile-wise:8", "fkw:4,4,2", "channels", "combine:4"])
def test_onnx_and_torch_are_pruned_alike(pattern: str, score: str, matmul: bool) -> None:
    sparsity = {"2:4": None, "fkw:4,4,2": None}.get(pattern, 0.76)
    net = network()
    model = exported(net, matmul)
    onnx_score = torch_score = Magnitude()
    if score == "taylor":
        given = gradients()
        torch_score = Taylor(given)
        flip = {"7.weight", "9.weight"} if matmul else set()
        onnx_score = Taylor({n.replace(".", "_"): g.T if n in flip else g for n, g in given.items()})
    elif score == "activations":
        torch_score, onnx_score = Activations((torch.from_numpy(X),)), Activations({"x": X})
    of_torch = sparsec.prune(net, pattern, sparsity, score=torch_score)
    of_onnx = sparsec.prune(model, pattern, sparsity, score=onnx_score)
    assert of_torch.model is net
    assert {name.replace(".", "_") for name in of_torch.masks} == set(of_onnx.masks)
    for name, mask in of_torch.masks.items():
        other = of_onnx.masks[name.replace(".", "_")]
        np.testing.assert_array_equal(other.T if matmul and mask.ndim == 2 else other, mask)
    assert [layer.zeros for layer in of_torch.layers] == [layer.zeros for layer in of_onnx.layers]
    with torch.no_grad():
        np.testing.assert_allclose(run(of_onnx.model, X), net(torch.from_numpy(X)).numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_zero_where_masked_and_as_they_were_elsewhere() -> None:
    before = exported(network())
    saved = before.SerializeToString()
    pruned = sparsec.prune(before, "tile-wise:8", 0.5)
    assert before.SerializeToString() == saved
    old, new = tensors(before), tensors(pruned.model)
    assert set(pruned.masks) == {"2_weight", "7_weight", "9_weight"}
    for name, array in new.items():
        expected = np.where(pruned.masks[name], old[name], 0) if name in pruned.masks else old[name]
        np.testing.assert_array_equal(array, expected)
        assert not np.signbit(array[array == 0]).any()
    for model in (before, pruned.model):
        del model.graph.initializer[:]
    assert before == pruned.model


def test_a_file_is_pruned_with_its_external_data(tmp_path: Path) -> None:
    model = exported(network())
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    pruned = sparsec.prune(tmp_path / "a.onnx", "2:4")
    written = onnx.load(pruned.save(tmp_path / "b.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.onnx", "b.onnx"]
    expected = tensors(sparsec.prune(exported(network()), "2:4").model)
    for name, array in tensors(written).items():
        np.testing.assert_array_equal(array, expected[name])


def test_only_onnx_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"only ONNX models are saved; write the Sequential with torch\.save"):
        sparsec.prune(network(), "2:4").save(tmp_path / "a.onnx")


def test_the_report_is_json() -> None:
    report = sparsec.prune(exported(network()), "2:4").as_dict()
    assert report["pattern"] == "2:4" and report["sparsity"] == 0.5
    assert report["layers"][2] == {
        "name": "fc1",
        "operator": "Gemm",
        "weight": "7_weight",
        "shape": [40, 64],
        "size": 2560,
        "zeros": 1280,
        "kept": "",
        "sparsity": 0.5,
    }
