"""Pruning of ONNX models and PyTorch modules: what is pruned, what is not and why, in stages and while training."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import sparsec
from sparsec.errors import ModelError, PruningError
from sparsec.pruning import NM, Activations, Block, Channels, KernelPattern, Magnitude, Taylor, TileWise
from tests.pruning import oracle


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


# -- the same for both kinds of model ----------------------------------------------------------------------------------

X = normal(2, 3, 8, 8, seed=5)


def gradients() -> dict[str, torch.Tensor]:
    net = network()
    nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.tensor([1, 2])).backward()
    return {name: value.grad for name, value in net.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("matmul", [False, True])
@pytest.mark.parametrize("score", ["magnitude", "taylor", "activations"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "tile-wise:8", "fkw:4,4,2", "channels", "combine:4"])
def test_onnx_and_torch_are_pruned_alike(pattern: str, score: str, matmul: bool) -> None:
    sparsity = {"2:4": None, "fkw:4,4,2": None}.get(pattern, 0.76)
    net = network()
    model = exported(net, matmul)
    onnx_score = torch_score = Magnitude()
    if score == "taylor":
        given = gradients()
        torch_score = Taylor(given)
        flip = {"7.weight", "9.weight"} if matmul else set()
        onnx_score = Taylor({n.replace(".", "_"): g.T if n in flip else g for n, g in given.items()})
    elif score == "activations":
        torch_score, onnx_score = Activations((torch.from_numpy(X),)), Activations({"x": X})
    of_torch = sparsec.prune(net, pattern, sparsity, score=torch_score)
    of_onnx = sparsec.prune(model, pattern, sparsity, score=onnx_score)
    assert of_torch.model is net
    assert {name.replace(".", "_") for name in of_torch.masks} == set(of_onnx.masks)
    for name, mask in of_torch.masks.items():
        other = of_onnx.masks[name.replace(".", "_")]
        np.testing.assert_array_equal(other.T if matmul and mask.ndim == 2 else other, mask)
    assert [layer.zeros for layer in of_torch.layers] == [layer.zeros for layer in of_onnx.layers]
    with torch.no_grad():
        np.testing.assert_allclose(run(of_onnx.model, X), net(torch.from_numpy(X)).numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_zero_where_masked_and_as_they_were_elsewhere() -> None:
    before = exported(network())
    saved = before.SerializeToString()
    pruned = sparsec.prune(before, "tile-wise:8", 0.5)
    assert before.SerializeToString() == saved
    old, new = tensors(before), tensors(pruned.model)
    assert set(pruned.masks) == {"2_weight", "7_weight", "9_weight"}
    for name, array in new.items():
        expected = np.where(pruned.masks[name], old[name], 0) if name in pruned.masks else old[name]
        np.testing.assert_array_equal(array, expected)
        assert not np.signbit(array[array == 0]).any()
    for model in (before, pruned.model):
        del model.graph.initializer[:]
    assert before == pruned.model


# -- scores, against what they are -------------------------------------------------------------------------------------


@pytest.mark.parametrize("evaluator", ["onnxruntime", "reference"])
@pytest.mark.parametrize("name", ["2_weight", "7_weight"])
def test_activation_scores_are_sizes_times_norms(name: str, evaluator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if evaluator == "reference":
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    net = network()
    batches = [normal(2, 3, 8, 8, seed=seed) for seed in (1, 2)]
    others = [other for other in ("2_weight", "7_weight", "9_weight") if other != name]
    score = Activations([{"x": batch} for batch in batches])
    pruned = sparsec.prune(exported(net), "unstructured", 0.6, score=score, skip=others)
    x = torch.from_numpy(np.concatenate(batches))
    with torch.no_grad():
        if name == "2_weight":
            columns = nn.functional.unfold(net[:2](x), 3, padding=1, stride=2)  # [n, channels * taps, positions]
        else:
            columns = net[:7](x)[..., None]
    norms = columns.square().sum(dim=(0, 2)).sqrt().numpy().astype(np.float64)
    weight = tensors(exported(net))[name]
    scores = np.abs(weight.reshape(len(weight), -1)) * norms
    (expected,) = oracle.unstructured([scores], 0.6)
    np.testing.assert_array_equal(pruned.masks[name], expected.reshape(weight.shape))


def test_activation_scores_of_padded_dilated_and_grouped_convolutions() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding="valid", dilation=(1, 2), groups=2)
    x = torch.randn(3, 4, 9, 8)
    pruned = sparsec.prune(conv, "unstructured", 0.5, score=Activations(x), include=["*"])
    columns = nn.functional.unfold(x, (3, 2), dilation=(1, 2), stride=(2, 1))
    norms = columns.square().sum(dim=(0, 2)).sqrt().numpy().reshape(2, 1, -1)
    weight = conv.weight.detach().numpy()
    scores = np.abs(np.where(pruned.masks["weight"], weight, 0)).reshape(2, 3, -1) * norms
    untouched = nn.Conv2d(4, 6, (3, 2), groups=2)
    torch.manual_seed(1)
    untouched = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding="valid", dilation=(1, 2), groups=2)
    whole = np.abs(untouched.weight.detach().numpy()).reshape(2, 3, -1) * norms
    kept = pruned.masks["weight"].reshape(whole.shape)
    assert kept.sum() == whole.size // 2
    assert whole[kept].min() >= whole[~kept].max()
    np.testing.assert_array_equal(scores > 0, kept)


def test_same_padding_of_onnx_is_the_padding_it_stands_for() -> None:
    weight = normal(4, 3, 3, 3)
    scores = []
    for attributes in ({"auto_pad": "SAME_UPPER"}, {"pads": [0, 0, 1, 1]}):
        node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], **attributes)
        model = model_of([node], {"w": weight}, [2, 3, 8, 8], [2, 4, 4, 4])
        score = Activations({"x": X})
        scores.append(sparsec.prune(model, "unstructured", 0.5, score=score, include=["*"]).masks["w"])
    np.testing.assert_array_equal(*scores)


def test_activation_scores_find_the_inputs_of_turned_products() -> None:
    """A weight that stands first has its inputs on the last axis but one, as has a Gemm of a transposed operand."""
    x, weight = normal(8, 6), normal(5, 8, seed=1)
    nodes = {
        "first": [helper.make_node("MatMul", ["w", "x"], ["y"])],
        "gemm": [helper.make_node("Gemm", ["x", "w"], ["y"], transA=1, transB=1)],
    }
    norms = np.sqrt(np.square(x.astype(np.float64)).sum(axis=1))
    (expected,) = oracle.unstructured([np.abs(weight) * norms], 0.5)
    for kind, y in (("first", [5, 6]), ("gemm", [6, 5])):
        model = model_of(nodes[kind], {"w": weight}, [8, 6], y)
        masks = sparsec.prune(model, "unstructured", 0.5, score=Activations({"x": x})).masks
        np.testing.assert_array_equal(masks["w"], expected)


def test_taylor_scores_are_asked_for_anew_at_each_stage() -> None:
    asked = []

    def fresh(model: nn.Module) -> dict[str, Any]:
        asked.append(np.count_nonzero(model[9].weight.detach().numpy()))
        return {name: torch.ones_like(value) for name, value in model.named_parameters()}

    sparsec.prune(network(), "unstructured", [0.3, 0.6], score=Taylor(fresh), scope="layer")
    assert asked == [400, 280]


# -- scope, skip, include ----------------------------------------------------------------------------------------------


def test_global_scope_ranks_layers_together_and_layer_scope_alone() -> None:
    small, large = normal(32, 32), 1000 * normal(32, 32, seed=1)
    together = sparsec.prune(linear(small, large), "unstructured", 0.5)
    alone = sparsec.prune(linear(small, large), "unstructured", 0.5, scope="layer")
    assert together.layers[0].sparsity > 0.9 and together.layers[1].sparsity < 0.1
    assert together.sparsity == alone.sparsity == 0.5
    assert [layer.sparsity for layer in alone.layers] == [0.5, 0.5]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_tiles_of_all_layers_compete_or_only_those_of_one(scope: Any) -> None:
    arrays = [normal(20, 16), normal(16, 24, seed=1) * 2]
    pruned = sparsec.prune(linear(*arrays), TileWise(8), 0.6, scope=scope)
    scores = [np.abs(array.T).astype(np.float64) for array in arrays]
    if scope == "global":
        expected = oracle.tile_wise(scores, 0.6, 8)
    else:
        expected = [mask for each in scores for mask in oracle.tile_wise([each], 0.6, 8)]
    for index, mask in enumerate(expected):
        np.testing.assert_array_equal(pruned.masks[f"w{index}"], mask.T)


def test_what_is_not_pruned_has_a_reason() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    kept = {layer.name: layer.kept for layer in sparsec.prune(net, KernelPattern(), skip=["5"]).layers}
    assert kept == {
        "0": "is the first convolution",
        "1": "is depthwise",
        "2": "has kernels of 1 tap, and shapes of 4 need larger ones",
        "3": "",
        "5": "is skipped",
    }


def test_include_prunes_what_stays_dense_otherwise() -> None:
    pruned = sparsec.prune(network(), NM(2, 4), include=["0"])
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.1) for layer in pruned.layers)


def test_names_of_layers_and_of_weights_are_taken() -> None:
    for name in ("fc*", "[79]_weight"):
        pruned = sparsec.prune(exported(network()), "2:4", skip=[name])
        assert [layer.name for layer in pruned.layers if not layer.kept] == ["conv2"]


def test_sparse_initializers_are_pruned_and_dense_afterwards() -> None:
    weight = normal(8, 8)
    model = linear(weight)
    del model.graph.initializer[:]
    values, indices = numpy_helper.from_array(weight.ravel(), "w0"), numpy_helper.from_array(np.arange(64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 8]))
    pruned = sparsec.prune(model, "2:4")
    np.testing.assert_array_equal(tensors(pruned.model)["w0"], np.where(pruned.masks["w0"], weight, 0))
    assert not pruned.model.graph.sparse_initializer and len(model.graph.sparse_initializer) == 1


def test_constants_of_every_kind_are_found() -> None:
    """Weights in Constant nodes, behind Identity and Transpose, and as first operand."""
    a, b = normal(16, 16), normal(16, 16, seed=1)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(a, "value")),
        helper.make_node("MatMul", ["x", "c"], ["s"], name="constant"),
        helper.make_node("Transpose", ["b"], ["bt"]),
        helper.make_node("Identity", ["bt"], ["bti"]),
        helper.make_node("MatMul", ["s", "bti"], ["t"], name="transposed"),
        helper.make_node("MatMul", ["first", "t"], ["y"], name="first"),
    ]
    model = model_of(nodes, {"b": b, "first": a}, [16, 16], [16, 16])
    pruned = sparsec.prune(model, Block(4, 1), 0.5, scope="layer")
    assert [layer.name for layer in pruned.layers if not layer.kept] == ["constant", "transposed", "first"]
    of_a = oracle.block([np.abs(a.T).astype(np.float64)], 0.5, 4, 1)[0]
    np.testing.assert_array_equal(pruned.masks["c"], of_a.T)
    np.testing.assert_array_equal(pruned.masks["b"], oracle.block([np.abs(b).astype(np.float64)], 0.5, 4, 1)[0])
    np.testing.assert_array_equal(pruned.masks["first"], oracle.block([np.abs(a).astype(np.float64)], 0.5, 4, 1)[0])
    value = pruned.model.graph.node[0].attribute[0].t
    np.testing.assert_array_equal(numpy_helper.to_array(value) != 0, pruned.masks["c"])


def test_weights_that_cannot_be_pruned_are_named() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x1"], name="embed"),
        helper.make_node("MatMul", ["x", "table"], ["s"], name="tied"),
        helper.make_node("MatMul", ["s", "stack"], ["t"], name="stacked"),
        helper.make_node("DequantizeLinear", ["bytes", "scale"], ["w"]),
        helper.make_node("MatMul", ["t", "w"], ["u"], name="quantized"),
        helper.make_node("MatMul", ["u", "whole"], ["v"], name="whole"),
        helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["v", "wide"], ["z"], name="widened"),
        helper.make_node("MatMul", ["z", "z"], ["y"], name="of activations"),
    ]
    square = normal(8, 8)
    arrays = {
        "table": square,
        "ids": np.zeros(1, np.int64),
        "stack": normal(2, 8, 8),
        "bytes": np.ones((8, 8), np.int8),
        "scale": np.float32(1),
        "whole": square,
        "half": square.astype(np.float16),
    }
    pruned = sparsec.prune(model_of(nodes, arrays, [8, 8], [2, 8, 8]), "2:4")
    assert {layer.name: layer.kept for layer in pruned.layers} == {
        "tied": "is also read by Gather 'embed'",
        "stacked": "is a stack of 2 matrices",
        "quantized": "holds int8, and only floating-point weights are pruned",
        "whole": "",
        "widened": "reaches its layer through Cast",
    }


def test_a_weight_of_two_layers_is_pruned_once() -> None:
    shared = nn.Linear(16, 16)
    tied = nn.Linear(16, 16)
    tied.weight = shared.weight
    pruned = sparsec.prune(nn.Sequential(shared, nn.ReLU(), tied, shared), "2:4")
    assert [layer.weight for layer in pruned.layers] == ["0.weight"]
    assert tied.weight is shared.weight and np.count_nonzero(tied.weight.detach().numpy()) == 128
    with pruned.hold():
        assert np.count_nonzero(tied.weight.detach().numpy()) == 128
    assert tied.weight is shared.weight


def test_a_weight_that_an_embedding_reads_stays() -> None:
    embedding, head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
    head.weight = embedding.weight
    pruned = sparsec.prune(nn.Sequential(embedding, nn.Linear(8, 8), head), "2:4")
    assert [layer.kept for layer in pruned.layers] == ["", "is also read by Embedding"]


def test_attention_has_two_weights() -> None:
    attention = nn.MultiheadAttention(16, 2)
    assert [layer.weight for layer in sparsec.prune(attention, "2:4").layers] == ["in_proj_weight", "out_proj.weight"]
    x = torch.zeros(4, 1, 16)
    with pytest.raises(PruningError, match="do not reach 'out_proj'; skip it"):
        sparsec.prune(attention, "2:4", score=Activations((x, x, x)))


def test_groups_of_a_convolution_are_matrices_of_their_own() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 9, 3, groups=3)
    values = conv.weight.detach().numpy().copy()
    (mask,) = sparsec.prune(conv, "block:4x1", 0.5, include=["*"]).masks.values()
    groups = [np.abs(values[first : first + 3]).reshape(3, -1).astype(np.float64) for first in (0, 3, 6)]
    expected = np.concatenate(oracle.block(groups, 0.5, 4, 1))
    np.testing.assert_array_equal(mask, expected.reshape(mask.shape))


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_floats_of_every_width_are_pruned(kind: Any) -> None:
    weight = normal(16, 16).astype(kind)
    pruned = sparsec.prune(linear(weight), "2:4")
    found = tensors(pruned.model)["w0"]
    assert found.dtype == weight.dtype
    np.testing.assert_array_equal(found, np.where(pruned.masks["w0"], weight, np.zeros((), kind)))
    assert pruned.sparsity == 0.5


def test_weights_that_are_stored_number_by_number_are_pruned() -> None:
    model = linear(normal(8, 8))
    tensor = model.graph.initializer[0]
    tensor.float_data.extend(normal(8, 8).ravel().tolist())
    tensor.ClearField("raw_data")
    pruned = sparsec.prune(model, "2:4")
    assert np.count_nonzero(tensors(pruned.model)["w0"]) == 32


# -- dead channels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matmul", [False, True])
def test_dead_channels_take_their_bias_and_the_inputs_that_they_were(matmul: bool) -> None:
    model = exported(network(), matmul)
    pruned = sparsec.prune(model, Channels(), 0.5, scope="layer")
    new = {
        name: array.T if matmul and name in ("7_weight", "9_weight") else array
        for name, array in tensors(pruned.model).items()
    }
    dead = ~new["2_weight"].any(axis=(1, 2, 3))
    assert dead.sum() == 8
    for vector in ("2_bias", "3_weight", "3_bias"):
        np.testing.assert_array_equal(new[vector] == 0, dead)
    hidden = ~new["7_weight"].any(axis=1)
    assert hidden.sum() == 20
    np.testing.assert_array_equal(~new["7_weight"][~hidden].any(axis=0), np.repeat(dead, 4))
    np.testing.assert_array_equal(~new["9_weight"].any(axis=0), hidden)
    kept = {layer.name: layer.kept for layer in pruned.layers}
    assert kept["fc2"] == "computes outputs of the model"


def test_dead_channels_change_nothing_that_the_masks_of_their_own_layer_do_not() -> None:
    """The inputs that die with a channel were multiplied by zeros alone."""
    model = exported(network())
    pruned = sparsec.prune(model, Channels(), 0.5, scope="layer")
    rows_only = onnx.ModelProto()
    rows_only.CopyFrom(model)
    for tensor in rows_only.graph.initializer:
        mask = pruned.masks.get(tensor.name)
        if mask is not None:
            axes = tuple(range(1, mask.ndim))
            rows = mask.any(axis=axes, keepdims=True) if axes else mask
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * rows, tensor.name))
    np.testing.assert_allclose(run(pruned.model, X), run(rows_only, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [["Clip", "low", "high"], ["Relu"], ["HardSwish"]], ids=["relu6", "relu", "hardswish"])
def test_dead_channels_die_through_depthwise_convolutions_and_global_means(clip: list[str]) -> None:
    """As in MobileNets, written as PyTorch exports them."""
    operator, *bounds = clip
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["a"], name="stem"),
        helper.make_node("Conv", ["a", "expand", "expand_bias"], ["b"], name="expand"),
        helper.make_node(operator, ["b", *bounds], ["c"]),
        helper.make_node("Conv", ["c", "depthwise", "depthwise_bias"], ["d"], name="depthwise", group=12),
        helper.make_node(operator, ["d", *bounds], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["f"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["f", "head"], ["y"], name="head", transB=1),
    ]
    arrays = {
        "stem": normal(4, 3, 1, 1),
        "expand": normal(12, 4, 1, 1),
        "expand_bias": normal(12),
        "depthwise": normal(12, 1, 3, 3),
        "depthwise_bias": normal(12),
        "head": normal(10, 12),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    pruned = sparsec.prune(model_of(nodes, arrays, [2, 3, 8, 8], [2, 10]), Channels(), 0.5)
    new = tensors(pruned.model)
    dead = ~new["expand"].any(axis=(1, 2, 3))
    assert dead.sum() == 6
    np.testing.assert_array_equal(~new["depthwise"].any(axis=(1, 2, 3)), dead)
    for name in ("expand_bias", "depthwise_bias"):
        np.testing.assert_array_equal(new[name] == 0, dead)
    np.testing.assert_array_equal(~new["head"].any(axis=0), dead)


def test_channels_live_on_where_something_is_made_of_nothing() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="first"),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"], name="second"),
        helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        helper.make_node("MatMul", ["d", "third"], ["e"], name="third"),
        helper.make_node("Add", ["e", "scalar"], ["f"]),
        helper.make_node("MatMul", ["f", "fourth"], ["y"], name="fourth"),
    ]
    arrays = {name: normal(8, 8, seed=seed) for seed, name in enumerate(("first", "second", "third", "fourth"))}
    arrays |= {"low": np.float32(1), "high": np.float32(2), "scalar": np.float32(1)}
    new = tensors(sparsec.prune(model_of(nodes, arrays, [2, 8], [2, 8]), Channels(), 0.5, scope="layer").model)
    assert all((~new[name].any(axis=0)).sum() == 4 for name in ("first", "second", "third"))
    assert all(new[name].any(axis=1).all() for name in ("second", "third", "fourth"))


class Residual(nn.Module):
    """A channel that a residual brings back is no dead input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = torch.relu(self.second(a))
        c = torch.cat([self.third(a + b), b], 1)
        return self.head(c)


