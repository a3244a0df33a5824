"""Models over a batch run a few items at a time, and give exactly what single items give."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

import sparsec
from sparsec.targets import Target
from tests.test_compiler import Builder

SMALL_L2 = replace(Target.parse("native"), l2_bytes=2048)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32") / 4


def images(batch: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Items of 3 · 13 · 11 floats and results of 5, neither of which are whole cache lines."""
    b = Builder()
    y = b.Relu(b.Conv("x", normal(8, 3, 3, 3), normal(8), pads=[1] * 4))
    y = b.Add(b.Conv(y, normal(8, 8, 3, 3), normal(8), pads=[1] * 4), y)
    y = b.Flatten(b.GlobalAveragePool(b.MaxPool(y, kernel_shape=[3, 3], strides=[2, 2])))
    b.Add(b.MatMul(y, normal(8, 5)), normal(5), name="y")
    shape = (batch, 3, 13, 11)
    return b.model({"x": shape}, {"y": [batch, 5]}), shape


def tokens(batch: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Attention over items of 48 · 16 floats, which are whole cache lines."""
    b = Builder()
    q, k, v = (b.MatMul("x", normal(16, 16) + place) for place in range(3))
    weights = b.Softmax(b.MatMul(q, b.Transpose(k, perm=[0, 2, 1])), axis=-1)
    b.Add(b.MatMul(weights, v), "x", name="y")
    shape = (batch, 48, 16)
    return b.model({"x": shape}, {"y": shape}), shape


def unaligned(shape: tuple[int, ...]) -> np.ndarray:
    """Memory that starts 4 bytes behind a cache line."""
    raw = np.empty(4 * int(np.prod(shape)) + 128, np.uint8)
    return np.ndarray(shape, np.float32, raw, -raw.ctypes.data % 64 + 4)


@pytest.mark.parametrize("network", [images, tokens])
def test_a_batch_gives_what_its_items_give(network) -> None:
    (whole, shape), (single, _) = network(6), network(1)
    batch, item = (sparsec.compile(model, target=SMALL_L2) for model in (whole, single))
    x = np.random.default_rng(7).standard_normal(shape).astype("float32")
    one = item.load(threads=1)
    expected = np.concatenate([one(x[i : i + 1]) for i in range(6)])
    for threads in (1, 2):
        session = batch.load(threads=threads)
        assert session.inputs[0].max_shape == shape
        np.testing.assert_array_equal(session(x), expected)
        copied, out = unaligned(x.shape), unaligned(expected.shape)
        copied[:] = x
        session(copied, out=out)
        np.testing.assert_array_equal(out, expected)
    assert batch.manifest["arena_bytes"] == item.manifest["arena_bytes"]
    for kind in ("steps", "layers"):
        flops = [[entry["flops"] for entry in artifact.manifest[kind]] for artifact in (batch, item)]
        assert flops[0] == [6 * count for count in flops[1]]
    described = sparsec.inspect(whole, target=SMALL_L2).layers
    assert [layer.as_dict() for layer in described] == batch.manifest["layers"]
