"""The int8 networks and layers that are raced: exactly quantised, their zeros kept, the results understood."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from benchmarks.int8_models import FASTEST, RECIPES, quantized
from benchmarks.models import cached
from benchmarks.unit_convolutions import CONVOLUTIONS, COPIES, Convolution, Heat, heat_table
from sparsec.bench import seeded_inputs

SMALL = {"tokens": 16, "layers": 2, "width": 96, "heads": 3, "vocabulary": 100}


def answers(model: str | bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model as it is written: made into integers, sums saturate on processors without VNNI."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options).run(None, inputs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_networks_keep_their_zeros_and_nearly_their_answers(folder, engine: str) -> None:
    options = {"prune": "block:4x1", **SMALL}
    original = cached(folder, "bert_base", 0.9, **options)
    path = quantized(folder, "bert_base", 0.9, engine, **options)
    assert path == quantized(folder, "bert_base", 0.9, engine, **options)
    graph = onnx.load(path).graph
    assert {stamp.domain for stamp in onnx.load(path).opset_import} == {node.domain for node in graph.node}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [array for array in arrays.values() if array.dtype == np.int8 and array.ndim == 2]
    assert len(weights) == 2 * 6 + 1
    for weight in weights[:-1]:
        blocks = weight.T.reshape(-1, 4, len(weight))
        assert np.any(blocks != 0, axis=1).mean() == pytest.approx(0.1, abs=0.01)
    inputs = seeded_inputs(original)
    ours, theirs = (answers(str(file), inputs)[0] for file in (path, original))
    assert 0 < np.mean((ours - theirs) ** 2) < 0.05**2 * np.mean(theirs**2)


def test_recipes_differ_where_a_runtime_takes_its_own(folder) -> None:
    for (network, engine), name in FASTEST.items():
        assert name in list(RECIPES[network])[1:]
        own = quantized(folder, network, 0.9, engine, prune="block:4x1", **SMALL)
        assert own != quantized(folder, network, 0.9, prune="block:4x1", **SMALL)


@pytest.mark.parametrize("layer", [Convolution(8, 9, 16, 3, 2), Convolution(16, 5, 8, 1, 1)], ids=str)
def test_layers_are_exact_in_both_orders_of_channels(layer: Convolution) -> None:
    results = []
    for channels_last in (False, True):
        model = layer.model(channels_last)
        onnx.checker.check_model(model)
        image = layer.image().transpose(0, 2, 3, 1) if channels_last else layer.image()
        results.append(answers(model.SerializeToString(), {"x": np.ascontiguousarray(image)}))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in layer.model(False).graph.initializer}
    for name, first, last in zip(layer.results, *results, strict=True):
        np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))
        windows = np.lib.stride_tricks.sliding_window_view(layer.image()[0], (layer.kernel,) * 2, axis=(1, 2))
        windows = windows[:, :: layer.stride, :: layer.stride].astype(np.int64)
        sums = np.einsum("cyxrs,ocrs->oyx", windows, arrays[f"{name} weight"].astype(np.int64))
        sums += arrays[f"{name} bias"][:, None, None]
        exact = sums * arrays[f"{name} bias scale"][:, None, None].astype(np.float64) / arrays["y_scale"]
        assert np.abs(first[0] - np.clip(exact, 0, 255)).max() <= 0.501
        assert len(np.unique(first)) > 30 and np.mean(first == 255) < 0.1  # bytes are used, and wide enough


def test_the_sixteen_layers_are_those_of_the_paper() -> None:
    assert len(set(CONVOLUTIONS)) == 16
    assert sum(layer.operations for layer in CONVOLUTIONS) == pytest.approx(3.09e9, rel=0.01)
    assert [layer.extent for layer in CONVOLUTIONS] == [17, 7, 7, 71, 14, 14, 14, 14, 14, 14, 14, 14, 14, 27, 28, 14]


def test_heats_compare_within_rounds() -> None:
    layer = Convolution(10, 10, 10, 1, 1)
    times = {"sparsec": [1.0, 2.0, 1.0], "onnxruntime": [2.0, 4.0, 3.0], "openvino": [3.0, 6.0, 3.0]}
    heat = Heat(layer, times, peak=[layer.operations * rate for rate in (2.0, 1.0, 2.0)])
    assert heat.peer == "onnxruntime" and heat.speedup() == 2
    assert heat.share_of_peak("sparsec") == 0.5 and heat.share_of_peak("openvino") == pytest.approx(1 / 6)
    assert heat.to_json()["share_of_peak"]["onnxruntime"] == 0.25
    assert len(heat_table([heat]).columns) == 2 + 2 * len(times)


def test_calls_are_shared_out() -> None:
    assert len(Convolution(8, 9, 16, 3, 2).model(True).graph.output) == COPIES
