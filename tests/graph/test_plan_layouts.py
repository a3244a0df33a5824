"""The planner: nothing changes but where things lie, and transposes are gone where kernels like what they get."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

from sparsec.graph.graph import Graph
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.graph.shape import symbols_of
from tests.graph.small_models import canonical, import_small, ops, run, same

rng = np.random.default_rng(11)


def const(*shape: int) -> relax.Expr:
    return relax.const(rng.standard_normal(shape).astype("float32") / math.sqrt(shape[0]))


def planned(build, *shapes, sizes=None, **symbols) -> Graph:
    graph = canonical(import_small(build, *shapes, **symbols))
    sizes = sizes or {}
    before = run(graph, **sizes)
    plan_layouts(graph)
    same(before, run(graph, **sizes))
    assert not {"linear", "matmul"} & set(ops(graph))
    return graph


def permutes(graph: Graph) -> int:
    return ops(graph).count("permute_dims")


def layer(bb, x, mask=None, width: int = 32, heads: int = 4):
    """A transformer's encoder layer, as exporters write it."""
    batch, tokens = x.ty.shape[0], x.ty.shape[1]

    def linear(y, wide: int):
        return bb.emit(op.add(bb.emit(op.matmul(y, const(int(y.ty.shape[-1]), wide))), const(wide)))

    def norm(y):
        return bb.emit(op.nn.layer_norm(y, const(width), const(width), axes=[-1]))

    def split(y, axes):
        return bb.emit(op.permute_dims(bb.emit(op.reshape(y, (batch, tokens, heads, width // heads))), axes))

    q, k, v = split(linear(x, width), (0, 2, 1, 3)), split(linear(x, width), (0, 2, 3, 1)), linear(x, width)
    scores = bb.emit(op.divide(bb.emit(op.matmul(q, k)), relax.const(np.float32(math.sqrt(width // heads)))))
    scores = scores if mask is None else bb.emit(op.add(scores, mask))
    mixed = bb.emit(op.matmul(bb.emit(op.nn.softmax(scores)), split(v, (0, 2, 1, 3))))
    mixed = bb.emit(op.reshape(bb.emit(op.permute_dims(mixed, (0, 2, 1, 3))), (batch, tokens, width)))
    x = norm(bb.emit(op.add(linear(mixed, width), x)))
    return norm(bb.emit(op.add(linear(bb.emit(op.nn.gelu(linear(x, 4 * width))), width), x)))


def encoder(bb, x, mask):
    mask = bb.emit(op.expand_dims(mask, [1, 2]))
    for _ in range(3):
        x = layer(bb, x, mask)
    pooled = bb.emit(op.take(x, relax.const(0, "int64"), axis=1))
    return bb.emit(relax.Tuple([x, bb.emit(op.tanh(bb.emit(op.matmul(pooled, const(32, 32)))))]))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_transformer_has_no_permutes_inside_its_layers(batch: int) -> None:
    graph = planned(encoder, (batch, 16, 32), (batch, 16))
    moves = [node for node in graph.nodes if node.op == "permute_dims"]
    places = [graph.nodes.index(node) for node in moves if 16 in node.output.shape]  # the pooler has one token
    products = [i for i, name in enumerate(ops(graph)) if name in ("linear_cols", "batch_matmul")]
    assert len(places) == 2
    assert places[0] < products[0] and places[1] > products[-2]  # only the pooler may come after the last one
    assert ops(graph).count("linear_cols") == 19 and ops(graph).count("batch_matmul") == 6


def test_softmax_and_layer_norm_run_down_the_columns() -> None:
    graph = planned(encoder, (1, 16, 32), (1, 16))
    for node in graph.nodes:
        if node.op == "nn.softmax":
            assert node.attrs["axis"] == node.output.rank - 2
        if node.op == "nn.layer_norm":
            assert node.attrs["axes"] == (1,) and node.output.shape == (1, 32, 16)


def test_symbolic_batch_and_sequence_pass_through() -> None:
    graph = planned(encoder, ("b", "t", 32), ("b", "t"), sizes={"b": 2, "t": 5}, b=(1, 8), t=(1, 128))
    moved = [symbols_of(node.output.shape) for node in graph.nodes if node.op == "permute_dims"]
    assert sorted(map(len, moved)) == [1, 1, 2, 2]  # the pooler makes columns of its batch, forth and back


def test_attention_reads_its_operands_as_they_lie() -> None:
    graph = planned(lambda bb, x: layer(bb, x), (1, 16, 32))
    first, second = (node for node in graph.nodes if node.op == "batch_matmul")
    assert first.attrs["lhs_transposed"] and not second.attrs["lhs_transposed"]


def test_merged_batch_and_heads_stay_free() -> None:
    """As torch.export writes attention: [B·H, T, D] around the products."""

    def build(bb, x):
        heads = bb.emit(
            op.permute_dims(bb.emit(op.reshape(bb.emit(op.matmul(x, const(8, 8))), (2, 6, 2, 4))), (0, 2, 1, 3))
        )
        flat = bb.emit(op.reshape(heads, (4, 6, 4)))
        scores = bb.emit(op.matmul(flat, bb.emit(op.permute_dims(flat, (0, 2, 1)))))
        mixed = bb.emit(op.reshape(bb.emit(op.matmul(bb.emit(op.nn.softmax(scores)), flat)), (2, 2, 6, 4)))
        mixed = bb.emit(op.reshape(bb.emit(op.permute_dims(mixed, (0, 2, 1, 3))), (2, 6, 8)))
        return bb.emit(op.matmul(mixed, const(8, 8)))

    assert permutes(planned(build, (2, 6, 8))) == 2


def test_only_the_embedding_and_the_result_are_transposed() -> None:
    def build(bb, x):
        ids = bb.emit(op.astype(bb.emit(op.abs(x)), "int32"))
        y = bb.emit(op.nn.layer_norm(bb.emit(op.take(const(9, 32), ids, axis=0)), const(32), const(32), axes=[-1]))
        return layer(bb, layer(bb, y))

    graph = planned(build, (1, 16))
    assert permutes(graph) == 2
    after_embedding = ops(graph).index("permute_dims")
    assert ops(graph)[after_embedding - 1 : after_embedding + 2] == ["take", "permute_dims", "nn.layer_norm"]


def test_sequence_first_layers_keep_the_sequence_innermost() -> None:
    """PyTorch's own attention layers compute on [T, B, K]; any leading axis may hold the columns."""

    def build(bb, x):
        y = bb.emit(op.reshape(bb.emit(op.permute_dims(x, (1, 0, 2))), (40, 8)))
        y = bb.emit(op.reshape(bb.emit(op.matmul(y, const(8, 6))), (20, 2, 6)))
        return bb.emit(op.matmul(bb.emit(op.permute_dims(y, (1, 0, 2))), const(6, 8)))

    graph = planned(build, (2, 20, 8))
    assert ops(graph) == ["permute_dims", "linear_cols", "linear_cols", "permute_dims"]


def test_a_convolutional_network_has_no_permutes() -> None:
    def build(bb, x):
        y = bb.emit(op.nn.relu(bb.emit(op.nn.conv2d(x, const(8, 4, 3, 3), padding=1))))
        y = bb.emit(op.add(y, bb.emit(op.nn.conv2d(y, const(8, 8, 1, 1)))))
        y = bb.emit(op.nn.max_pool2d(y, (2, 2), (2, 2)))
        return bb.emit(op.matmul(bb.emit(op.mean(y, [2, 3])), const(8, 5)))

    graph = planned(build, (1, 4, 6, 6))
    assert permutes(graph) == 0
    (product,) = (node for node in graph.nodes if node.op == "linear_cols")
    assert math.prod(product.output.shape) == 5


def test_patches_become_tokens_for_nothing() -> None:
    """A vision transformer: pixels of a convolution are already the columns of a linear layer."""

    def build(bb, x):
        y = bb.emit(op.nn.conv2d(x, const(32, 3, 4, 4), strides=4))
        y = bb.emit(op.permute_dims(bb.emit(op.reshape(y, (1, 32, 16))), (0, 2, 1)))
        y = bb.emit(op.add(bb.emit(op.concat([const(1, 1, 32), y], axis=1)), const(1, 17, 32)))
        y = layer(bb, y)
        return bb.emit(op.matmul(bb.emit(op.take(y, relax.const(0, "int64"), axis=1)), const(32, 5)))

    assert permutes(planned(build, (1, 3, 16, 16))) == 0


def test_one_token_needs_no_layout() -> None:
    def build(bb, x):
        return bb.emit(op.matmul(bb.emit(op.nn.relu(bb.emit(op.matmul(x, const(8, 6))))), const(6, 4)))

    assert permutes(planned(build, (1, 8))) == 0
    assert permutes(planned(build, (64, 8))) == 2


def test_a_weight_on_the_left_has_its_columns_where_they_are() -> None:
    graph = planned(lambda bb, x: bb.emit(op.matmul(const(6, 8), x)), (2, 8, 32))
    assert ops(graph) == ["linear_cols"]


def test_vectors_multiply() -> None:
    def build(bb, x, y):
        return bb.emit(op.matmul(bb.emit(op.matmul(x, y)), bb.emit(op.tanh(bb.emit(op.mean(y, 0))))))

    planned(build, (3, 8), (8, 4))
    planned(lambda bb, x, y: bb.emit(op.matmul(x, y)), (8,), (2, 8, 4))


UNARY = {
    "softmax": lambda bb, x, axis: op.nn.softmax(x, axis),
    "sum": lambda bb, x, axis: op.sum(x, axis, keepdims=True),
    "norm": lambda bb, x, axis: op.nn.layer_norm(
        x, *(relax.const(np.full(int(x.ty.shape[axis]), v, "float32")) for v in (0.5, 2)), axes=[axis]
    ),
    "slice": lambda bb, x, axis: op.strided_slice(x, [axis], [0], [max(1, int(x.ty.shape[axis]) - 1)]),
    "pad": lambda bb, x, axis: op.nn.pad(x, [int(a == axis) * w for a in range(x.ty.ndim) for w in (1, 2)]),
    "concat": lambda bb, x, axis: op.concat([x, bb.emit(op.exp(bb.emit(op.nn.relu(op.negative(x))))), x], axis),
    "split": lambda bb, x, axis: relax.TupleGetItem(bb.emit(op.split(x, [1], axis)), 0),
    "mask": lambda bb, x, axis: op.multiply(x, relax.const(np.linspace(0, 1, int(x.ty.shape[-1]), dtype="float32"))),
    "rotate": lambda bb, x, axis: op.permute_dims(x, [*range(1, x.ty.ndim), 0]),
    "swap": lambda bb, x, axis: op.permute_dims(x, [*range(x.ty.ndim - 2), x.ty.ndim - 1, x.ty.ndim - 2]),
    "merge": lambda bb, x, axis: op.reshape(x, (-1, *map(int, x.ty.shape.values[2:]))) if x.ty.ndim > 2 else op.sin(x),
    "grow": lambda bb, x, axis: op.expand_dims(x, axis) if x.ty.ndim < 4 else op.tanh(x),
    "linear": lambda bb, x, axis: op.matmul(x, const(int(x.ty.shape[-1]), 5)),
    "gram": lambda bb, x, axis: op.matmul(
        x, bb.emit(op.permute_dims(x, [*range(x.ty.ndim - 2), x.ty.ndim - 1, x.ty.ndim - 2]))
    ),
    "residual": lambda bb, x, axis: op.add(x, bb.emit(op.tanh(x))),
    "broadcast": lambda bb, x, axis: op.subtract(x, bb.emit(op.mean(x, [axis], keepdims=True))),
}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.lists(st.tuples(st.sampled_from(sorted(UNARY)), st.integers(0, 3)), min_size=1, max_size=9),
)
def test_any_graph_means_the_same(shape: list[int], steps: list[tuple[str, int]]) -> None:
    def build(bb, x):
        middle = x
        for index, (name, axis) in enumerate(steps):
            x = bb.emit(UNARY[name](bb, x, axis % x.ty.ndim))
            x = bb.emit(op.nn.softmax(x)) if name in ("gram", "linear", "sum") else x  # keep numbers small
            middle = x if index == len(steps) // 2 else middle
        return bb.emit(relax.Tuple([x, bb.emit(op.tanh(middle))]))

    planned(build, shape)
