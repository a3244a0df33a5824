"""Useful operations: what products do on the entries that are left, however their loops are written."""

import numpy as np
import pytest
import torch

import sparsec
from sparsec.graph.work import WORK
from sparsec.targets import Target
from tests.graph.test_few_bits import TERNARY
from tests.graph.test_few_bits import model as few_bits_model
from tests.graph.test_recognize_masked_attention import HEADS, SIZE, attention
from tests.operators.test_op import windows
from tests.test_compiler import Builder, normal, sparse, transformer_layer

NATIVE = Target.parse("native")
FMA = f"fma.{NATIVE.lanes('float32')}"


def work(artifact: sparsec.Artifact, *feed: np.ndarray) -> dict[str, int]:
    """The operations of each kind of kernel that is a product, in one run."""
    found: dict[str, int] = {}
    for step in artifact.load(1).profile(*feed, runs=1):
        name = step.kernel.rpartition("_")[0]
        assert bool(step.flops) >= bool(step.instruction)
        found |= {name: found.get(name, 0) + step.flops} if step.flops else {}
    return found


def test_layers_count_the_entries_that_are_left():
    b, weight = Builder(), sparse(48, 70)
    b.Relu(b.Add(b.MatMul("x", weight), normal(70)), name="y")
    artifact = sparsec.compile(b.model({"x": [19, 48]}, {"y": [19, 70]}))
    transposes = {"flops": 0, "instruction": ""}
    layer = {"flops": 2 * 19 * np.count_nonzero(weight), "instruction": FMA}
    assert [step for step in artifact.manifest["steps"] if step != transposes] == [layer]
    assert artifact.manifest["layers"][0]["flops"] == layer["flops"]


@pytest.mark.parametrize("op", ["linear_cols", "low_bit_product"])
def test_entries_are_counted_once(op, monkeypatch):
    counted, count = [], WORK[op]
    monkeypatch.setitem(WORK, op, lambda node: counted.append(node) or count(node))
    weight = np.where(np.arange(128) < 96, TERNARY, 0)
    proto, target = few_bits_model([weight], 3), "emulate:znver5"
    if op == "linear_cols":
        b, weight, target = Builder(), sparse(48, 70), "native"
        b.MatMul("x", weight, name="y")
        proto = b.model({"x": [19, 48]}, {"y": [19, 70]})
    (layer,) = sparsec.compile(proto, target=target).manifest["layers"]
    assert len(counted) == 1 and layer["sparsity"] == 1 - np.count_nonzero(weight) / weight.size


@pytest.mark.parametrize(("groups", "stride", "width"), [(1, 1, 30), (1, 2, 30), (4, 1, 7)])
def test_convolutions_count_pixels_without_their_borders(groups, stride, width):
    b, weight = Builder(), sparse(16, 8 // groups, 3, 3, density=0.3)
    b.Conv("x", weight, pads=[1] * 4, strides=[stride] * 2, group=groups, name="y")
    height, columns = -(-22 // stride), -(-width // stride)
    proto = b.model({"x": [2, 8, 22, width]}, {"y": [2, 16, height, columns]})
    artifact = sparsec.compile(proto)
    expected = 2 * np.count_nonzero(weight) * 2 * height * columns
    assert work(artifact, normal(2, 8, 22, width)) == {"conv2d": expected}
    assert artifact.manifest["layers"][0]["flops"] == expected


def test_symbolic_sizes_are_those_of_the_run():
    artifact = sparsec.compile(transformer_layer("batch", "tokens"), shapes={"batch": (1, 3), "tokens": (1, 21)})
    entries = sum(layer["flops"] for layer in artifact.manifest["layers"]) // (2 * 128)
    for batch, tokens in ((1, 21), (3, 5)):
        feed = normal(batch, tokens, 32), np.ones((batch, tokens), np.float32)
        assert work(artifact, *feed) == {
            "linear": 2 * batch * tokens * entries,
            "matmul": 2 * 2 * batch * tokens * tokens * 32,
        }


def test_masked_attention_counts_the_scores_that_are_computed():
    mask = windows(64, 16, 0)
    model, feed = attention(64, "divided, added", mask)
    found = work(sparsec.compile(model), *feed.values())
    each = 2 * 2 * HEADS * SIZE * np.count_nonzero(mask)  # of two samples
    assert (found["sddmm"], found["masked_product"]) == (each, each)
    assert "masked_softmax" not in found


def test_products_by_other_loops_count_too():
    volumes = torch.nn.Conv3d(3, 5, (1, 3, 2), bias=False)
    artifact = sparsec.compile(volumes, example_inputs=(torch.zeros(2, 3, 4, 6, 7),))
    assert sum(work(artifact, normal(2, 3, 4, 6, 7)).values()) == 2 * 2 * 4 * 4 * 6 * 3 * 5 * 6


def test_each_pixel_of_a_transposed_convolution_meets_each_entry():
    transposed = torch.nn.ConvTranspose2d(3, 5, 2, stride=2, bias=False)
    artifact = sparsec.compile(transposed, example_inputs=(torch.zeros(2, 3, 6, 7),))
    assert sum(work(artifact, normal(2, 3, 6, 7)).values()) == 2 * 2 * 6 * 7 * 3 * 5 * 4


def test_few_bits_count_numbers_and_not_their_bits():
    weight = np.where(np.arange(128) < 96, TERNARY, 0)
    artifact = sparsec.compile(few_bits_model([weight], 3), target="emulate:znver5")
    expected = 2 * np.count_nonzero(weight) * 64
    assert work(artifact, normal(1, 64, 128)) == {"low_bit": expected}
    assert artifact.manifest["layers"][0]["flops"] == expected


def test_sums_of_integers_name_what_adds_them_up():
    weight = np.random.default_rng(0).integers(-9, 9, (32, 64)).astype(np.int8)
    b = Builder()
    b.MatMulInteger("x", weight.T.copy(), name="y")
    proto = b.model({"x": [16, 64]}, {"y": [16, 32]})
    proto.graph.input[0].type.tensor_type.elem_type = 2  # uint8
    proto.graph.output[0].type.tensor_type.elem_type = 6  # int32
    for target, instruction in (
        ("znver5", "x86.vpdpbusd.512"),
        ("x86-64-v3", "x86.vpmaddwd.256"),
        ("x86-64-v2", ""),
        ("emulate:znver5", ""),
        ("armv8.6", "arm.smmla.128"),
    ):
        (step,) = (s for s in sparsec.compile(proto, target=target).manifest["steps"] if s["flops"])
        assert step == {"flops": 2 * 16 * np.count_nonzero(weight), "instruction": instruction}
