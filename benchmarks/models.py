"""Pruned networks of well-known shapes, made from a seed: graphs as PyTorch exports them, random weights.

Every linear and convolution weight is pruned by magnitude to the same share per tensor; biases, norms, embeddings,
depthwise and first convolutions stay dense.

    python -m benchmarks.models bert_base --sparsity 0.9 -o bert90.onnx
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto

from benchmarks.network import GELU_MEAN, Network


def bert_base(
    tokens: int = 128,
    batch: int = 1,
    layers: int = 12,
    *,
    width: int = 768,
    heads: int = 12,
    vocabulary: int = 30522,
    **options: Any,
) -> onnx.ModelProto:
    """BERT-base: token ids and mask [batch, tokens] to hidden states [batch, tokens, width] and a pooled output."""
    net = Network("bert_base", **options)
    ids = net.input("input_ids", [batch, tokens], TensorProto.INT64)
    mask = net.input("attention_mask", [batch, tokens], TensorProto.INT64)

    words = net.op("Gather", net.constant(net.normal(vocabulary, width, std=0.05)), ids)
    kind, place = net.constant(np.zeros((1, tokens), np.int64)), net.constant(np.arange(tokens)[None])
    kinds = net.op("Gather", net.constant(net.normal(2, width, std=0.02)), kind)
    places = net.op("Gather", net.constant(net.normal(512, width, std=0.02)), place)
    x = net.layer_norm(net.op("Add", net.op("Add", words, kinds), places), width)

    wide = net.op("Unsqueeze", net.op("Unsqueeze", mask, net.constant(np.array([1]))), net.constant(np.array([2])))
    hidden = net.op("Sub", net.constant(np.float32(1)), net.op("Cast", wide, to=TensorProto.FLOAT))
    penalty = net.op("Mul", hidden, net.constant(np.finfo(np.float32).min))
    for _ in range(layers):
        context = _bert_attention(net, x, penalty, (batch, tokens, width), heads)
        x = net.layer_norm(net.op("Add", net.linear(context, width, width), x), width)
        inner = net.gelu(net.linear(x, width, 4 * width))
        x = net.layer_norm(net.op("Add", net.linear(inner, 4 * width, width, GELU_MEAN), x), width)

    first = net.op("Gather", x, net.constant(np.array(0)), axis=1)
    pooled = net.op("Tanh", net.gemm(first, width, width))
    return net.finish(last_hidden_state=(x, [batch, tokens, width]), pooler_output=(pooled, [batch, width]))


def _bert_attention(net: Network, x: str, penalty: str, shape: tuple[int, int, int], heads: int) -> str:
    batch, tokens, width = shape
    depth = width // heads
    split = np.array([batch, tokens, heads, depth])

    def project(perm: list[int]) -> str:
        return net.op("Transpose", net.op("Reshape", net.linear(x, width, width), net.constant(split)), perm=perm)

    q, k, v = project([0, 2, 1, 3]), project([0, 2, 3, 1]), project([0, 2, 1, 3])
    scores = net.op("Div", net.op("MatMul", q, k), net.constant(np.float32(depth**0.5)))
    weights = net.op("Softmax", net.op("Add", scores, penalty), axis=-1)
    context = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    return net.op("Reshape", context, net.constant(np.array([batch, tokens, width])))


def vit_small(
    size: int = 224, batch: int = 1, layers: int = 12, *, width: int = 384, heads: int = 6, **options: Any
) -> onnx.ModelProto:
    """ViT-S/16: pre-norm layers with one fused projection for queries, keys and values."""
    net = Network("vit_small", **options)
    image = net.input("input", [batch, 3, size, size])
    patches, tokens, depth = (size // 16) ** 2, (size // 16) ** 2 + 1, width // heads
    weight, bias = net.constant(net.weight(width, 3, 16, 16, prune=False)), net.constant(net.normal(width, std=0.1))
    x = net.op("Conv", image, weight, bias, kernel_shape=[16, 16], strides=[16, 16])
    x = net.op("Transpose", net.op("Reshape", x, net.constant(np.array([batch, width, patches]))), perm=[0, 2, 1])
    x = net.op("Concat", net.constant(np.repeat(net.normal(1, 1, width), batch, axis=0)), x, axis=1)
    x = net.op("Add", x, net.constant(net.normal(1, tokens, width, std=0.1)))
    for _ in range(layers):
        fused = net.linear(net.layer_norm(x, width, 1e-6), width, 3 * width)
        split = net.op("Reshape", fused, net.constant(np.array([batch, tokens, 3, heads, depth])))
        split = net.op("Transpose", split, perm=[2, 0, 3, 1, 4])
        q, k, v = (net.op("Gather", split, net.constant(np.array(i)), axis=0) for i in range(3))
        scaled = net.op("Mul", q, net.constant(np.float32(depth**-0.5)))
        weights = net.op("Softmax", net.op("MatMul", scaled, net.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        context = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        context = net.op("Reshape", context, net.constant(np.array([batch, tokens, width])))
        x = net.op("Add", x, net.linear(context, width, width))
        inner = net.gelu(net.linear(net.layer_norm(x, width, 1e-6), width, 4 * width))
        x = net.op("Add", x, net.linear(inner, 4 * width, width, GELU_MEAN))
    first = net.op("Gather", net.layer_norm(x, width, 1e-6), net.constant(np.array(0)), axis=1)
    return net.finish(output=(net.gemm(first, width, 1000), [batch, 1000]))


def resnet50(size: int = 224, batch: int = 1, **options: Any) -> onnx.ModelProto:
    """ResNet-50 v1.5, which strides in the 3×3 convolution of a bottleneck."""

    def bottleneck(net: Network, x: str, width: int, stride: int) -> str:
        y = net.relu(net.batch_norm(net.conv(x, width, 1)))
        y = net.relu(net.batch_norm(net.conv(y, width, 3, stride=stride)))
        return net.batch_norm(net.conv(y, 4 * width, 1), gain=0.5)

    return _resnet(Network("resnet50", **options), bottleneck, [3, 4, 6, 3], 4, size, batch)


def resnet18(size: int = 224, batch: int = 1, **options: Any) -> onnx.ModelProto:
    """ResNet-18."""

    def basic(net: Network, x: str, width: int, stride: int) -> str:
        y = net.relu(net.batch_norm(net.conv(x, width, 3, stride=stride)))
        return net.batch_norm(net.conv(y, width, 3), gain=0.5)

    return _resnet(Network("resnet18", **options), basic, [2, 2, 2, 2], 1, size, batch)


def _resnet(
    net: Network,
    block: Callable[[Network, str, int, int], str],
    depths: list[int],
    expansion: int,
    size: int,
    batch: int,
) -> onnx.ModelProto:
    x = net.input("input", [batch, 3, size, size])
    x = net.relu(net.batch_norm(net.conv(x, 64, 7, stride=2, prune=False)))
    x = net.max_pool(x, 3, 2, pad=1)
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for index in range(depth):
            stride = 2 if stage and index == 0 else 1
            shortcut = x
            if stride > 1 or len(net.moments[x].mean) != width * expansion:
                shortcut = net.batch_norm(net.conv(x, width * expansion, 1, stride=stride))
            x = net.relu(net.add(block(net, x, width, stride), shortcut))
    flat = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    return net.finish(output=(net.gemm(flat, 512 * expansion, 1000), [batch, 1000]))


def vgg16(size: int = 224, batch: int = 1, *, hidden: int = 4096, **options: Any) -> onnx.ModelProto:
    """VGG-16 without batch norm."""
    net = Network("vgg16", **options)
    x = net.input("input", [batch, 3, size, size])
    first = True
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = net.relu(net.conv(x, width, 3, bias=True, prune=not first))
            first = False
        x = net.max_pool(x, 2, 2)
    side = size // 32
    x = net.op("Flatten", x, axis=1)
    for inputs, outputs in ((512 * side * side, hidden), (hidden, hidden)):
        x = net.op("Relu", net.gemm(x, inputs, outputs))
    return net.finish(output=(net.gemm(x, hidden, 1000), [batch, 1000]))


def mobilenet_v2(size: int = 224, batch: int = 1, **options: Any) -> onnx.ModelProto:
    """MobileNetV2: inverted residuals around depthwise convolutions, which stay dense."""
    net = Network("mobilenet_v2", **options)
    x = net.input("input", [batch, 3, size, size])
    x = net.relu6(net.batch_norm(net.conv(x, 32, 3, stride=2, prune=False)))
    for expansion, width, depth, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for index in range(depth):
            stride, inputs = (first_stride if index == 0 else 1), len(net.moments[x].mean)
            y = x
            if expansion > 1:
                y = net.relu6(net.batch_norm(net.conv(x, inputs * expansion, 1)))
            hidden = inputs * expansion
            y = net.relu6(net.batch_norm(net.conv(y, hidden, 3, stride=stride, groups=hidden, prune=False)))
            y = net.batch_norm(net.conv(y, width, 1))
            x = net.add(x, y) if stride == 1 and inputs == width else y
    x = net.relu6(net.batch_norm(net.conv(x, 1280, 1)))
    flat = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    return net.finish(output=(net.gemm(flat, 1280, 1000), [batch, 1000]))


MODELS: dict[str, Callable[..., onnx.ModelProto]] = {
    build.__name__: build for build in (bert_base, resnet50, resnet18, vgg16, mobilenet_v2, vit_small)
}


def write(model: onnx.ModelProto, path: str | os.PathLike[str]) -> Path:
    """Write a model beside its place, then rename, so that a file is whole or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(model.SerializeToString())
    return beside.replace(path)


