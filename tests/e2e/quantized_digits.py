"""The digits network in int8, and what ONNX Runtime makes of it."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from benchmarks import digits
from benchmarks.int8_models import Recipe, quantize
from benchmarks.models import write


@cache
def quantized_digits(images: int = 16) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """Return the pruned network, rounded to bytes between layers, images, and the logits that are expected."""
    network = digits.train(sparsity=0.9, epochs=1, pruning_epochs=1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(digits.export(network.pruned, images), folder / "digits.onnx")
        model = onnx.load(quantize(folder / "digits.onnx", folder / "quantized.onnx", Recipe()))
    x = network.images[:images]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return model, x, session.run(None, {"image": x})[0]
