"""The benchmark networks: exactly pruned, seeded, valid, and alive under ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from benchmarks.models import MODELS, cached, main
from benchmarks.network import Moments, Network, prune_by_magnitude
from sparsec.bench import seeded_inputs

SMALL = {
    "bert_base": {"tokens": 16, "layers": 2, "width": 96, "heads": 3, "vocabulary": 100},
    "vit_small": {"size": 64, "layers": 2, "width": 96, "heads": 3},
    "resnet50": {"size": 64},
    "resnet18": {"size": 64},
    "vgg16": {"size": 32, "hidden": 64},
    "mobilenet_v2": {"size": 64},
}


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def pruned_weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """Weights of linear and convolution nodes that hold zeros, output channels first."""
    arrays = initializers(model)
    weights = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in arrays:
            weight = arrays[node.input[1]]
            weights.append(weight.T if node.op_type == "MatMul" else weight)
    return [weight for weight in weights if np.any(weight == 0)]


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=3), sparsity=st.floats(0, 1), seed=st.integers(0, 99))
def test_pruning_drops_exactly_the_smallest(shape, sparsity, seed):
    weight = np.random.default_rng(seed).standard_normal(shape, np.float32)
    pruned = prune_by_magnitude(weight, sparsity)
    kept = pruned != 0
    np.testing.assert_array_equal(pruned[kept], weight[kept])
    assert np.count_nonzero(~kept) == round(sparsity * kept.size)
    assert np.abs(weight[~kept]).max(initial=0) <= np.abs(weight[kept]).min(initial=np.inf)


def test_a_layer_that_cannot_take_a_pattern_stays_dense():
    pointwise = np.ones((8, 4, 1, 1), np.float32)
    np.testing.assert_array_equal(prune_by_magnitude(pointwise, 0.8, "fkw"), pointwise)


def test_moments_after_relu_match_samples():
    mean, std = np.float32([-1.0, 0.0, 0.5, 2.0]), np.float32([1.0, 2.0, 0.5, 1.5])
    samples = np.maximum(np.random.default_rng(0).normal(mean, std, (400_000, 4)), 0)
    after = Moments(mean, std**2).relu()
    np.testing.assert_allclose(after.mean, samples.mean(axis=0), rtol=2e-2)
    np.testing.assert_allclose(after.var, samples.var(axis=0), rtol=2e-2)


@pytest.mark.parametrize("name", MODELS)
def test_network_is_valid_exactly_pruned_and_alive(name, tmp_path):
    path = cached(tmp_path, name, 0.9, **SMALL[name])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    weights = pruned_weights(model)
    assert len(weights) >= 8
    for weight in weights:
        assert np.count_nonzero(weight == 0) == round(0.9 * weight.size)
    first, second = (run(model, seeded_inputs(path, seed=seed)) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert 0.1 < a.std() < 10, "activations left the range of a trained network"
        assert np.abs(a - b).mean() > 0.05 * np.abs(a).mean(), "the output does not depend on the input"


def test_first_convolution_and_depthwise_stay_dense():
    model = MODELS["mobilenet_v2"](size=32, sparsity=0.9)
    arrays = initializers(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    groups = {node.name: next(a.i for a in node.attribute if a.name == "group") for node in convolutions}
    dense = [node for node in convolutions if not np.any(arrays[node.input[1]] == 0)]
    assert dense[0] is convolutions[0]
    assert dense[1:] == [node for node in convolutions if groups[node.name] > 1]


def test_blocks_cover_four_output_channels():
    model = MODELS["bert_base"](**SMALL["bert_base"], sparsity=0.75, prune="block:4x1")
    for weight in pruned_weights(model):
        blocks = weight.reshape(len(weight) // 4, 4, -1) != 0
        np.testing.assert_array_equal(blocks.all(axis=1), blocks.any(axis=1))


def test_the_seed_decides_everything():
    build = MODELS["mobilenet_v2"]
    first = build(size=32, sparsity=0.5, seed=7).SerializeToString()
    assert build(size=32, sparsity=0.5, seed=7).SerializeToString() == first
    assert build(size=32, sparsity=0.5, seed=8).SerializeToString() != first


def test_layer_norm_written_out_computes_the_same():
    inputs = {
        "input_ids": np.random.default_rng(0).integers(0, 100, (1, 16)),
        "attention_mask": np.r_[np.ones(12, np.int64), np.zeros(4, np.int64)][None],
    }
    new, old = (MODELS["bert_base"](**SMALL["bert_base"], sparsity=0.9, opset=opset) for opset in (17, 13))
    assert "LayerNormalization" not in {node.op_type for node in old.graph.node}
    for a, b in zip(run(new, inputs), run(old, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_masked_tokens_do_not_change_the_others():
    model = MODELS["bert_base"](**SMALL["bert_base"], sparsity=0.9)
    mask = np.r_[np.ones(12, np.int64), np.zeros(4, np.int64)][None]
    ids = np.random.default_rng(0).integers(0, 100, (2, 1, 16))
    ids[1, :, :12] = ids[0, :, :12]
    a, b = (run(model, {"input_ids": i, "attention_mask": mask})[0] for i in ids)
    np.testing.assert_allclose(a[:, :12], b[:, :12], atol=1e-5)
    assert np.abs(a[:, 12:] - b[:, 12:]).max() > 0.1


def test_scalars_keep_rank_zero():
    net = Network("scalar", sparsity=0.0)
    x = net.input("x", [2])
    model = net.finish(y=(net.op("Mul", x, net.constant(np.float32(3))), [2]))
    assert model.graph.initializer[0].dims == []
    np.testing.assert_array_equal(run(model, {"x": np.float32([1, 2])})[0], [3, 6])


def test_command_line_writes_a_model(tmp_path):
    path = tmp_path / "deep" / "net.onnx"
    result = CliRunner().invoke(main, ["resnet18", "--sparsity", "0.8", "-o", str(path)])
    assert result.exit_code == 0, result.output
    weight = pruned_weights(onnx.load(path))[0]
    assert np.count_nonzero(weight == 0) == round(0.8 * weight.size)
    assert list(path.parent.iterdir()) == [path]


def test_command_line_refuses_layers_where_there_are_none(tmp_path):
    result = CliRunner().invoke(main, ["resnet18", "--layers", "2", "-o", str(tmp_path / "net.onnx")])
    assert result.exit_code == 2
    assert "resnet18 has no option --layers" in result.output
