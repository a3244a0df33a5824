"""Layers without a nonlinearity between them, compiled and run."""

import numpy as np
import pytest
import torch

import sparsec
from tests.test_compiler import Builder, agree

RNG = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32") / 4


def weights(artifact) -> list[list[int]]:
    return [layer["shape"] for layer in artifact.manifest["layers"]]


def test_linear_layers_that_follow_each_other():
    b = Builder()
    wide = b.Add(b.MatMul(b.Add(b.MatMul("x", normal(24, 64)), normal(64)), normal(64, 24)), normal(24))
    b.MatMul(b.MatMul(b.Relu(wide), normal(24, 2)), normal(2, 40), name="y")
    model = b.model({"x": ["rows", 24]}, {"y": ["rows", 40]})
    artifact = agree(model, *({"x": normal(n, 24)} for n in (1, 33)), shapes={"rows": (1, 64)})
    assert weights(artifact) == [[24, 24], [2, 24], [40, 2]]


def test_convolutions_that_follow_each_other():
    b = Builder()
    y = b.Conv("x", normal(32, 3, 3, 3), normal(32), pads=[1] * 4)
    b.Conv(y, normal(8, 32, 1, 1), normal(8), strides=[2, 2], name="y")
    model = b.model({"x": [1, 3, 9, 9]}, {"y": [1, 8, 5, 5]})
    assert weights(agree(model, {"x": normal(1, 3, 9, 9)})) == [[8, 3, 3, 3]]


class TensorTrain(torch.nn.Module):
    """256 features as 4·8·8."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        shapes = ((4, 4, rank), (8, 8, rank, rank), (8, 8, rank))
        self.cores = torch.nn.ParameterList(torch.randn(shape) / 4 for shape in shapes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.einsum("zijk,iap,jbpq,kcq->zabc", x.reshape(-1, 4, 8, 8), *self.cores)
        return torch.relu(y.reshape(-1, 256))


@pytest.mark.parametrize("rank, layers", [(1, 3), (16, 1)])
def test_a_tensor_train(rank: int, layers: int):
    x = torch.from_numpy(normal(32, 256))
    layer = TensorTrain(rank).eval()
    artifact = sparsec.compile(layer, example_inputs=(x,))
    expected = layer(x).detach().numpy()
    found = artifact.load(threads=1)(x.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert len(weights(artifact)) == layers
