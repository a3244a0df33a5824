"""Graphs that are rewritten for a few items of a batch compute, slice by slice, what they did as a whole."""

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from sparsec.graph.evaluate import evaluate
from sparsec.graph.graph import Graph
from sparsec.graph.split_batch import split_batch
from sparsec.targets import Target
from tests.graph.small_models import canonical, import_small

RNG = np.random.default_rng(0)
SMALL = replace(Target.parse("x86-64-v3"), l2_bytes=1)
"""A target on which a batch is split into single items."""


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32")


def const(array: np.ndarray) -> relax.Expr:
    return relax.const(array)


def graph_of(build, *shapes, **options) -> Graph:
    """A canonical graph of some operators over variables."""

    def emitted(builder, *params):
        return builder.emit(builder.normalize(build(*params)))

    return canonical(import_small(emitted, *shapes, **options))


def run_sliced(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    slices = zip(*(np.split(array, graph.slices) for array in arrays), strict=True)
    return [np.concatenate(parts) for parts in zip(*(evaluate(graph, part) for part in slices), strict=True)]


def check(build, *shapes, slices: int, dtype: str = "float32", target: Target = SMALL) -> Graph:
    """Split a graph into so many slices, which give what the whole gives."""
    graph = graph_of(build, *shapes, dtype=dtype)
    arrays = [(3 * normal(*shape)).astype(dtype) if dtype == "float32" else np.ones(shape, dtype) for shape in shapes]
    whole = evaluate(graph, arrays)
    split_batch(graph, target)
    graph.verify()
    assert graph.slices == slices
    for expected, found in zip(whole, run_sliced(graph, arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    return graph


def attend(x):
    """Attention as vision transformers write it: the batch is in the middle for a while."""
    split = op.permute_dims(op.reshape(op.matmul(x, const(normal(8, 24))), (6, 5, 3, 2, 4)), (2, 0, 3, 1, 4))
    q, k, v = (op.squeeze(op.strided_slice(split, [0], [i], [i + 1]), [0]) for i in range(3))
    weights = op.nn.softmax(op.matmul(q, op.permute_dims(k, (0, 1, 3, 2))), -1)
    return op.reshape(op.permute_dims(op.matmul(weights, v), (0, 2, 1, 3)), (6, 5, 8))


def with_token(x):
    token = np.broadcast_to(normal(1, 1, 8), (6, 1, 8)).copy()
    return op.concat([const(token), x], axis=1)


def merged(x):
    """Layers over batch · tokens rows."""
    rows = op.nn.relu(op.matmul(op.reshape(x, (24, 5)), const(normal(5, 7))))
    return op.reshape(op.add(rows, const(normal(7))), (6, 4, 7))


def quantized(x, scale, zero, axis):
    return op.dequantize(op.quantize(x, scale, zero, axis=axis, out_dtype="int8"), scale, zero, axis=axis)


def items(x) -> int:
    return int(x.ty.shape.values[0])


WORKS = {
    "a constant for all items": (lambda x: op.add(x, const(normal(4, 5))), [(6, 4, 5)]),
    "a constant for each item": (lambda x: op.multiply(x, const(np.tile(normal(1, 5), (6, 1)))), [(6, 5)]),
    "two inputs": (lambda x, y: op.add(x, y), [(6, 4, 5), (6, 1, 5)]),
    "linear": (lambda x: op.matmul(x, const(normal(5, 7))), [(6, 4, 5)]),
    "matmul": (lambda x, y: op.matmul(x, y), [(6, 4, 5), (6, 5, 3)]),
    "convolution": (lambda x: op.nn.conv2d(x, const(normal(5, 3, 3, 3)), padding=1), [(6, 3, 5, 5)]),
    "pooling": (lambda x: op.nn.max_pool2d(x, (2, 2), (2, 2)), [(6, 3, 4, 4)]),
    "softmax": (lambda x: op.nn.softmax(x, axis=1), [(6, 4, 5)]),
    "layer norm": (lambda x: op.nn.layer_norm(x, const(normal(5)), const(normal(5)), axes=[-1]), [(6, 4, 5)]),
    "reduction": (lambda x: op.mean(x, axis=[1, 2]), [(6, 4, 5)]),
    "merged axes": (merged, [(6, 4, 5)]),
    "an output of merged axes": (lambda x: op.reshape(x, (24, 5)), [(6, 4, 5)]),
    "one axis more": (lambda x: op.permute_dims(op.expand_dims(op.exp(x), 1), (0, 2, 1)), [(6, 4)]),
    "attention": (attend, [(6, 5, 8)]),
    "a token in front": (with_token, [(6, 4, 8)]),
    "broadcast": (lambda x: op.broadcast_to(x, (6, 4, 5)), [(6, 1, 5)]),
    "slice": (lambda x: op.strided_slice(x, [1], [1], [3]), [(6, 4, 5)]),
    "padding": (lambda x: op.nn.pad(x, (0, 0, 1, 2)), [(6, 4)]),
    "entry": (lambda x: op.take(x, const(np.int64(2)), axis=1), [(6, 4, 5)]),
    "flip": (lambda x: op.flip(x, axis=1), [(6, 4)]),
    "cumulative sum": (lambda x: op.cumsum(x, axis=1), [(6, 4)]),
    "repeat": (lambda x: op.repeat(x, 2, axis=1), [(6, 4)]),
    "quantization": (lambda x: quantized(x, const(np.float32(0.1)), const(np.int8(3)), axis=0), [(6, 4)]),
    "quantization by channel": (
        lambda x: quantized(x, const(np.array([0.1, 0.2, 0.3, 0.4], "float32")), const(np.arange(4, dtype="int8")), 1),
        [(6, 4, 5)],
    ),
}


@pytest.mark.parametrize("name", WORKS)
def test_items_that_are_independent(name: str) -> None:
    build, shapes = WORKS[name]
    check(build, *shapes, slices=6)


ALONE = {
    "cumulative product": (lambda x: op.cumprod(x, axis=1), (4,)),
    "gathered elements": (
        lambda x: op.gather_elements(x, const(np.ones((items(x), 2), "int64")), axis=1),
        (4,),
    ),
    "group norm": (lambda x: op.nn.group_norm(x, const(normal(4)), const(normal(4)), 2, 1, [2]), (4, 5)),
    "instance norm": (lambda x: op.nn.instance_norm(x, const(normal(4)), const(normal(4)), 1, [2]), (4, 5)),
    "RMS norm": (lambda x: op.nn.rms_norm(x, const(normal(5)), axes=[-1]), (4, 5)),
    "1d pooling": (lambda x: op.nn.max_pool1d(op.nn.avg_pool1d(x, (2,)), (2,)), (3, 8)),
    "3d pooling": (lambda x: op.nn.max_pool3d(op.nn.avg_pool3d(x, (2, 2, 2)), (2, 2, 2)), (3, 4, 4, 4)),
    "1d pooling to a size": (lambda x: op.nn.adaptive_avg_pool1d(x, (2,)), (3, 8)),
    "3d pooling to a size": (lambda x: op.nn.adaptive_avg_pool3d(x, (2, 2, 2)), (3, 4, 4, 4)),
    "3d convolution": (lambda x: op.nn.conv3d(x, const(normal(5, 3, 2, 2, 2))), (3, 4, 4, 4)),
    "1d transposed convolution": (lambda x: op.nn.conv1d_transpose(x, const(normal(3, 5, 2))), (3, 8)),
    "2d transposed convolution": (lambda x: op.nn.conv2d_transpose(x, const(normal(3, 5, 2, 2))), (3, 4, 4)),
    "3d transposed convolution": (lambda x: op.nn.conv3d_transpose(x, const(normal(3, 5, 2, 2, 2))), (3, 4, 4, 4)),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_is_left_is_the_graph_of_one_item(name: str) -> None:
    """Of operators that NumPy does not evaluate here."""
    build, shape = ALONE[name]
    graph, single = graph_of(build, (6, *shape)), graph_of(build, (1, *shape))
    split_batch(graph, SMALL)
    assert graph.slices == 6
    for found, expected in zip(graph.nodes, single.nodes, strict=True):
        assert (found.op, found.attrs) == (expected.op, expected.attrs)
        values = (*found.inputs, *found.outputs), (*expected.inputs, *expected.outputs)
        assert [value.shape for value in values[0]] == [value.shape for value in values[1]]


def test_signs_of_bytes_flip_one_by_one() -> None:
    graph = Graph()
    x = graph.input("x", (6, 4), "uint8")
    graph.outputs = [graph.add("flip_sign", [x], (6, 4), dtype="int8")]
    split_batch(graph, SMALL)
    assert graph.slices == 6


def test_entries_of_a_table() -> None:
    graph = check(lambda x: op.take(const(normal(9, 4)), x, axis=0), (6, 5), slices=6, dtype="int64")
    assert graph.outputs[0].shape == (1, 5, 4)


MIXES = {
    "reduction over the batch": (lambda x: op.subtract(x, op.mean(x, axis=[0], keepdims=True)), [(6, 4)]),
    "norm over the batch": (
        lambda x: op.nn.layer_norm(x, const(normal(6, 4)), const(normal(6, 4)), axes=[0, 1]),
        [(6, 4)],
    ),
    "softmax over the batch": (lambda x: op.nn.softmax(x, axis=0), [(6, 4)]),
    "reshape that mixes": (lambda x: op.reshape(op.exp(x), (4, 6)), [(6, 4)]),
    "reshape of merged items": (lambda x: op.reshape(op.exp(op.reshape(x, (12,))), (4, 3)), [(6, 2)]),
    "constant that differs": (lambda x: op.add(x, const(normal(6, 1))), [(6, 4)]),
    "product over the batch": (lambda x: op.matmul(op.permute_dims(x, (1, 0)), const(normal(6, 3))), [(6, 4)]),
    "product of all pairs": (lambda x: op.matmul(x, op.permute_dims(x, (1, 0))), [(6, 4)]),
    "product with itself": (lambda x: op.permute_dims(op.matmul(x, x), (1, 0)), [(6, 6)]),
    "part of the batch": (lambda x: op.strided_slice(op.exp(x), [0], [0], [3]), [(6, 4)]),
    "concatenated items": (lambda x: op.concat([op.exp(x), x], axis=0), [(6, 4)]),
    "reversed items": (lambda x: op.flip(x, axis=0), [(6, 4)]),
    "cumulative product of items": (lambda x: op.cumprod(x, axis=0), [(6, 4)]),
    "elements of other items": (lambda x: op.gather_elements(x, const(np.zeros((6, 4), "int64")), axis=0), [(6, 4)]),
    "repeated items": (lambda x: op.repeat(x, 2, axis=0), [(6, 4)]),
    "repeat without an axis": (lambda x: op.repeat(x, 2), [(6, 4)]),
    "group norm over the batch": (
        lambda x: op.nn.group_norm(x, const(normal(6)), const(normal(6)), 2, 0, [1]),
        [(6, 4)],
    ),
    "RMS norm over the batch": (lambda x: op.nn.rms_norm(x, const(normal(6, 4)), axes=[0, 1]), [(6, 4)]),
    "quantization by item": (
        lambda x: quantized(x, const(np.arange(1, 7, dtype="float32")), const(np.zeros(6, "int8")), 0),
        [(6, 4)],
    ),
    "pooling of images that are behind": (lambda x: op.nn.avg_pool1d(x, (2,), (2,), layout="CNW"), [(6, 6, 4)]),
    "picked items": (lambda x: op.take(x, const(np.array([2, 0])), axis=0), [(6, 4)]),
    "batch behind": (lambda x: op.permute_dims(x, (1, 0)), [(6, 4)]),
    "other batches": (lambda x, y: op.add(x, y), [(6, 4), (1, 4)]),
    "no rule": (lambda x: op.tril(x), [(6, 4, 4)]),
    "one item": (lambda x: op.exp(x), [(1, 4)]),
    "symbol": (lambda x: op.exp(x), [("n", 4)]),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_graph_that_mixes_items_stays(name: str) -> None:
    build, shapes = MIXES[name]
    graph = graph_of(build, *shapes, **({"n": (6, 6)} if name == "symbol" else {}))
    before = str(graph)
    split_batch(graph, SMALL)
    assert (graph.slices, str(graph)) == (1, before)


def test_what_all_items_read_takes_its_part_of_l2() -> None:
    graph = Graph()
    x = graph.input("x", (12, 100), "float32")
    shared = graph.add("zeros", [], (1, 100), {"shape": (1, 100)}, dtype="float32")
    graph.outputs = [graph.add("add", [x, shared], (12, 100))]
    split_batch(graph, replace(SMALL, l2_bytes=2000))
    assert graph.slices == 6


@pytest.mark.parametrize("l2_bytes, slices", [(1, 12), (1599, 12), (1600, 6), (3199, 4), (9600, 1)])
def test_as_many_items_as_fit(l2_bytes: int, slices: int) -> None:
    """An item is 100 floats, read and written: 800 bytes."""
    target = replace(SMALL, l2_bytes=l2_bytes)
    graph = check(lambda x: op.exp(x), (12, 100), slices=slices, target=target)
    assert graph.inputs[0].shape == (12 // slices, 100)


def test_rows_too_short_for_a_slice_stay_together() -> None:
    target = replace(SMALL, l2_bytes=25601)
    check(lambda x: op.exp(x), (37, 100), slices=1, target=target)
    check(lambda x: op.exp(x), (37, 101), slices=37, target=target)


def test_weights_that_outweigh_activations_are_read_once() -> None:
    weight = np.zeros((64, 64), "float32")
    weight.reshape(-1)[:128] = 1
    check(lambda x: op.matmul(x, const(weight)), (6, 64), slices=6)
    weight[:] = 1
    check(lambda x: op.matmul(x, const(weight)), (6, 64), slices=1)
