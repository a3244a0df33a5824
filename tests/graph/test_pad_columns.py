"""Columns are filled up to whole vectors: nothing else changes, and copies stand where rows change their length."""

import warnings

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from sparsec.graph.fuse import fuse
from sparsec.graph.graph import Graph
from sparsec.graph.pad_columns import pad_columns
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.targets import TARGETS
from tests.graph.small_models import canonical, import_small, ops, run, same
from tests.graph.test_plan_layouts import const, encoder, layer

COLUMNS = np.arange(19, dtype="float32")


def padded(build, *shapes, target: str = "znver4", sizes=None, **symbols) -> Graph:
    graph = canonical(import_small(build, *shapes, **symbols))
    plan_layouts(graph)
    sizes = sizes or {}
    before = run(graph, **sizes)
    pad_columns(graph, TARGETS[target])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that nobody reads
        same(before, run(graph, **sizes))
    return graph


def copies(graph: Graph) -> list[str]:
    return [name for name in ops(graph) if name in ("nn.pad", "strided_slice")]


@pytest.mark.parametrize("tokens, target, wide", [(17, "znver4", 24), (37, "haswell", 40), (33, "znver5", 48)])
def test_a_transformer_is_padded_once_and_cut_at_its_end(tokens, target, wide):
    graph = padded(encoder, (1, tokens, 32), (1, tokens), target=target)
    assert copies(graph)[0] == "nn.pad" and copies(graph).count("nn.pad") == 1
    assert copies(graph).count("strided_slice") <= 2
    layers = [node for node in graph.nodes if node.op == "linear_cols" and node.attrs]
    assert len(layers) == 18 and all(node.output.shape[-1] == wide for node in layers)
    assert all(node.attrs["columns"] == tokens for node in layers)


def test_attention_reads_no_padding():
    graph = padded(lambda bb, x: layer(bb, x), (2, 21, 32))
    scores, mixed = (node for node in graph.nodes if node.op == "batch_matmul")
    (softmax,) = (node for node in graph.nodes if node.op == "nn.softmax")
    assert scores.output.shape[-2:] == softmax.output.shape[-2:] == (21, 24), "keys, and queries with what fills up"
    assert scores.inputs[0].shape[-1] == 24 and scores.attrs["rows"] == 21
    assert mixed.inputs[0].shape[-1] == 24 and mixed.inputs[1].shape[-2] == 21


@pytest.mark.parametrize("tokens", [1, 7, 8, 16, 64])
def test_whole_vectors_and_few_columns_stay(tokens):
    assert not copies(padded(lambda bb, x: layer(bb, x), (1, tokens, 32)))


def test_symbolic_columns_stay():
    graph = padded(encoder, ("b", "t", 32), ("b", "t"), sizes={"b": 2, "t": 5}, b=(1, 8), t=(1, 128))
    assert "nn.pad" not in copies(graph)


def test_work_counts_what_is_read():
    flops = {}
    for target in ("znver4", "znver5"):  # which fill up to 24 and to 32
        groups = fuse(padded(lambda bb, x: layer(bb, x), (1, 21, 32), target=target), TARGETS[target])
        flops[target] = sum(work.flops for group in groups for work in group.works)
    assert flops["znver4"] == flops["znver5"] == 2 * 21 * (12 * 32 * 32 + 2 * 21 * 32)


def test_other_readers_get_what_was_there():
    def build(bb, x, shift):
        y = bb.emit(op.add(bb.emit(op.matmul(x, const(32, 64))), const(64)))
        total = bb.emit(op.sum(y, axis=[1]))  # over the columns
        normed = bb.emit(op.nn.softmax(y, axis=1))
        left, right = bb.emit(op.split(y, 2, axis=2)), bb.emit(op.multiply(normed, shift))
        joined = bb.emit(op.concat([left[0], bb.emit(op.negative(left[1])), y], axis=2))
        return bb.emit(relax.Tuple([total, joined, right, bb.emit(op.mean(joined, axis=[2], keepdims=True))]))

    graph = padded(build, (1, 19, 32), (1, 19, 64))
    assert "nn.pad" in copies(graph)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: op.mean(x, axis=[2]),
        lambda x: op.max(op.negative(op.abs(x)), axis=[2]),
        lambda x: op.nn.softmax(x, axis=2),
        lambda x: op.permute_dims(x, (0, 2, 1)),
        lambda x: op.multiply(x, relax.const(COLUMNS)),
        op.negative,
    ],
)
def test_an_input_or_a_constant_that_others_read_too_keeps_its_length(read):
    """What feeds a product is copied for it alone."""

    def build(bb, x):
        y = bb.emit(op.multiply(bb.emit(op.matmul(const(64, 32), x)), relax.const(COLUMNS)))
        return bb.emit(relax.Tuple([y, bb.emit(read(x)), x]))

    assert "nn.pad" in copies(padded(build, (1, 32, 19)))


def test_two_lengths_meet_in_attention():
    def build(bb, x, memory):
        q, k, v = (bb.emit(op.matmul(each, const(32, 32))) for each in (x, memory, memory))
        scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, (0, 2, 1)))))
        return bb.emit(op.matmul(bb.emit(op.matmul(bb.emit(op.nn.softmax(scores)), v)), const(32, 32)))

    graph = padded(build, (1, 19, 32), (1, 21, 32))
    assert [node.output.shape[-1] for node in graph.nodes if node.op == "batch_matmul"] == [24, 24]


@pytest.mark.parametrize("divide", [op.divide, op.floor_divide, op.mod])
def test_integers_are_divided_by_no_filling(divide):
    def build(bb, x):
        y = bb.emit(op.matmul(const(64, 32), x))
        divisors = relax.const(np.arange(1, 20, dtype="int32"))
        return bb.emit(divide(bb.emit(op.astype(y, "int32")), divisors))

    graph = padded(build, (1, 32, 19))
    (division,) = (node for node in graph.nodes if node.op in ("divide", "floor_divide", "mod"))
    assert division.output.shape[-1] == 19


def test_a_constant_along_the_columns_is_filled_up():
    def build(bb, x):
        y = bb.emit(op.matmul(x, const(32, 32)))
        y = bb.emit(op.multiply(y, relax.const(np.arange(19, dtype="float32").reshape(1, 19, 1))))
        return bb.emit(op.matmul(y, const(32, 32)))

    graph = padded(build, (1, 19, 32))
    assert copies(graph).count("nn.pad") == 1


def test_copies_that_cost_more_than_ragged_tiles_are_not_made():
    def build(bb, x):
        weight = np.zeros((32, 32), "float32")
        weight[0, 0] = 1
        return bb.emit(op.matmul(x, relax.const(weight)))

    assert not copies(padded(build, (1, 19, 32)))
