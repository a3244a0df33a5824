"""Compile a pruned model, run it without the compiler, and compare it with its dense self.

    python tutorials/01_compile_a_pruned_model.py

The model is a perceptron with three layers. Pruning it by magnitude sets nine of ten weights to zero, which alone makes
nothing faster: a runtime that knows only dense products multiplies by every zero. `sparsec` stores the others alone and
generates code for exactly that.
"""

import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

import sparsec
from sparsec.report import layer_table, seconds_text

BATCH, SIZES = 64, (512, 1024, 1024, 256)
rng = np.random.default_rng(0)


# -- A model, dense and pruned -----------------------------------------------------------------------------------------
# Any ONNX file will do. This one is made here, so that there is nothing to download.


def prune(weight: np.ndarray, sparsity: float) -> np.ndarray:
    """Set the smallest weights to zero."""
    threshold = np.quantile(np.abs(weight), sparsity)
    return np.where(np.abs(weight) >= threshold, weight, np.float32(0))


def perceptron(weights: list[np.ndarray]) -> onnx.ModelProto:
    """A chain of products with ReLU between them, as an ONNX model."""
    nodes, value = [], "x"
    for index in range(len(weights)):
        last = index == len(weights) - 1
        nodes.append(
            helper.make_node("MatMul", [value, f"w{index}"], ["y" if last else f"s{index}"], name=f"layer{index}")
        )
        if not last:
            value = f"r{index}"
            nodes.append(helper.make_node("Relu", [f"s{index}"], [value], name=f"relu{index}"))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, SIZES[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, SIZES[-1]])],
        [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


dense = [
    rng.standard_normal((depth, rows), np.float32) * np.float32(np.sqrt(2 / depth)) for depth, rows in pairwise(SIZES)
]
pruned = [prune(weight, 0.9) for weight in dense]

# -- What the compiler sees --------------------------------------------------------------------------------------------
# `inspect` reads the zeros of each weight and says which layout it would choose, and what that should be worth.

report = sparsec.inspect(perceptron(pruned))
layers = [layer.as_dict() for layer in report.layers]
Console(width=140).print(layer_table(layers, f"the pruned model on {report.target.name}"))

# -- Compile, save, load -----------------------------------------------------------------------------------------------
# The artifact is one shared library and a C header. Loading it needs NumPy and nothing of the compiler.

folder = tempfile.TemporaryDirectory()
sessions = {}
for name, weights in (("dense", dense), ("pruned", pruned)):
    start = time.perf_counter()
    path = sparsec.compile(perceptron(weights)).save(Path(folder.name) / f"{name}.so")
    print(f"{name}: compiled in {time.perf_counter() - start:.1f} s to {path.stat().st_size:,} bytes")
    sessions[name] = sparsec.load(path, threads=1)

# -- The same answers --------------------------------------------------------------------------------------------------

x = rng.standard_normal((BATCH, SIZES[0]), np.float32)
expected = x
for index, weight in enumerate(pruned):
    expected = expected @ weight if index == 0 else np.maximum(expected, 0) @ weight
error = np.abs(sessions["pruned"](x) - expected).max() / np.abs(expected).max()
print(f"largest difference from NumPy: {error:.1e} of the output's scale")
assert error < 1e-4

# -- Faster ------------------------------------------------------------------------------------------------------------


def fastest(session: sparsec.Session, runs: int = 50) -> float:
    """Seconds of the fastest of some runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session(x)
        times.append(time.perf_counter() - start)
    return min(times)


times = {name: fastest(session) for name, session in sessions.items()}
for name, seconds in times.items():
    print(f"{name}: {seconds_text(seconds)}")
print(f"speed-up: {times['dense'] / times['pruned']:.1f}×")