def test_channels_die_in_sums_only_where_they_are_dead_in_both() -> None:
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():
        net.first.weight[:3] = 0.0
        net.second.weight[1:4] = 0.0
        net.third.weight[6:] = 0.0
    pruned = sparsec.prune(net, Channels(), 0.3, scope="layer")
    first, second, third = (~pruned.masks[f"{name}.weight"].any(axis=1) for name in ("first", "second", "third"))
    assert (np.flatnonzero(first) < 3).all() and first.sum() == 2
    dead_inputs = ~pruned.masks["third.weight"][~third].any(axis=0)
    np.testing.assert_array_equal(dead_inputs, first & second)
    assert (first & second).any()
    kept = {layer.name: layer.kept for layer in pruned.layers}
    assert kept == {"first": "", "second": "", "third": "", "head": "computes outputs of the model"}


def test_a_module_that_cannot_be_traced_is_pruned_in_onnx() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)) if x.sum() > 0 else x

    with pytest.raises(PruningError, match=r"torch\.fx cannot trace Branch .*; export it to ONNX"):
        sparsec.prune(Branch(), Channels(), 0.5)
    kept = [layer.kept for layer in sparsec.prune(Branch(), TileWise(4, two_sided=True), 0.5).layers]
    assert kept == ["", "computes outputs of the model"]


