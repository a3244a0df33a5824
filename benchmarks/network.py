"""An ONNX graph under construction: seeded weights, magnitude pruning, and the few layers that networks are made of.

No trained weights are needed, so a network of any size is made in seconds and without a download. Weights are
random, but nothing else is: graphs are written as PyTorch exports them, and the statistics of batch norms are computed
from the weights, so that activations keep a trained network's range at every depth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sparsec.pruning import Scores, parse_pattern

Array = NDArray[np.float32]

GELU_MEAN = 1 / (2 * math.sqrt(math.pi))
"""Mean of GELU over a standard normal variable."""


def prune_by_magnitude(weight: Array, sparsity: float, pattern: str = "unstructured") -> Array:
    """Zero the weights of one layer that matter least, in a pattern; one that cannot take the pattern stays dense.

    Parameters
    ----------
    weight : float32, [out, in, ...]
    sparsity : float
        Share of zeros, in [0, 1]; the nearest one that the pattern can have.
    pattern : str
        As `sparsec.pruning.parse_pattern` reads it.
    """
    structure, taps = parse_pattern(pattern), math.prod(weight.shape[2:])
    matrix = weight.reshape(len(weight), -1)
    if structure.objection(matrix.shape, taps):
        return weight
    low, high = structure.bounds
    (keep,) = structure.keep([Scores(np.abs(matrix, dtype=np.float64), taps)], min(max(sparsity, low), high))
    return weight * keep.reshape(weight.shape)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel of an activation, float32 [channels]."""

    mean: Array
    var: Array

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.mean + other.mean, self.var + other.var)

    def relu(self) -> "Moments":
        """Moments after max(x, 0) of a normal variable."""
        std = np.sqrt(np.maximum(self.var, np.float32(1e-8)))  # a channel may have lost all its weights
        ratio = self.mean / std
        density = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        below = np.array([math.erf(r / math.sqrt(2)) for r in ratio], np.float32) / 2 + np.float32(0.5)
        mean = self.mean * below + std * density
        square = (self.mean**2 + self.var) * below + self.mean * std * density
        return Moments(mean, np.maximum(square - mean**2, np.float32(1e-4)))


