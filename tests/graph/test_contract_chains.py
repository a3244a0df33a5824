"""Which factors of a chain are multiplied before the model runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.relax import op

from sparsec.graph.contract_chains import contract_chains
from sparsec.graph.from_relax import from_relax
from sparsec.graph.graph import Graph, Value
from tests.graph.integer_networks import Network
from tests.graph.small_models import canonical, import_small, ops, run, same


def check(net: Network, *outputs: Value) -> Graph:
    return net.run(*outputs, rewrite=contract_chains)


def chain(net: Network, *sizes: int) -> Value:
    value = net.x
    for size in sizes:
        value = net.bias(net.linear(value, size))
    return value


def test_a_wide_inner_product_is_computed_beforehand() -> None:
    net = Network(9, 8)
    graph = check(net, chain(net, 64, 8))
    assert net.weights() == [(8, 8)] and ops(graph) == ["linear", "add"]


def test_low_rank_factors_stay_apart() -> None:
    net = Network(90, 64)
    check(net, chain(net, 2, 64))
    assert net.weights() == [(2, 64), (64, 2)]


def test_nonzeros_count_and_not_sizes() -> None:
    net = Network(90, 64)
    y = net.x
    for _ in range(2):  # 8 of 64 in each row, and 41 in each row of the product
        weight = net.integers(64, 64) * (net.rng.random((64, 64)) < 8 / 64)
        y = net.graph.add("linear", [y, net.graph.constant(weight)], (90, 64))
    check(net, y)
    assert net.weights() == [(64, 64), (64, 64)]


def test_a_chain_is_cut_at_its_narrowest_place() -> None:
    net = Network(90, 32)
    check(net, chain(net, 64, 2, 48, 32))
    assert net.weights() == [(2, 32), (32, 2)]


def test_factors_in_half_precision_stay_in_it() -> None:
    for dtype in ("float16", "bfloat16"):
        net = Network(9, 8, dtype=dtype)
        net.graph.outputs = [chain(net, 64, 8)]
        contract_chains(net.graph)
        assert net.weights() == [(8, 8)]
        assert {value.dtype for node in net.graph.nodes for value in (*node.inputs, *node.outputs)} == {dtype}


def test_what_others_read_is_computed() -> None:
    net = Network(9, 8)
    hidden = net.linear(net.x, 64)
    check(net, net.linear(hidden, 8), hidden)
    assert net.weights() == [(64, 8), (8, 64)]


def test_a_nonlinearity_ends_a_chain() -> None:
    net = Network(9, 8)
    check(net, net.linear(net.relu(net.linear(net.x, 64)), 8))
    assert net.weights() == [(64, 8), (8, 64)]


def test_rows_may_be_of_symbolic_number() -> None:
    def build(bb, x):
        y = bb.emit(op.reshape(bb.emit(op.matmul(x, const(8, 64))), (x.ty.shape[0], 4, 16)))
        y = bb.emit(op.matmul(bb.emit(op.permute_dims(y, (0, 2, 1))), const(4, 4)))
        return bb.emit(op.matmul(bb.emit(op.reshape(y, (x.ty.shape[0], 64))), const(64, 8)))

    imported = import_small(build, ("n", 8), n=(1, 128))
    graph = canonical(imported)
    same(run(from_relax(imported), n=5), run(graph, n=5))
    assert ops(graph) == ["linear"] and isinstance(graph.outputs[0].shape[0], tirx.Var)


def tensor_train(net: Network, ranks: int) -> Value:
    """256 features as 4·8·8, times cores of [4, 4, r], [r, 8, 8, r] and [r, 8, 8]."""
    rows = net.x.shape[0]
    y = net.permute(net.reshape(net.x, rows, 4, 64), 0, 2, 1)
    y = net.reshape(net.linear(y, 4 * ranks), rows, 8, 8, 4, ranks)
    y = net.permute(y, 0, 2, 3, 1, 4)
    y = net.reshape(net.linear(net.reshape(y, rows, 8, 4, 8 * ranks), 8 * ranks), rows, 8, 4, 8, ranks)
    y = net.permute(y, 0, 2, 3, 1, 4)
    return net.reshape(net.linear(net.reshape(y, rows, 4, 8, 8 * ranks), 8), rows, 256)


@pytest.mark.parametrize("ranks, layers", [(1, 3), (24, 1)])
def test_a_tensor_train_is_contracted_as_far_as_it_pays(ranks: int, layers: int) -> None:
    net = Network(256, 256)
    check(net, tensor_train(net, ranks))
    assert len(net.weights()) <= layers
    assert layers > 1 or net.weights() == [(256, 256)]


def const(*shape: int) -> relax.Expr:
    return relax.const(np.random.default_rng(2).standard_normal(shape).astype("float32"))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_a_product_of_constants_is_taken_apart_where_that_is_cheaper(transposed: bool, right: bool) -> None:
    def build(bb, x):
        factors = [const(64, 2), const(2, 64)]
        product = bb.emit(op.matmul(*factors))
        product = bb.emit(op.permute_dims(product)) if transposed else product
        return bb.emit(op.matmul(x, product) if right else op.matmul(product, x))

    imported = import_small(build, (64, 64))
    graph = canonical(imported)
    same(run(from_relax(imported)), run(graph))
    assert sorted(node.inputs[1].shape for node in graph.nodes if node.op == "linear") == [(2, 64), (64, 2)]


@pytest.mark.parametrize("padding", [0, 1])
def test_a_pointwise_convolution_behind_another(padding: int) -> None:
    net = Network(1, 4, 6, 6)
    y = net.bias(net.conv(net.x, 32, kernel=3, padding=padding), axis=1)
    check(net, net.bias(net.conv(y, 4), axis=1))
    assert net.weights() == [(4, 4, 3, 3)]


@pytest.mark.parametrize("padding, bias, merged", [(0, True, True), (1, False, True), (1, True, False)])
def test_a_pointwise_convolution_in_front_of_another(padding: int, bias: bool, merged: bool) -> None:
    net = Network(1, 4, 6, 6)
    y = net.conv(net.x, 32)
    y = net.bias(y, axis=1) if bias else y
    check(net, net.conv(y, 4, kernel=3, padding=padding))
    assert net.weights() == ([(4, 4, 3, 3)] if merged else [(32, 4, 1, 1), (4, 32, 3, 3)])


def test_a_bottleneck_of_convolutions_stays() -> None:
    net = Network(1, 64, 6, 6)
    check(net, net.conv(net.conv(net.x, 2), 64, kernel=3, padding=1))
    assert len(net.weights()) == 2


@st.composite
def chains(draw) -> Network:
    """Any chain of layers, biases, scales, reshapes and transposes of features over some rows."""
    net = Network(draw(st.integers(1, 3)), 12, seed=draw(st.integers(0, 99)))
    value = net.x
    for kind in draw(st.lists(st.sampled_from(["linear", "linear", "bias", "split", "merge", "permute"]), max_size=9)):
        if kind == "linear":
            outputs = draw(st.sampled_from([2, 6, 12]))
            rows = draw(st.sets(st.integers(0, outputs - 1), max_size=outputs))
            value = net.linear(value, outputs, rows)
        elif kind == "bias":
            value = net.bias(value, axis=draw(st.integers(1, value.rank - 1)))
        elif kind == "split" and value.shape[-1] % 2 == 0:
            value = net.reshape(value, *value.shape[:-1], value.shape[-1] // 2, 2)
        elif kind == "merge" and value.rank > 2:
            axis = draw(st.integers(0, value.rank - 2))
            merged = value.shape[axis] * value.shape[axis + 1]
            value = net.reshape(value, *value.shape[:axis], merged, *value.shape[axis + 2 :])
        elif kind == "permute" and value.rank > 2:
            value = net.permute(value, *draw(st.permutations(range(value.rank))))
    return net


@settings(max_examples=150, deadline=None)
@given(chains())
def test_any_chain_computes_the_same(net: Network) -> None:
    if net.graph.nodes:
        check(net, net.graph.nodes[-1].output)
