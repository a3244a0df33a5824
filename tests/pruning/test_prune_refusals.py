"""What `prune` refuses, and in which words."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import sparsec
from sparsec.errors import ModelError, PruningError
from sparsec.pruning import Activations, Taylor
from tests.pruning.networks import X, exported, linear, network, normal


def nan_weight() -> onnx.ModelProto:
    weight = normal(8, 8)
    weight[0, 0] = np.nan
    return linear(weight)


@pytest.mark.parametrize(
    ("make", "arguments", "why"),
    [
        (network, ("unstructured",), "leaves the sparsity open; state it"),
        (network, ("unstructured", 75), "a sparsity is between 0 and 1, as in 0.75, and not 75"),
        (network, ("2:4", 0.75), "the pattern 2:4 is 50.0% sparse, and cannot be 75.0%"),
        (network, ("tvw:8", 0.25), "is between 50.0% and 100.0% sparse, and cannot be 25.0%"),
        (network, ("unstructured", [0.5, 0.25]), "do not rise"),
        (network, ("unstructured", []), "do not rise"),
        (lambda: nn.ReLU(), ("2:4",), "nothing to prune: the model has no linear layers"),
        (lambda: nn.Sequential(nn.Linear(4, 4)), ("fkw",), "nothing to prune: '0' has kernels of 1 tap"),
        (nan_weight, ("2:4",), "'w0' holds NaN or infinity, which cannot be ranked; skip it"),
        (lambda: 3, ("2:4",), "cannot prune int; give"),
        (lambda: "nothing.onnx", ("2:4",), "cannot read nothing.onnx"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, arguments: Any, why: str) -> None:
    with pytest.raises((PruningError, ModelError), match=why):
        sparsec.prune(make(), *arguments)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"skip": ["fc9"]}, "no layer with weights is named 'fc9'; the model has conv1, conv2, fc1, fc2"),
        ({"scope": "all"}, "the scope is 'global' or 'layer', not 'all'"),
        ({"score": Taylor({})}, "no gradient for '2_weight'"),
        ({"score": Taylor({"2_weight": np.zeros(3)})}, r"the gradient of '2_weight' is \(3,\), and the weight"),
        ({"score": Taylor({"2_weight": np.full((16, 8, 3, 3), np.nan)})}, "holds NaN or infinity"),
        ({"score": Activations({"z": X})}, "has no input 'z' to calibrate with; it has x"),
        ({"score": Activations({})}, "nothing to calibrate the input 'x' with"),
        ({"score": Activations([])}, "there are no calibration inputs"),
        ({"score": Activations({"x": X[:, :1]})}, "does not run on the calibration inputs"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(PruningError, match=why):
        sparsec.prune(exported(network()), "2:4", **options)


def test_a_module_that_does_not_run_on_its_calibration_inputs_says_so() -> None:
    with pytest.raises(PruningError, match="the module does not run on the calibration inputs"):
        sparsec.prune(network(), "2:4", score=Activations((torch.zeros(1, 1),)))
