"""Whole networks in half precision: weights alone, or the model's own tensors."""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import sparsec
from benchmarks import digits
from sparsec.errors import InputError, TargetError, UnsupportedError

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""How far off a number is that is rounded to the type, relative to it."""
LAYERS = ("conv1", "conv2", "dense1", "dense2")


@cache
def trained() -> digits.Digits:
    return digits.train(sparsity=0.9, epochs=4, pruning_epochs=8)


def stored_in(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """The model with its weights, inputs and outputs in half precision, as exporters write it."""
    kind = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for constant in made.graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(constant).astype(helper.tensor_dtype_to_np_dtype(kind))
            constant.CopyFrom(numpy_helper.from_array(half, constant.name))
    for port in (*made.graph.input, *made.graph.output):
        port.type.tensor_type.elem_type = kind
    del made.graph.value_info[:]
    return made


def bytes_of(manifest: dict) -> tuple[int, int]:
    layers = manifest["layers"]
    return sum(layer["nbytes"] for layer in layers), sum(layer["dense_nbytes"] for layer in layers)


@pytest.mark.parametrize("storage", UNITS)
def test_the_digits_network_with_rounded_weights(storage):
    network = trained()
    rounded = {name: p.astype(storage).astype(np.float32) for name, p in network.pruned.items() if name in LAYERS}
    wanted = digits.forward(network.pruned | rounded, network.images)
    model = digits.export(network.pruned, len(network.images))
    artifact = sparsec.compile(model, storage=storage)
    found = artifact.load(1)(network.images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    exact = digits.forward(network.pruned, network.images)
    assert abs(network.accuracy(found) - network.accuracy(exact)) < 0.01

    stored, dense = bytes_of(artifact.manifest)
    plain, plain_dense = bytes_of(sparsec.inspect(model).as_dict())
    assert dense * 2 == plain_dense and stored < plain


@pytest.mark.parametrize("storage", UNITS)
def test_the_digits_network_in_half_precision(storage):
    """Each of the five tensors that are stored on the way is rounded; the network keeps what it reads."""
    network = trained()
    artifact = sparsec.compile(stored_in(digits.export(network.pruned, len(network.images)), storage))
    found = artifact.load(1)(network.images.astype(storage))
    assert str(found.dtype) == storage
    exact = digits.forward(network.pruned, network.images)
    error = np.abs(found.astype(np.float32) - exact).max()
    assert error <= 5 * UNITS[storage] * np.abs(exact).max()
    assert abs(network.accuracy(found.astype(np.float32)) - network.accuracy(exact)) < 0.01
    assert [layer["op"] for layer in artifact.manifest["layers"]] == ["conv2d", "conv2d", "linear", "linear"]


@pytest.mark.parametrize("dtype", UNITS)
def test_a_perceptron_is_within_the_bounds_of_its_format(dtype):
    """y = relu(x A + a) B + b: each result is rounded once, what is rounded of the first layer goes through B."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape) * (random.random(shape) < 0.3) for shape in ((48, 70), (70, 10)))
    x, p, q = (random.standard_normal(shape) for shape in ((8, 48), (70,), (10,)))
    a, b, x, p, q = (v.astype(np.float32).astype(dtype) for v in (a, b, x, p, q))
    names = {"a": a, "p": p, "b": b, "q": q}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("Add", ["xa", "p"], ["xap"]),
        helper.make_node("Relu", ["xap"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["hb"]),
        helper.make_node("Add", ["hb", "q"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    ports = [[helper.make_tensor_value_info(name, kind, s)] for name, s in (("x", [8, 48]), ("y", [8, 10]))]
    constants = [numpy_helper.from_array(value, name) for name, value in names.items()]
    graph = helper.make_graph(nodes, "model", *ports, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    found = sparsec.compile(model).load(1)(x).astype(np.float64)

    a, b, x, p, q = (v.astype(np.float64) for v in (a, b, x, p, q))
    hidden = np.maximum(x @ a + p, 0)
    exact = hidden @ b + q
    unit, sums = UNITS[dtype], 2.0**-24 * 71  # what float32 sums of 71 terms are off by, relative to their size
    off = unit * hidden + sums * (np.abs(x) @ np.abs(a) + np.abs(p))
    bound = off @ np.abs(b) + sums * (hidden @ np.abs(b) + np.abs(q))
    assert (np.abs(found - exact) <= (1 + unit) * bound + unit * np.abs(exact)).all()


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.second = torch.nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.dense = torch.nn.Linear(16 * 64, 32)
        self.scale = torch.nn.LayerNorm(32)
        self.last = torch.nn.Linear(32, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        x = torch.nn.functional.gelu(self.scale(self.dense(x.flatten(1))))
        return torch.softmax(self.last(x), -1)


@pytest.mark.parametrize("dtype", UNITS)
def test_modules_of_torch(dtype):
    torch.manual_seed(0)
    module = Network().eval()
    x = torch.randn(2, 3, 16, 16)
    half = getattr(torch, dtype)
    artifact = sparsec.compile(module.to(half), example_inputs=(x.to(half),))
    found = artifact.load(1)(x.to(half))
    exact = module.float()(x.to(half).float()).detach().numpy()
    assert str(found.dtype) == dtype
    assert np.abs(found.astype(np.float32) - exact).max() <= 4 * UNITS[dtype] * exact.max()
    assert [layer["op"] for layer in artifact.manifest["layers"]] == ["conv2d", "conv2d", "linear", "linear"]


@pytest.mark.parametrize("storage", UNITS)
def test_one_operator(storage):
    random = np.random.default_rng(0)
    weight = (random.standard_normal((96, 64)) * (random.random((96, 64)) < 0.2)).astype(np.float32)
    x = random.standard_normal((64, 70)).astype(np.float32)
    multiply = sparsec.op("matmul", weight, columns=70, activation="relu", threads=1, storage=storage)
    wanted = np.maximum(weight.astype(storage).astype(np.float64) @ x, 0)
    np.testing.assert_allclose(multiply(x), wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_stored_is_told():
    weight = np.full((16, 16), 1e5, np.float32)
    with pytest.raises(UnsupportedError, match="matmul: the weight 100000 is too large for float16"):
        sparsec.op("matmul", weight, columns=8, storage="float16")
    with pytest.raises(InputError, match="cannot be stored as 'int2'; storage is one of float16, bfloat16"):
        sparsec.op("matmul", weight, columns=8, storage="int2")
    with pytest.raises(TargetError, match=r"x86-64-v2 has no instruction that reads float16 \(F16C\)"):
        sparsec.op("matmul", weight, columns=8, storage="float16", target="x86-64-v2")
