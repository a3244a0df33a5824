"""What is pruned, what is not and why: scope, names that are skipped or asked for."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import sparsec
from sparsec.errors import PruningError
from sparsec.pruning import NM, Activations, Block, KernelPattern, TileWise
from tests.pruning import oracle
from tests.pruning.networks import exported, linear, model_of, network, normal, tensors


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
