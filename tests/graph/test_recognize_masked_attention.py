"""Attention under a constant mask is found in its many spellings, and is what the model says."""

import numpy as np
import pytest
import torch

import sparsec
from tests.operators.test_op import windows
from tests.test_compiler import Builder, agree, normal

HEADS, SIZE = 2, 8
LOWEST = float(np.finfo(np.float32).min)


def attention(
    rows: int, written: str, mask: np.ndarray, low: float = -np.inf, batch: int | str = 2, factor: float = 1.0
):
    """A model whose operands are projections of its input, and what it is fed."""
    b = Builder()
    width = HEADS * SIZE

    def split(perm):
        return b.Transpose(b.Reshape(b.linear("x", width, width), np.int64([0, 0, HEADS, SIZE])), perm=perm)

    q, k, v = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    bias = np.where(mask, np.float32(0), np.float32(low)).reshape(1, 1, rows, rows)
    if written == "divided, added":
        scores = b.Add(b.Div(b.MatMul(q, k), np.float32(np.sqrt(SIZE))), bias)
    elif written == "scaled before":
        scores = b.Add(bias[0, 0], b.MatMul(b.Mul(q, np.float32(0.3)), k))
    elif written == "selected":
        scores = b.Where(mask, b.Mul(np.float32(0.5), b.MatMul(q, k)), np.float32(low))
    elif written == "added, multiplied":
        scores = b.Mul(b.Add(b.MatMul(q, k), bias), np.float32(factor))
    elif written == "selected, divided":
        scores = b.Div(b.Where(mask, b.MatMul(q, k), np.float32(low)), np.float32(1 / factor))
    elif written == "with a bias":
        scores = b.Add(b.MatMul(q, k), bias + np.float32(0.5) * np.arange(rows, dtype=np.float32))
    context = b.Transpose(b.MatMul(b.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
    b.Reshape(context, np.int64([0, 0, width]), name="y")
    return b.model({"x": [batch, rows, width]}, {"y": [batch, rows, width]}), {"x": normal(2, rows, width)}


def steps(artifact: sparsec.Artifact, feed: dict) -> list[str]:
    return [step.kernel.rsplit("_", 1)[0] for step in artifact.load(1).profile(*feed.values(), runs=1)]


@pytest.mark.parametrize("written", ["divided, added", "scaled before", "selected"])
@pytest.mark.parametrize("low", [-np.inf, -1e9, LOWEST])
def test_spellings(written, low):
    model, feed = attention(64, written, windows(64, 16, 0), low)
    assert "masked_softmax" in steps(agree(model, feed), feed)


@pytest.mark.parametrize("written", ["added, multiplied", "selected, divided"])
@pytest.mark.parametrize(
    ("low", "factor", "followed"),
    [(-1e4, 1e-4, False), (-1e4, 0.5, False), (-1e9, 0.5, True), (-1e3, 16, True), (-np.inf, 1e-4, True)],
)
def test_a_mask_is_scaled_with_the_scores(written, low, factor, followed):
    """What is negligible before it is multiplied by little need not be so afterwards."""
    model, feed = attention(64, written, windows(64, 16, 0), low, factor=factor)
    assert ("masked_softmax" in steps(agree(model, feed), feed)) == followed


@pytest.mark.parametrize("rows", [91, 100])
def test_ragged_windows(rows):
    model, feed = attention(rows, "divided, added", windows(rows, 10, 0))
    assert "masked_softmax" in steps(agree(model, feed), feed)


def test_any_number_of_samples():
    model, feed = attention(70, "divided, added", windows(70, 10, 0), batch="batch")
    artifact = agree(model, feed, {"x": normal(5, 70, HEADS * SIZE)}, shapes={"batch": (1, 5)})
    assert "masked_softmax" in steps(artifact, feed)


def test_a_mask_that_keeps_nearly_all_is_not_followed():
    model, feed = attention(64, "divided, added", windows(64, 16, 2))
    assert "masked_softmax" not in steps(agree(model, feed), feed)


def test_a_bias_beside_the_mask_is_not_dropped():
    model, feed = attention(64, "with a bias", windows(64, 16, 0))
    assert "masked_softmax" not in steps(agree(model, feed), feed)


@pytest.mark.parametrize("low", [-np.inf, -1e9])
def test_rows_that_see_nothing_are_as_in_the_model(low):
    mask = windows(64, 16, 0)
    mask[5] = False
    model, feed = attention(64, "divided, added", mask, low)
    assert ("masked_softmax" in steps(agree(model, feed), feed)) == (low == -np.inf)


class Scaled(torch.nn.Module):
    """PyTorch's own attention."""

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mask", torch.from_numpy(mask))

    def forward(self, query, key, value):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, self.mask)


def test_attention_of_pytorch():
    model, feed = Scaled(windows(64, 16, 0)), [torch.from_numpy(normal(1, HEADS, 64, SIZE)) for _ in range(3)]
    artifact = sparsec.compile(model, example_inputs=tuple(feed))
    found = artifact.load(1)(*(x.numpy() for x in feed))
    np.testing.assert_allclose(found, model(*feed).numpy(), rtol=1e-4, atol=1e-5)
    assert "masked_softmax" in steps(artifact, dict(enumerate(x.numpy() for x in feed)))