# -- stages and training -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [network, lambda: exported(network())], ids=["torch", "onnx"])
def test_stages_call_back_with_the_model_and_its_sparsity(make: Any) -> None:
    calls = []
    source = make()
    pruned = sparsec.prune(source, "unstructured", [0.25, 0.5, 0.75], fine_tune=lambda *args: calls.append(args))
    assert [sparsity for _, sparsity in calls] == [0.25, 0.5, 0.75]
    assert all(model is pruned.model for model, _ in calls)
    assert pruned.sparsity == pytest.approx(0.75, abs=1e-3)


def test_later_stages_rank_what_training_made_of_the_weights() -> None:
    model = linear(np.arange(1, 17, dtype=np.float32).reshape(4, 4))

    def reverse(model: onnx.ModelProto, sparsity: float) -> None:
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(17 - np.arange(1, 17, dtype=np.float32).reshape(4, 4), "w0"))

    pruned = sparsec.prune(model, "unstructured", [0.25, 0.5], fine_tune=reverse)
    left = np.zeros((4, 4), np.float32)
    left.ravel()[4:12] = np.arange(12, 4, -1)  # the first four went at once, the last four are the smallest now
    np.testing.assert_array_equal(tensors(pruned.model)["w0"], left)


def train(net: nn.Module, steps: int = 5) -> None:
    """With momentum from before and weight decay, both of which move weights whose gradient is zero."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    net.train()
    for step in range(steps):
        loss = nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.tensor([step % 10, 2]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("pattern", ["tile-wise:8", "channels"])
def test_masks_hold_while_the_module_is_trained(pattern: str) -> None:
    net = network()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step() -> None:
        optimiser.zero_grad()
        net(torch.from_numpy(X)).square().sum().backward()
        optimiser.step()

    step()  # gives pruned weights a momentum
    names = list(net.state_dict())
    pruned = sparsec.prune(net, pattern, 0.75, fine_tune=lambda net, _: step())
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    with pruned.hold():
        step()
        for name, mask in pruned.masks.items():
            path, _, attribute = name.rpartition(".")
            assert not getattr(net.get_submodule(path), attribute).detach().numpy()[~mask].any()
        train(net)
    assert list(net.state_dict()) == names
    for name, value in net.named_parameters():
        mask = pruned.masks.get(name, np.ones(value.shape, bool))
        assert not value.detach().numpy()[~mask].any()
        assert not torch.equal(value, before[name]), f"{name} was not trained"


def test_masks_are_let_go_when_training_fails() -> None:
    net = network()

    def fail(net: nn.Module, sparsity: float) -> None:
        raise RuntimeError("out of patience")

    with pytest.raises(RuntimeError, match="out of patience"):
        sparsec.prune(net, "2:4", fine_tune=fail)
    assert type(net[7]) is nn.Linear and isinstance(net[7].weight, nn.Parameter)


def test_a_pruned_module_compiles() -> None:
    net = network()
    sparsec.prune(net, "unstructured", 0.9)
    session_input = (torch.from_numpy(X),)
    layers = sparsec.inspect(net, example_inputs=session_input).layers
    assert any(layer.sparsity > 0.8 for layer in layers)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_is_pruned_with_its_external_data(tmp_path: Path) -> None:
    model = exported(network())
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    pruned = sparsec.prune(tmp_path / "a.onnx", "2:4")
    written = onnx.load(pruned.save(tmp_path / "b.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.onnx", "b.onnx"]
    expected = tensors(sparsec.prune(exported(network()), "2:4").model)
    for name, array in tensors(written).items():
        np.testing.assert_array_equal(array, expected[name])


def test_only_onnx_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"only ONNX models are saved; write the Sequential with torch\.save"):
        sparsec.prune(network(), "2:4").save(tmp_path / "a.onnx")


def test_the_report_is_json() -> None:
    report = sparsec.prune(exported(network()), "2:4").as_dict()
    assert report["pattern"] == "2:4" and report["sparsity"] == 0.5
    assert report["layers"][2] == {
        "name": "fc1",
        "operator": "Gemm",
        "weight": "7_weight",
        "shape": [40, 64],
        "size": 2560,
        "zeros": 1280,
        "kept": "",
        "sparsity": 0.5,
    }


# -- refusals ----------------------------------------------------------------------------------------------------------


def nan_weight() -> onnx.ModelProto:
    weight = normal(8, 8)
    weight[0, 0] = np.nan
    return linear(weight)


@pytest.mark.parametrize(
    ("make", "arguments", "why"),
    [
        (network, ("unstructured",), "leaves the sparsity open; state it"),
        (network, ("unstructured", 75), "a sparsity is between 0 and 1, as in 0.75, and not 75"),
        (network, ("2:4", 0.75), "the pattern 2:4 is 50.0% sparse, and cannot be 75.0%"),
        (network, ("tvw:8", 0.25), "is between 50.0% and 100.0% sparse, and cannot be 25.0%"),
        (network, ("unstructured", [0.5, 0.25]), "do not rise"),
        (network, ("unstructured", []), "do not rise"),
        (lambda: nn.ReLU(), ("2:4",), "nothing to prune: the model has no linear layers"),
        (lambda: nn.Sequential(nn.Linear(4, 4)), ("fkw",), "nothing to prune: '0' has kernels of 1 tap"),
        (nan_weight, ("2:4",), "'w0' holds NaN or infinity, which cannot be ranked; skip it"),
        (lambda: 3, ("2:4",), "cannot prune int; give"),
        (lambda: "nothing.onnx", ("2:4",), "cannot read nothing.onnx"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, arguments: Any, why: str) -> None:
    with pytest.raises((PruningError, ModelError), match=why):
        sparsec.prune(make(), *arguments)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"skip": ["fc9"]}, "no layer with weights is named 'fc9'; the model has conv1, conv2, fc1, fc2"),
        ({"scope": "all"}, "the scope is 'global' or 'layer', not 'all'"),
        ({"score": Taylor({})}, "no gradient for '2_weight'"),
        ({"score": Taylor({"2_weight": np.zeros(3)})}, r"the gradient of '2_weight' is \(3,\), and the weight"),
        ({"score": Taylor({"2_weight": np.full((16, 8, 3, 3), np.nan)})}, "holds NaN or infinity"),
        ({"score": Activations({"z": X})}, "has no input 'z' to calibrate with; it has x"),
        ({"score": Activations({})}, "nothing to calibrate the input 'x' with"),
        ({"score": Activations([])}, "there are no calibration inputs"),
        ({"score": Activations({"x": X[:, :1]})}, "does not run on the calibration inputs"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(PruningError, match=why):
        sparsec.prune(exported(network()), "2:4", **options)


def test_a_module_that_does_not_run_on_its_calibration_inputs_says_so() -> None:
    with pytest.raises(PruningError, match="the module does not run on the calibration inputs"):
        sparsec.prune(network(), "2:4", score=Activations((torch.zeros(1, 1),)))
