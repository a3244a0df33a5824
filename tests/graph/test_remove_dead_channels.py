"""What zeros in weights leave without effect goes, exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.graph.graph import Graph, Value
from sparsec.graph.remove_dead_channels import remove_dead_channels
from tests.graph.integer_networks import Network
from tests.graph.small_models import ops


def check(net: Network, *outputs: Value) -> Graph:
    graph = net.run(*outputs, rewrite=remove_dead_channels)
    for node in graph.nodes:
        assert not node.inputs[-1].is_constant or node.inputs[-1].data.size, f"{node!r} has nothing left"
    return graph


def test_hidden_units_that_nothing_reads_go() -> None:
    net = Network(2, 5)
    check(net, net.linear(net.relu(net.bias(net.linear(net.x, 8))), 4, columns=[1, 6]))
    assert net.weights() == [(6, 5), (4, 6)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_hidden_units_without_weights_go_into_the_next_bias(dtype: str) -> None:
    net = Network(2, 5, dtype=dtype)
    graph = check(net, net.linear(net.square(net.bias(net.linear(net.x, 8, rows=[0, 3, 4]))), 4))
    assert net.weights() == [(5, 5), (4, 5)]
    assert ops(graph) == ["linear", "add", "square", "linear", "add"]


def test_layers_tell_what_they_have_lost() -> None:
    net = Network(1, 3, 8, 8)
    first = net.conv(net.x, 8)
    grouped = net.conv(first, 8, groups=4, columns=[1], kernel=3)
    last = net.conv(grouped, 4, columns=[6, 7])
    again = net.conv(last, 4)
    for y, name in ((first, "first"), (grouped, "grouped"), (last, "twice"), (again, "twice")):
        y.producer.where = name
    graph = check(net, again)
    assert graph.removed == {"first": [(5, 0)], "grouped": [(2, 5)], "twice": [(0, 2), (0, 0)]}


def test_what_only_feeds_dead_channels_is_dead() -> None:
    net = Network(2, 5)
    first = net.relu(net.linear(net.x, 6))
    second = net.graph.constant(np.diag([1.0, 2, 1, 2, 1, 2]), "w")
    hidden = net.relu(net.graph.add("linear", [first, second], (2, 6)))
    check(net, net.linear(hidden, 3, columns=[2, 5]))
    assert net.weights() == [(4, 5), (4, 4), (3, 4)]


def test_tokens_and_symbolic_columns_are_left() -> None:
    net = Network(2, 3, 5)
    check(net, net.linear(net.relu(net.linear(net.x, 8)), 4, columns=[1]))
    assert net.weights() == [(7, 5), (4, 7)]


@pytest.mark.parametrize("padding, left", [(0, 4), (1, 6)])
def test_a_constant_plane_goes_where_no_padding_mixes_with_it(padding: int, left: int) -> None:
    net = Network(1, 3, 6, 6)
    y = net.square(net.bias(net.conv(net.x, 6, rows=[1, 2]), axis=1))
    check(net, net.conv(y, 4, kernel=3, padding=padding))
    assert net.weights() == [(left, 3, 1, 1), (4, left, 3, 3)]


def test_zero_planes_go_through_padding_and_pools() -> None:
    net = Network(1, 3, 8, 8)
    y = net.max_pool(net.relu(net.conv(net.x, 6, rows=[1, 2])))
    check(net, net.conv(y, 4, kernel=3, padding=1))
    assert net.weights() == [(4, 3, 1, 1), (4, 4, 3, 3)]


@pytest.mark.parametrize("other, left", [([1, 5], 4), ([0, 1], 5), ([0], 6)])
def test_a_residual_channel_goes_when_nobody_writes_it(other: list[int], left: int) -> None:
    net = Network(1, 3, 4, 4)
    stream = net.conv(net.x, 6, rows=[1, 5])
    stream = net.add(stream, net.relu(net.conv(stream, 6, kernel=3, padding=1, rows=other)))
    check(net, net.conv(stream, 2))
    assert net.weights() == [(left, 3, 1, 1), (left, left, 3, 3), (2, left, 1, 1)]


def test_a_block_that_adds_nothing_goes() -> None:
    net = Network(1, 3, 4, 4)
    stream = net.conv(net.x, 6)
    check(net, net.add(stream, net.conv(net.relu(net.conv(stream, 6)), 6, rows=range(6))))
    assert net.weights() == [(6, 3, 1, 1)]


def test_flattened_planes_go_with_all_their_pixels() -> None:
    net = Network(2, 3, 2, 2)
    flat = net.reshape(net.relu(net.conv(net.x, 4, rows=[1])), 2, 16)
    check(net, net.linear(flat, 5))
    assert net.weights() == [(3, 3, 1, 1), (5, 12)]


def test_concatenation_keeps_the_parts_apart() -> None:
    net = Network(2, 5)
    a, b = net.linear(net.x, 4, rows=[0]), net.linear(net.x, 6, rows=[5])
    check(net, net.linear(net.concat(1, a, b), 3, columns=[4, 5]))
    assert net.weights() == [(3, 5), (3, 5), (3, 6)]


def test_slices_follow() -> None:
    net = Network(2, 5)
    hidden = net.linear(net.x, 8, rows=[0, 5])
    left, right = net.slice(hidden, 1, 0, 4), net.slice(hidden, 1, 4, 8)
    check(net, net.linear(left, 3), net.linear(right, 3, columns=[3]))
    assert net.weights() == [(5, 5), (3, 3), (3, 2)]


@pytest.mark.parametrize(
    "groups, rows, left",
    [
        (6, [2], (5, (5, 1, 3, 3))),
        (3, [2, 3], (2, (4, 2, 3, 3))),
        (3, [2, 5], (3, (6, 2, 3, 3))),  # of different places in their groups
        (3, [1, 3, 5], (3, (3, 2, 3, 3))),
    ],
)
def test_groups_stay_equal(groups: int, rows: list[int], left: tuple) -> None:
    net = Network(1, 3, 4, 4)
    graph = check(net, net.conv(net.conv(net.conv(net.x, 6), 6, kernel=3, padding=1, groups=groups, rows=rows), 2))
    assert (graph.nodes[1].attrs["groups"], net.weights()[1]) == left


def test_an_attention_head_that_nothing_reads_goes() -> None:
    net = Network(2, 3, 8)  # 4 heads of 2
    split = lambda x: net.permute(net.reshape(x, 2, 3, 4, 2), 0, 2, 1, 3)  # noqa: E731
    q, k, v = (split(net.bias(net.linear(net.x, 8))) for _ in range(3))
    weights = net.relu(net.matmul(q, net.permute(k, 0, 1, 3, 2)))
    mixed = net.reshape(net.permute(net.matmul(weights, v), 0, 2, 1, 3), 2, 3, 8)
    check(net, net.linear(mixed, 8, columns=[2, 3, 5]))  # head 1, and a part of head 2
    assert net.weights() == [(6, 8), (6, 8), (6, 8), (8, 6)]


def test_a_term_of_the_scores_goes_when_one_factor_is_zero() -> None:
    net = Network(3, 8)
    q, k = net.linear(net.x, 6, rows=[1, 4]), net.linear(net.x, 6, rows=[2])
    check(net, net.matmul(q, net.permute(k, 1, 0)))
    assert net.weights() == [(3, 8), (3, 8)]


def test_one_use_of_a_shared_weight_can_shrink() -> None:
    net = Network(2, 5)
    shared = net.weight(5, 5, rows=[1])
    first = net.graph.add("linear", [net.x, shared], (2, 5))
    check(net, net.graph.add("linear", [net.relu(first), shared], (2, 5)))
    assert net.weights() == [(4, 5), (5, 4)]


def test_columns_of_a_table_of_embeddings_go() -> None:
    net = Network(4, 3)
    table = net.weight(10, 6, columns=[3])
    ids = net.graph.add("astype", [net.graph.add("abs", [net.x], (4, 3))], (4, 3), {"dtype": "int64"}, dtype="int64")
    rows = net.graph.add("take", [table, ids], (4, 3, 6), {"axis": 0}, dtype="float64")
    check(net, net.linear(rows, 5, columns=[0]))
    assert net.weights() == [(5, 4)] and table not in net.graph.constants()


@pytest.mark.parametrize("dead, left", [([1], 32), ([8, 9, 10, 11], 28), ([3, 8, 9, 10, 11], 28)])
def test_structures_lose_whole_periods(dead: list[int], left: int) -> None:
    net = Network(2, 64)
    blocks = np.kron(net.rng.random((8, 64)) < 0.4, np.ones((4, 1)))
    hidden = net.graph.add("linear", [net.x, net.graph.constant(blocks)], (2, 32))
    check(net, net.linear(net.relu(hidden), 8, columns=dead))
    assert net.weights() == [(left, 64), (8, left)]


def test_inputs_and_outputs_keep_their_channels() -> None:
    net = Network(2, 5)
    check(net, net.linear(net.x, 4, rows=[0, 2], columns=[1]))
    assert net.weights() == [(4, 5)]


def test_a_dead_output_stays_an_output() -> None:
    net = Network(2, 5)
    check(net, net.linear(net.relu(net.linear(net.x, 4, rows=range(4))), 3))
    assert net.weights()[-1][0] == 3


@st.composite
def image_networks(draw) -> Network:
    """A random network of convolutions with residuals, concatenations, pools, and dead channels anywhere."""
    net = Network(2, draw(st.integers(1, 4)), 8, 8, seed=draw(st.integers(0, 999)))
    some = lambda n: draw(st.sets(st.integers(0, n - 1), max_size=n))  # noqa: E731
    values = [net.x]
    for _ in range(draw(st.integers(2, 7))):
        x = draw(st.sampled_from(values[-3:]))
        kind = draw(st.sampled_from(["conv", "conv", "conv", "depthwise", "bias", "relu", "add", "concat", "pool"]))
        peers = [v for v in values if v.shape[2:] == x.shape[2:]]
        if kind == "conv":
            kernel = draw(st.sampled_from([1, 3] if x.shape[2] > 2 else [1]))
            outputs = draw(st.sampled_from([2, 4, 6]))
            groups = draw(st.sampled_from([1, 2])) if x.shape[1] % 2 == 0 else 1
            padding = draw(st.sampled_from([0, kernel // 2]))
            rows, columns = some(outputs), some(x.shape[1] // groups)
            y = net.conv(x, outputs, kernel, padding, groups, rows, columns)
        elif kind == "depthwise":
            y = net.conv(x, 2 * x.shape[1], 1, 0, x.shape[1], some(2 * x.shape[1]))
        elif kind == "bias":
            y = net.bias(x, axis=1)
        elif kind == "add":
            y = net.add(x, draw(st.sampled_from([v for v in peers if v.shape == x.shape])))
        elif kind == "concat":
            y = net.concat(1, x, draw(st.sampled_from(peers)))
        elif kind == "pool" and x.shape[2] % 2 == 0:
            y = net.max_pool(x)
        else:
            y = net.relu(x)
        values.append(y)
    x = values[-1]
    flat = net.reshape(x, 2, x.shape[1] * x.shape[2] * x.shape[3])
    hidden = net.square(net.bias(net.linear(flat, 8, some(8), some(min(flat.shape[1], 9)))))
    stream = net.add(hidden, net.linear(net.relu(net.linear(hidden, 9, some(9))), 8, some(8), some(9)))
    net.linear(stream, 3, columns=some(8))
    return net


@settings(max_examples=150, deadline=None)
@given(image_networks())
def test_any_network_computes_the_same(net: Network) -> None:
    graph = check(net, net.graph.nodes[-1].output)
    left = net.weights()
    remove_dead_channels(graph)
    assert net.weights() == left
