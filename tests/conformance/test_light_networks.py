"""The networks that onnx ships without their weights, which the files fill with constants."""

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from onnx import numpy_helper

import sparsec

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
NETWORKS = sorted(path.stem for path in FOLDER.glob("light_*.onnx"))
WITH_WEIGHTS = ["light_densenet121", "light_inception_v1", "light_shufflenet"]
"""Networks that are run with other weights than the files', which prove more of them."""


def _ramp(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The inputs that onnx makes for these networks: numbers that grow from zero to one."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inputs}
    return {name: np.linspace(0, 1, int(np.prod(s)), False, dtype=np.float32).reshape(s) for name, s in shapes.items()}


def test_all_nine_are_there() -> None:
    assert len(NETWORKS) == 9
    assert set(WITH_WEIGHTS) <= set(NETWORKS)


def _run(model: Path | onnx.ModelProto, feeds: dict[str, np.ndarray], library: Path) -> np.ndarray:
    sparsec.compile(model).save(library)
    session = sparsec.load(library)
    library.unlink()  # one of them has half a gigabyte, and pytest keeps the folders of three runs
    return session(**feeds)


@pytest.mark.parametrize("network", [network for network in NETWORKS if network not in WITH_WEIGHTS])
def test_light_network(network: str, tmp_path: Path) -> None:
    path = FOLDER / f"{network}.onnx"
    feeds = _ramp(onnx.load(path))
    result = _run(path, feeds, tmp_path / "model.so")
    shipped = numpy_helper.to_array(onnx.load_tensor(FOLDER / f"{network}_output_0.pb"))
    np.testing.assert_allclose(result, shipped, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("network", WITH_WEIGHTS)
def test_light_network_with_weights(network: str, tmp_path: Path) -> None:
    """With weights that are all the same, all outputs are; so here they are not."""
    model = _with_weights(onnx.load(FOLDER / f"{network}.onnx"))
    feeds = _ramp(model)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    assert expected.std() > 1e-3 * np.abs(expected).max()
    result = _run(model, feeds, tmp_path / "model.so")
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def _with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights from a seed in place of constants, scaled so that the signal keeps its size."""
    random = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    filled = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    for node in filled:
        shape = tuple(shapes[node.input[0]])
        if len(shape) == 1:
            weight = random.uniform(0.5, 1.5, shape)
        else:
            weight = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), node.output[0]))
        model.graph.node.remove(node)
    return model
