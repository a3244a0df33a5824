"""Small networks in int8, their inputs, and what ONNX Runtime makes of them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from benchmarks import digits
from benchmarks.int8_models import RECIPES, Recipe, quantize
from benchmarks.models import bert_base, write


@dataclass(frozen=True)
class Case:
    """A model, its inputs in order, and the outputs that are expected."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    wanted: list[np.ndarray]


@cache
def quantized_digits(images: int = 16) -> Case:
    """Return the pruned digits network, rounded to bytes between all layers, of which all results are exact."""
    network = digits.train(sparsity=0.9, epochs=1, pruning_epochs=1)
    return _case(digits.export(network.pruned, images), Recipe(), {"image": network.images[:images]})


@cache
def quantized_bert() -> Case:
    """Return a small BERT whose linear layers are in int8."""
    model = bert_base(tokens=8, layers=2, width=64, heads=4, vocabulary=50, sparsity=0.8)
    mask = np.ones((1, 8), np.int64)
    mask[:, 6:] = 0
    return _case(model, RECIPES["bert_base"]["linear"], {"input_ids": np.arange(8)[None] * 5, "attention_mask": mask})


def _case(model: onnx.ModelProto, recipe: Recipe, inputs: dict[str, np.ndarray]) -> Case:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(model, folder / "float.onnx")
        quantized = onnx.load(quantize(folder / "float.onnx", folder / "int8.onnx", recipe))
    options = onnxruntime.SessionOptions()  # as it is written: its own integers saturate on processors without VNNI
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(quantized.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Case(quantized, inputs, session.run(None, inputs))