class Network:
    """Collects nodes and initializers; every layer method takes and returns value names.

    ``moments`` follows the activations of convolutional networks, and so knows their channel counts.
    """

    def __init__(self, name: str, sparsity: float, prune: str = "unstructured", seed: int = 0, opset: int = 17):
        self.name, self.sparsity, self.pattern, self.opset = name, sparsity, prune, opset
        self.rng = np.random.default_rng(seed)
        self.moments: dict[str, Moments] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []

    # ---- the graph

    def input(self, name: str, shape: Sequence[int], dtype: int = TensorProto.FLOAT) -> str:
        """Declare a graph input; an image input ([N, C, H, W]) is taken as standardised."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        if len(shape) == 4:
            self.moments[name] = Moments(np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32))
        return name

    def constant(self, array: Any) -> str:
        """Add an initializer."""
        name = f"const_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        """Add a node with one output."""
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=f"/{output}", **attrs))
        return output

    def finish(self, **outputs: tuple[str, Sequence[int]]) -> onnx.ModelProto:
        """Name the outputs, each given as value and shape, and return the model."""
        infos = []
        for name, (value, shape) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        graph = helper.make_graph(self._nodes, self.name, self._inputs, infos, self._initializers)
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="sparsec benchmarks")

    # ---- weights

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Array:
        return self.rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)

    def weight(self, *shape: int, prune: bool = True) -> Array:
        """A weight [out, ...] that maps unit variance to unit variance, pruned or not."""
        weight = self.normal(*shape)
        if prune and self.sparsity:
            weight = prune_by_magnitude(weight, self.sparsity, self.pattern)
        norm = math.sqrt(float(np.vdot(weight, weight)) / shape[0]) or 1.0
        return weight / np.float32(norm)

    # ---- layers

    def linear(self, x: str, inputs: int, outputs: int, mean: float = 0.0) -> str:
        """``x @ W + b`` as a MatMul, whose weight is stored [inputs, outputs], and an Add.

        The bias cancels the ``mean`` of the inputs; left in, it would drown the signal after a few layers.
        """
        weight = self.weight(outputs, inputs)
        bias = self.normal(outputs, std=0.1) - np.float32(mean) * weight.sum(axis=1)
        return self.op("Add", self.constant(bias), self.op("MatMul", x, self.constant(weight.T)))

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        """A classifier: Gemm with a weight [outputs, inputs]."""
        weight, bias = self.constant(self.weight(outputs, inputs)), self.constant(self.normal(outputs, std=0.1))
        return self.op("Gemm", x, weight, bias, transB=1)

    def layer_norm(self, x: str, width: int, epsilon: float = 1e-12) -> str:
        """LayerNormalization over the last axis; its parts where the opset does not have it yet."""
        scale = self.constant(self.normal(width, mean=1.0, std=0.1))
        shift = self.constant(self.normal(width, std=0.1))
        if self.opset >= 17:
            return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        square = self.op("Pow", centred, self.constant(np.float32(2)))
        variance = self.op("Add", self.op("ReduceMean", square, axes=[-1]), self.constant(np.float32(epsilon)))
        return self.op("Add", self.op("Mul", self.op("Div", centred, self.op("Sqrt", variance)), scale), shift)

    def gelu(self, x: str) -> str:
        """``x (1 + erf(x / √2)) / 2``, written out as PyTorch exports it."""
        erf = self.op("Erf", self.op("Div", x, self.constant(np.float32(math.sqrt(2)))))
        product = self.op("Mul", x, self.op("Add", erf, self.constant(np.float32(1))))
        return self.op("Mul", product, self.constant(np.float32(0.5)))

    def conv(self, x: str, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, prune: bool = True,
             bias: bool = False) -> str:  # fmt: skip
        """A square convolution, padded by half its kernel; a bias centres its outputs, as training would."""
        before = self.moments[x]
        inputs = len(before.mean)
        weight = self.weight(outputs, inputs // groups, kernel, kernel, prune=prune)
        after = _conv_moments(weight, before, groups)
        operands = [x]
        if bias:
            weight /= np.sqrt(after.var.mean())
            shift = self.normal(outputs, std=0.1)
            centre = _conv_moments(weight, before, groups)
            after = Moments(shift, centre.var)
            operands += [self.constant(weight), self.constant(shift - centre.mean)]
        else:
            operands += [self.constant(weight)]
        attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        y = self.op("Conv", *operands, dilations=[1, 1], group=groups, **attrs)
        self.moments[y] = after
        return y

    def batch_norm(self, x: str, gain: float = 1.0) -> str:
        """Batch norm with statistics near those that ``x`` really has."""
        before = self.moments[x]
        channels = len(before.mean)
        scale, shift = self.normal(channels, mean=gain, std=0.1 * gain), self.normal(channels, std=0.1)
        mean = before.mean + self.normal(channels, std=0.05) * np.sqrt(before.var)
        var = before.var * self.rng.uniform(0.8, 1.25, channels).astype(np.float32) + np.float32(1e-5)
        parameters = [self.constant(p) for p in (scale, shift, mean, var)]
        y = self.op("BatchNormalization", x, *parameters, epsilon=1e-5)
        self.moments[y] = Moments((before.mean - mean) * scale / np.sqrt(var) + shift, before.var * scale**2 / var)
        return y

    def relu(self, x: str) -> str:
        y = self.op("Relu", x)
        self.moments[y] = self.moments[x].relu()
        return y

    def relu6(self, x: str) -> str:
        y = self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        self.moments[y] = self.moments[x].relu()
        return y

    def add(self, a: str, b: str) -> str:
        y = self.op("Add", a, b)
        self.moments[y] = self.moments[a] + self.moments[b]
        return y

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        y = self.op("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        before = self.moments[x]
        # The largest of about nine values lies some 1.5 standard deviations up.
        self.moments[y] = Moments(before.mean + np.float32(1.5) * np.sqrt(before.var), before.var)
        return y


def _conv_moments(weight: Array, before: Moments, groups: int) -> Moments:
    """Moments after a convolution of independent inputs; borders are left out."""
    outputs, inputs = weight.shape[:2]
    flat = weight.reshape(groups, outputs // groups, inputs, -1)
    mean = np.einsum("gok,gk->go", flat.sum(-1), before.mean.reshape(groups, inputs))
    var = np.einsum("gok,gk->go", np.square(flat).sum(-1), before.var.reshape(groups, inputs))
    return Moments(mean.reshape(-1), var.reshape(-1))
