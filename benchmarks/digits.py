"""A small convolutional network, really trained on scikit-learn's handwritten digits and pruned to 90 %.

Training is written out in NumPy: two 3×3 convolutions, a max pool and two linear layers, with Adam. Pruning is gradual,
the smallest weights first, with fine-tuning between (Zhu and Gupta, "To prune, or not to prune", 2017). The first
convolution and the biases stay dense.

    python -m benchmarks.digits -o digits.onnx
"""

from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.models import write
from benchmarks.network import Array, Network, prune_by_magnitude

SIDE, CLASSES = 8, 10
PRUNED = ("conv2", "dense1", "dense2")

Parameters = dict[str, Array]


@dataclass(frozen=True)
class Digits:
    """A trained network before and after pruning, and the images that it never saw.

    ``images`` is float32 [n, 1, 8, 8] in [0, 1], ``labels`` int64 [n].
    """

    dense: Parameters
    pruned: Parameters
    images: Array
    labels: np.ndarray

    def accuracy(self, logits: Array) -> float:
        """Share of the test images whose largest logit is their label."""
        return float(np.mean(logits.argmax(axis=1) == self.labels))


@threadpool_limits.wrap(limits=1)  # the products are too small to share, and idle BLAS threads spin
def train(sparsity: float = 0.9, seed: int = 0, epochs: int = 10, pruning_epochs: int = 20) -> Digits:
    """Train, then prune while training goes on; takes some seconds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, SIDE, SIDE)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    rng = np.random.default_rng(seed)
    parameters = _initial(rng)
    optimiser = _Adam(parameters)
    for _ in range(epochs):
        _epoch(parameters, optimiser, images, labels, rng)
    dense = {name: value.copy() for name, value in parameters.items()}
    for epoch in range(pruning_epochs):
        # Two thirds of the epochs remove weights, fewer and fewer; the last third lets the rest recover.
        progress = min(1.0, (epoch + 1) / (pruning_epochs * 2 / 3))
        share = sparsity * (1 - (1 - progress) ** 3)
        for name in PRUNED:
            parameters[name] = prune_by_magnitude(parameters[name], share)
        masks = {name: parameters[name] != 0 for name in PRUNED}
        optimiser.rate = 1e-3 * (1 - epoch / pruning_epochs) + 1e-4
        _epoch(parameters, optimiser, images, labels, rng, masks)
    return Digits(dense, parameters, test_images, test_labels)


def export(parameters: Parameters, batch: int) -> onnx.ModelProto:
    """The network as ONNX: ``image`` [batch, 1, 8, 8] to ``logits`` [batch, 10]."""
    net = Network("digits", sparsity=0.0)
    p = {name: net.constant(value) for name, value in parameters.items()}
    x = net.input("image", [batch, 1, SIDE, SIDE])
    for name in ("conv1", "conv2"):
        x = net.op("Relu", net.op("Conv", x, p[name], p[f"{name}_bias"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    x = net.op("Flatten", net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), axis=1)
    x = net.op("Relu", net.op("Gemm", x, p["dense1"], p["dense1_bias"], transB=1))
    return net.finish(logits=(net.op("Gemm", x, p["dense2"], p["dense2_bias"], transB=1), [batch, CLASSES]))


def forward(p: Parameters, images: Array) -> Array:
    """Logits [n, 10] of the images."""
    return _forward(p, images)["logits"]


def _initial(rng: np.random.Generator) -> Parameters:
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "dense1": (128, 32 * 16), "dense2": (CLASSES, 128)}
    parameters = {}
    for name, shape in shapes.items():
        std = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        parameters[name] = rng.standard_normal(shape, np.float32) * std
        parameters[f"{name}_bias"] = np.zeros(shape[0], np.float32)
    return parameters


def _epoch(
    parameters: Parameters,
    optimiser: "_Adam",
    images: Array,
    labels: np.ndarray,
    rng: np.random.Generator,
    masks: dict[str, np.ndarray] | None = None,
) -> None:
    for batch in _batches(len(images), rng):
        gradients = _gradients(parameters, images[batch], labels[batch])
        optimiser.step(parameters, gradients)
        for name, mask in (masks or {}).items():
            parameters[name] *= mask


def _batches(count: int, rng: np.random.Generator, size: int = 64) -> Iterator[np.ndarray]:
    order = rng.permutation(count)
    return (order[start : start + size] for start in range(0, count, size))


def _forward(p: Parameters, images: Array) -> dict[str, Array]:
    """All activations; images are stored [n, row, column, channel] inside."""
    a = {"columns1": _columns(images.transpose(0, 2, 3, 1))}
    a["conv1"] = np.maximum(a["columns1"] @ _flat(p["conv1"]).T + p["conv1_bias"], 0)
    a["columns2"] = _columns(a["conv1"])
    a["conv2"] = np.maximum(a["columns2"] @ _flat(p["conv2"]).T + p["conv2_bias"], 0)
    n, h, w, c = a["conv2"].shape
    a["windows"] = a["conv2"].reshape(n, h // 2, 2, w // 2, 2, c)
    pooled = a["windows"].max(axis=(2, 4))
    a["features"] = pooled.transpose(0, 3, 1, 2).reshape(n, -1)
    a["dense1"] = np.maximum(a["features"] @ p["dense1"].T + p["dense1_bias"], 0)
    a["logits"] = a["dense1"] @ p["dense2"].T + p["dense2_bias"]
    return a


def _gradients(p: Parameters, images: Array, labels: np.ndarray) -> Parameters:
    """Gradients of the mean cross-entropy, layer by layer from the end."""
    a = _forward(p, images)
    n = len(images)
    g: Parameters = {}
    d = np.exp(a["logits"] - a["logits"].max(axis=1, keepdims=True))
    d /= d.sum(axis=1, keepdims=True)
    d[np.arange(n), labels] -= 1
    d /= n
    g["dense2"], g["dense2_bias"] = d.T @ a["dense1"], d.sum(axis=0)
    d = (d @ p["dense2"]) * (a["dense1"] > 0)
    g["dense1"], g["dense1_bias"] = d.T @ a["features"], d.sum(axis=0)

    windows = a["windows"]
    d = (d @ p["dense1"]).reshape(n, -1, SIDE // 2, SIDE // 2).transpose(0, 2, 3, 1)[:, :, None, :, None]
    d = d * (windows == windows.max(axis=(2, 4), keepdims=True))
    d = d.reshape(a["conv2"].shape) * (a["conv2"] > 0)
    g["conv2"], g["conv2_bias"] = _conv_gradient(d, a["columns2"], p["conv2"])
    d = _image(d @ _flat(p["conv2"])) * (a["conv1"] > 0)
    g["conv1"], g["conv1_bias"] = _conv_gradient(d, a["columns1"], p["conv1"])
    return g


def _conv_gradient(d: Array, columns: Array, weight: Array) -> tuple[Array, Array]:
    flat = d.reshape(-1, d.shape[-1])
    return (flat.T @ columns.reshape(len(flat), -1)).reshape(weight.shape), flat.sum(axis=0)


def _flat(weight: Array) -> Array:
    return weight.reshape(len(weight), -1)


def _columns(images: Array) -> Array:
    """Each pixel's 3×3 neighbourhood: [n, h, w, c] to [n, h, w, 9 c], in a weight's order (c, row, column)."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.ascontiguousarray(sliding_window_view(padded, (3, 3), axis=(1, 2))).reshape(*images.shape[:3], -1)


