"""What a product does to its results stays in vectors, also where only the last part of a blocked depth does it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from tests.ir.named_layouts import depth_blocked

FUNCTIONS = {"Erf": "erff", "Exp": "expf", "Sigmoid": "expf", "Tanh": "tanhf"}


def layer(function: str) -> onnx.ModelProto:
    """A linear layer of 512 × 768 with 10 % nonzeros over 128 tokens, and a function of its results."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((768, 512)) < 0.1, rng.standard_normal((768, 512)), 0).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node(function, ["h"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 128, 768])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 128, 512])
    graph = helper.make_graph(nodes, "layer", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_of_libm_is_called_in_a_blocked_product(function: str, tmp_path: Path) -> None:
    artifact = sparsec.compile(layer(function), layouts={"*": str(depth_blocked(256, parts=3))})
    (described,) = artifact.manifest["layers"]
    assert "k floordiv" in described["layout"], "the layer is meant to be one whose depth is blocked"
    library = artifact.save(tmp_path / "layer.so").read_bytes()
    assert FUNCTIONS[function].encode() not in library
