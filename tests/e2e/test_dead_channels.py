"""Networks whose pruned weights leave channels without effect, compiled and run."""

import numpy as np
import onnx

import sparsec
from tests.test_compiler import Builder, agree

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32")


def pruned(*shape: int, rows=(), columns=()) -> np.ndarray:
    weight = normal(*shape)
    weight[list(rows)] = 0
    weight[:, list(columns)] = 0
    return weight


def weights(artifact) -> list[list[int]]:
    return [layer["shape"] for layer in artifact.manifest["layers"]]


def removed(layers: list[dict]) -> list[tuple[int, int]]:
    return [(layer["removed_outputs"], layer["removed_inputs"]) for layer in layers]


def perceptron() -> onnx.ModelProto:
    b = Builder()
    hidden = b.Tanh(b.Gemm("x", pruned(30, 24, rows=range(5, 15)), normal(30), transB=1))
    hidden = b.Relu(b.Gemm(hidden, pruned(20, 30, columns=[0, 29]), normal(20), transB=1))
    b.Gemm(hidden, pruned(4, 20, columns=range(3)), normal(4), transB=1, name="y")
    return b.model({"x": ["batch", 24]}, {"y": ["batch", 4]})


def test_a_perceptron_without_its_dead_units(tmp_path):
    feeds = [{"x": normal(n, 24)} for n in (1, 7)]
    artifact = agree(perceptron(), *feeds, shapes={"batch": (1, 7)})
    assert weights(artifact) == [[18, 24], [17, 18], [4, 17]]
    assert removed(artifact.manifest["layers"]) == [(12, 0), (3, 12), (0, 3)]
    report = sparsec.inspect(perceptron(), shapes={"batch": (1, 7)})
    assert removed(report.as_dict()["layers"]) == removed(artifact.manifest["layers"])
    assert "12 outputs" in str(report) and "3 layers, 0 sparse" in repr(report)
    page = report.to_html(tmp_path / "page.html").read_text()
    assert "Removed, since zeros left them without effect: 3 outputs, 12 inputs." in page


def residual_network() -> onnx.ModelProto:
    b = Builder()

    def norm(x: str, channels: int) -> str:
        parameters = [normal(channels), np.zeros(channels, "float32"), np.zeros(channels, "float32")]
        return b.BatchNormalization(x, *parameters, np.abs(normal(channels)) + 0.5)

    def conv(x: str, *shape: int, rows=(), **attrs) -> str:
        return norm(b.Conv(x, pruned(*shape, rows=rows), kernel_shape=shape[2:], **attrs), shape[0])

    stream = b.Relu(conv("x", 16, 3, 3, 3, rows=[0, 9], pads=[1] * 4))
    inner = b.Relu(conv(stream, 12, 16, 1, 1, rows=[1, 2, 3]))
    inner = b.Relu(conv(inner, 12, 1, 3, 3, rows=[5], pads=[1] * 4, group=12))
    stream = b.Relu(b.Add(conv(inner, 16, 12, 1, 1, rows=[0, 4]), stream))
    pooled = b.Flatten(b.GlobalAveragePool(b.MaxPool(stream, kernel_shape=[2, 2], strides=[2, 2])))
    b.Gemm(pooled, normal(5, 16), normal(5), transB=1, name="y")
    return b.model({"x": [2, 3, 8, 8]}, {"y": [2, 5]})


def test_a_residual_network_without_its_dead_channels():
    artifact = agree(residual_network(), {"x": normal(2, 3, 8, 8)})
    assert weights(artifact) == [[15, 3, 3, 3], [8, 15, 1, 1], [8, 1, 3, 3], [15, 8, 1, 1], [5, 15]]
