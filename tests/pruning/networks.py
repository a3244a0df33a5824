"""Small networks to prune, in PyTorch and the same in ONNX."""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn


def network() -> nn.Module:
    """Two convolutions, a norm and two linear layers, with weights that are the same at every call."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10)),
    )
    with torch.no_grad():
        for parameter in net[3].parameters():  # a new norm does nothing
            parameter.uniform_(0.5, 1.5)
    return net.eval()


def exported(net: nn.Module, matmul: bool = False) -> onnx.ModelProto:
    """The same network in ONNX, its linear layers as Gemm, outputs first, or as MatMul, inputs first."""
    p = {name.replace(".", "_"): value.detach().numpy() for name, value in net.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "0_weight", "0_bias"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "2_weight", "2_bias"], ["c"], name="conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node(
            "BatchNormalization", ["c", "3_weight", "3_bias", "3_running_mean", "3_running_var"], ["d"], name="norm"
        ),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["f"], ["g"]),
    ]
    for index, name in ((7, "fc1"), (9, "fc2")):
        x, y = ("g", "h") if index == 7 else ("i", "y")
        weight, bias = f"{index}_weight", f"{index}_bias"
        if matmul:
            p[weight] = np.ascontiguousarray(p[weight].T)
            nodes.append(helper.make_node("MatMul", [x, weight], [f"{y}0"], name=name))
            nodes.append(helper.make_node("Add", [f"{y}0", bias], [y]))
        else:
            nodes.append(helper.make_node("Gemm", [x, weight, bias], [y], name=name, transB=1))
        if index == 7:
            nodes.append(helper.make_node("Relu", ["h"], ["i"]))
    del p["3_num_batches_tracked"]
    return model_of(nodes, p, [2, 3, 8, 8], [2, 10])


def model_of(nodes: list[onnx.NodeProto], arrays: dict[str, Any], x: list[int], y: list[int]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def linear(*arrays: np.ndarray) -> onnx.ModelProto:
    """A chain of products with weights [inputs, outputs], named w0, w1, …, its layers fc0, fc1, …"""
    nodes, value = [], "x"
    for index in range(len(arrays)):
        result = "y" if index == len(arrays) - 1 else f"s{index}"
        nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [result], name=f"fc{index}"))
        value = result
    weights = {f"w{index}": array for index, array in enumerate(arrays)}
    return model_of(nodes, weights, [2, len(arrays[0])], [2, arrays[-1].shape[1]])


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    return y


X = normal(2, 3, 8, 8, seed=5)
