"""Command lines in tests: what comes of one, and small models for them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH, DEPTH, HIDDEN, ROWS = 16, 64, 128, 32


class Result(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Result]
"""Runs the command line that its arguments are."""


def sparse(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A weight without a channel that is all zeros, which would be removed."""
    mask = rng.random((rows, columns)) < 0.1
    mask |= np.arange(rows)[:, None] % columns == np.arange(columns) % rows
    return rng.standard_normal((rows, columns), np.float32) * mask


def perceptron(weights: list[np.ndarray], batch: int | str = BATCH, operator: str = "Relu") -> onnx.ModelProto:
    first, second = weights
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"], name="fc1"),
        helper.make_node(operator, ["hidden"], ["active"], name="act"),
        helper.make_node("MatMul", ["active", "second"], ["y"], name="fc2"),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, ROWS])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def expect_failure(result: Result, message: str) -> None:
    assert result.status == 2
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert "Traceback" not in result.err and result.out == ""
    assert re.search(message, result.err), result.err


def raises(error: BaseException) -> Callable[..., Any]:
    def raise_(*args: Any, **kwargs: Any) -> Any:
        raise error

    return raise_