def _image(columns: Array) -> Array:
    """The transpose of `_columns`: add every neighbourhood back to its pixels."""
    n, h, w, _ = columns.shape
    parts = columns.reshape(n, h, w, -1, 3, 3)
    padded = np.zeros((n, h + 2, w + 2, parts.shape[3]), np.float32)
    for row in range(3):
        for column in range(3):
            padded[:, row : row + h, column : column + w] += parts[..., row, column]
    return padded[:, 1:-1, 1:-1]


class _Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1."""

    def __init__(self, parameters: Parameters, rate: float = 2e-3) -> None:
        self.rate, self._steps = rate, 0
        self._mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._square = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, parameters: Parameters, gradients: Parameters) -> None:
        self._steps += 1
        rate = np.float32(self.rate * np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps))
        for name, gradient in gradients.items():
            mean, square = self._mean[name], self._square[name]
            mean += np.float32(0.1) * (gradient - mean)
            square += np.float32(0.001) * (gradient**2 - square)
            parameters[name] -= rate * mean / (np.sqrt(square) + np.float32(1e-8))


@click.command()
@click.option("--sparsity", default=0.9, type=click.FloatRange(0, 1), show_default=True, help="Share of zeros.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the pruned network here.")
def main(sparsity: float, seed: int, output: str | None) -> None:
    """Train and prune the digits network, and print its accuracy before and after."""
    digits = train(sparsity, seed)
    for name, parameters in (("dense", digits.dense), (f"pruned {sparsity:.0%}", digits.pruned)):
        click.echo(f"{name}: {digits.accuracy(forward(parameters, digits.images)):.2%} of the test images are right")
    if output:
        click.echo(write(export(digits.pruned, len(digits.images)), output))


if __name__ == "__main__":
    main()