def cached(folder: str | os.PathLike[str], name: str, sparsity: float, **options: Any) -> Path:
    """The file of one model in ``folder``, written if it is not there yet."""
    suffix = "".join(f"-{key}={value}" for key, value in sorted(options.items()))
    path = Path(folder) / f"{name}{suffix}-{sparsity * 100:g}.onnx"
    return path if path.exists() else write(MODELS[name](sparsity=sparsity, **options), path)


@click.command()
@click.argument("name", type=click.Choice(sorted(MODELS)))
@click.option("--sparsity", default=0.9, type=click.FloatRange(0, 1), show_default=True, help="Share of zeros.")
@click.option("--prune", default="unstructured", help="Pattern of the zeros, as `sparsec prune` takes it.")
@click.option("--batch", default=1, show_default=True)
@click.option("--layers", type=int, help="Number of layers, for transformers.")
@click.option("--opset", default=17, show_default=True, help="Below 17 layer norms are written out.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False))
def main(name: str, output: str, **options: Any) -> None:
    """Write one pruned network of a well-known shape as an ONNX file."""
    given = {key: value for key, value in options.items() if value is not None}
    if "layers" in given and "layers" not in inspect.signature(MODELS[name]).parameters:
        raise click.UsageError(f"{name} has no option --layers")
    path = write(MODELS[name](**given), output)
    click.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
