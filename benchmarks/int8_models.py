"""The benchmark networks in int8, as ONNX QDQ graphs or of operators over integers: uint8 activations, int8 weights.

Weights are pruned before they are quantised, and a symmetric quantisation keeps every zero. Which tensors are rounded
to bytes is what runtimes disagree about: each network has recipes, and a runtime takes the one that it is fastest on.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.models import cached
from sparsec.bench import seeded_inputs

CALIBRATION_SEEDS = (100, 101)  # not those of the inputs that are timed


@dataclass(frozen=True)
class Recipe:
    """Which tensors of a network are rounded to bytes.

    Parameters
    ----------
    operators : tuple of str
        Kinds of nodes whose operands are; empty for all that ONNX Runtime's quantiser knows.
    results : bool
        Whether the results of these nodes are too, or stay float for what comes next.
    folded : bool
        Whether ONNX Runtime first folds batch norms, and biases of linear layers.
    integers : bool
        Whether layers become operators over integers, `QLinearConv` or `QLinearMatMul`, rather than QDQ, and have one
        scale for all output channels.
    """

    operators: tuple[str, ...] = ()
    results: bool = True
    folded: bool = True
    integers: bool = False


RECIPES = {
    "resnet50": {
        "all": Recipe(),
        # DeepSparse skips zeros of bytes only where it finds these operators, with scales of whole tensors.
        "integers": Recipe(("Conv", "MaxPool"), integers=True),
    },
    "bert_base": {
        # Between linear layers everything is float: what is fastest for OpenVINO, and nearest to the float network.
        "linear": Recipe(("MatMul", "Gemm"), results=False, folded=False),
        # ONNX Runtime multiplies in int8 only where the bias and the residual are added in bytes.
        "adds": Recipe(("MatMul", "Gemm", "Add"), results=False),
        "integers": Recipe(("MatMul",), folded=False, integers=True),
    },
}
"""By network; the first is what everybody else takes."""

FASTEST = {("bert_base", "onnxruntime"): "adds"}
"""Recipes of runtimes that are faster with another one than the first; measured on a core with AVX512-VNNI."""


def quantized(folder: str | os.PathLike[str], network: str, sparsity: float, engine: str = "", **options: Any) -> Path:
    """The file of one network in ``folder`` as an engine takes it, written if it is not there yet.

    ``options`` are those of the float network, `benchmarks.models.cached`.
    """
    name = FASTEST.get((network, engine), next(iter(RECIPES[network])))
    return written(folder, network, sparsity, name, **options)


def written(folder: str | os.PathLike[str], network: str, sparsity: float, recipe: str, **options: Any) -> Path:
    """The file of one network after one of its recipes, written if it is not there yet."""
    model = cached(folder, network, sparsity, **options)
    path = model.with_name(f"{model.stem}-int8-{recipe}.onnx")
    return path if path.exists() else quantize(model, path, RECIPES[network][recipe])


def quantize(model: Path, path: Path, recipe: Recipe) -> Path:
    """Quantise a float network, its ranges taken from a few seeded inputs, and write it."""
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    onnxruntime.set_default_logger_severity(3)  # it warns of every initializer that folding leaves unused
    with tempfile.TemporaryDirectory(prefix="sparsec-int8-", dir=path.parent) as scratch:
        source, target = model, Path(scratch) / path.name
        if recipe.folded:
            source = Path(scratch) / "folded.onnx"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(source)
            onnxruntime.InferenceSession(model, options)
        quantize_static(
            str(source),
            str(target),
            _Calibration(source),
            quant_format=QuantFormat.QOperator if recipe.integers else QuantFormat.QDQ,
            op_types_to_quantize=list(recipe.operators) or None,
            per_channel=not recipe.integers,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_attention(source),
            extra_options={
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": [] if recipe.results else list(recipe.operators[:2]),
            },
        )
        _forget_unused_domains(target)
        return target.replace(path)


def _forget_unused_domains(path: Path) -> None:
    """Drop operator sets that no node is of: folding stamps a file with all, and older runtimes refuse newer ones."""
    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    for stamp in [stamp for stamp in model.opset_import if stamp.domain not in used]:
        model.opset_import.remove(stamp)
    onnx.save(model, path)


def _attention(model: Path) -> list[str]:
    """Products of two activations, which are small and all the slower in bytes."""
    graph = onnx.load(model, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in weights]


class _Calibration:
    """Inputs one by one, as ONNX Runtime's quantiser asks for them."""

    def __init__(self, model: Path) -> None:
        self._inputs: Iterator[dict[str, NDArray[np.generic]]] = (
            seeded_inputs(model, seed=seed) for seed in CALIBRATION_SEEDS
        )

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._inputs, None)
