"""Sums of rows of a sparse table are found in models."""

import numpy as np
import pytest
import torch

import sparsec
from tests.test_compiler import Builder, agree

COLUMNS = 2000
_RANDOM = np.random.default_rng(0)
TABLE = np.where(_RANDOM.random((50, COLUMNS)) < 0.02, _RANDOM.standard_normal((50, COLUMNS)), 0).astype("float32")
IDS = np.random.default_rng(2).integers(0, 50, (2, 7, 4))
FROM_THE_END = IDS - 50


def kernels(artifact: sparsec.Artifact, *feed: np.ndarray) -> str:
    return " ".join(step.kernel for step in artifact.load(1).profile(*feed, runs=1))


@pytest.mark.parametrize("reduce", ["ReduceSum", "ReduceMean"])
@pytest.mark.parametrize("density", ["sparse", "dense"])
@pytest.mark.parametrize("ids", [IDS, FROM_THE_END], ids=["from the start", "from the end"])
def test_gather_and_reduce(reduce, density, ids):
    b = Builder()
    rows = b.Gather(TABLE if density == "sparse" else TABLE + 1, "ids")
    if reduce == "ReduceSum":
        b.ReduceSum(rows, np.int64([2]), keepdims=0, name="y")
    else:
        b.ReduceMean(rows, axes=[2], keepdims=0, name="y")
    model = b.model({"ids": [2, 7, 4]}, {"y": [2, 7, COLUMNS]})
    model.graph.input[0].type.tensor_type.elem_type = 7  # int64
    assert ("embedding_bag" in kernels(agree(model, {"ids": ids}), ids)) == (density == "sparse")


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embedding_bag_of_pytorch(mode):
    bags = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(TABLE), mode=mode)
    ids = torch.from_numpy(IDS[0])
    artifact = sparsec.compile(bags, example_inputs=(ids,))
    np.testing.assert_allclose(artifact.load(1)(IDS[0]), bags(ids).numpy(), rtol=1e-5, atol=1e-6)
    assert "embedding_bag" in kernels(artifact, IDS[0])


def test_weights_of_rows_in_pytorch():
    bags = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(TABLE), mode="sum")
    ids, weights = torch.from_numpy(IDS[0]), torch.rand(7, 4)

    class Weighted(torch.nn.Module):
        def forward(self, ids, weights):
            return bags(ids, per_sample_weights=weights)

    found = sparsec.compile(Weighted(), example_inputs=(ids, weights)).load(1)(IDS[0], weights.numpy())
    np.testing.assert_allclose(found, bags(ids, per_sample_weights=weights).numpy(), rtol=1e-5, atol=1e-6)
