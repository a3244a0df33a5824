"""Which nodes become one kernel."""

import math

import numpy as np
import pytest

from sparsec.graph.fuse import Group, fuse, is_view, root
from sparsec.graph.graph import Graph, Value
from sparsec.ir.printer import print_expression
from sparsec.targets import TARGETS
from tests.graph.small_models import ops

ROWS, DEPTH, COLUMNS = 12, 8, 20


class Physical:
    """A graph to be, node by node, over images `[1, rows, columns]`."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.x = self.graph.input("x", (1, DEPTH, COLUMNS), "float32")

    def __getattr__(self, op: str):
        """An operator that keeps the shape of its first operand."""
        return lambda *args, **attrs: self.graph.add(op.replace("nn_", "nn."), args, args[0].shape, attrs)

    def linear(self, x: Value, rows: int = ROWS) -> Value:
        weight = self.graph.constant(np.ones((rows, x.shape[-2]), "float32"), "w")
        return self.graph.add("linear_cols", [x, weight], (*x.shape[:-2], rows, x.shape[-1]))

    def constant(self, *shape: int) -> Value:
        return self.graph.constant(np.full(shape, 1.5, "float32"))

    def reshape(self, x: Value, *shape: int) -> Value:
        return self.graph.add("reshape", [x], shape, {"shape": shape})

    def fuse(self, *outputs: Value, target: str = "znver5") -> list[Group]:
        self.graph.outputs = list(outputs)
        groups = fuse(self.graph, TARGETS[target])
        check(self.graph, groups)
        return groups


def check(graph: Graph, groups: list[Group]) -> None:
    """Every node that moves data is in one group, runs after what it reads, and hands on only the group's outputs."""
    inside = [node for group in groups for node in group.nodes if not is_view(node)]
    assert sorted(map(id, inside)) == sorted(id(node) for node in graph.nodes if not is_view(node))
    ready = {*graph.inputs}
    for group in groups:
        assert all(root(value) in ready or root(value).is_constant for value in group.inputs)
        ready |= set(group.outputs)
        for node in group.nodes:
            for value in node.outputs:
                outside = value in graph.outputs or any(u not in group.nodes and not is_view(u) for u in value.users)
                assert not outside or root(value) in group.outputs


def names(groups: list[Group]) -> list[list[str]]:
    return [[node.op for node in group.nodes] for group in groups]


def layer_norm(g: Physical, x: Value, size: int) -> Value:
    return g.nn_layer_norm(x, g.constant(size), g.constant(size), axes=(1,), epsilon=1e-5, center=True, scale=True)


@pytest.fixture
def g() -> Physical:
    return Physical()


# -- products --------------------------------------------------------------------------------------------------------


def test_bias_and_activation_run_in_the_epilogue(g):
    (group,) = g.fuse(g.nn_relu(g.add(g.linear(g.x), g.constant(ROWS, 1))))
    assert ops(g.graph) == ["linear_cols", "add", "nn.relu"]
    assert print_expression(group.epilogue) == "max(acc + e0[i], 0.0)"
    assert [operand.buffer.shape for operand in group.operands] == [(ROWS,)]


def test_an_activation_that_is_spelled_out_reads_the_sum_twice(g):
    y = g.linear(g.x)
    erf = g.erf(g.divide(y, g.graph.constant(np.float32(math.sqrt(2)))))
    one = g.add(erf, g.graph.constant(np.float32(1)))
    (group,) = g.fuse(g.multiply(g.multiply(y, one), g.graph.constant(np.float32(0.5))))
    assert print_expression(group.epilogue).count("acc") == 2


@pytest.mark.parametrize(
    "columns, count, target",
    [(1, 2, "znver5"), (15, 2, "znver5"), (16, 1, "znver5"), (7, 2, "znver4"), (8, 1, "znver4"), (4, 1, "neoverse-n1")],
)
def test_few_columns_leave_slow_functions_to_a_kernel_with_whole_vectors(g, columns, count, target):
    x = g.graph.input("few", (1, DEPTH, columns), "float32")
    groups = g.fuse(g.nn_gelu(g.add(g.linear(x), g.constant(ROWS, 1))), target=target)
    assert [len(group.nodes) for group in groups] == ([2, 1] if count == 2 else [3])


def test_a_residual_goes_to_the_later_product(g):
    first, second = g.linear(g.x), g.linear(g.x)
    groups = g.fuse(g.add(first, second))
    assert names(groups) == [["linear_cols"], ["linear_cols", "add"]]
    assert groups[1].operands[0].value is first


def test_a_sum_that_others_read_ends_the_epilogue(g):
    y = g.add(g.linear(g.x), g.constant(ROWS, 1))
    norm = layer_norm(g, y, ROWS)
    groups = g.fuse(g.add(g.linear(norm), y))
    assert names(groups) == [["linear_cols", "add"], ["nn.layer_norm"], ["linear_cols", "add"]]


def test_branches_that_do_not_meet_are_given_back(g):
    y = g.linear(g.x)
    groups = g.fuse(g.nn_relu(y), g.tanh(y))
    assert names(groups) == [["linear_cols"], ["nn.relu"], ["tanh"]]


def test_an_operand_that_needs_the_sum_is_not_read_by_its_epilogue(g):
    y = g.linear(g.x)
    gate = g.nn_softmax(y, axis=1)
    groups = g.fuse(g.multiply(y, gate))
    assert names(groups) == [["linear_cols"], ["nn.softmax", "multiply"]]


def test_an_output_in_the_middle_of_a_chain_is_kept(g):
    y = g.add(g.linear(g.x), g.constant(ROWS, 1))
    groups = g.fuse(g.nn_relu(y), y)
    assert names(groups) == [["linear_cols", "add"], ["nn.relu"]]


def test_a_chain_goes_through_relabelled_axes(g):
    column = g.graph.add("strided_slice", [g.x], (1, DEPTH, 1), {"axes": (2,), "begin": (0,), "end": (1,)})
    y = g.reshape(g.linear(column), 1, 1, ROWS)
    groups = g.fuse(g.nn_relu(g.add(y, g.constant(ROWS))))
    assert names(groups) == [["strided_slice"], ["linear_cols", "reshape", "add", "nn.relu"]]
    assert len(groups[1].operands) == 1


def test_a_number_scales_what_was_split_into_heads(g):
    y = g.reshape(g.linear(g.x), 1, 3, 4, COLUMNS)
    (group,) = g.fuse(g.multiply(y, g.constant(1)))
    assert print_expression(group.epilogue) == "acc * 1.5"
    assert group.outputs[0].shape == (1, 3, 4, COLUMNS)


def test_a_vector_over_heads_is_not_read_by_rows(g):
    y = g.reshape(g.linear(g.x), 1, 3, 4, COLUMNS)
    groups = g.fuse(g.multiply(y, g.constant(3, 1, 1)))
    assert names(groups) == [["linear_cols"], ["multiply"]]


def test_a_view_of_a_sum_that_another_branch_reads(g):
    y = g.linear(g.x)
    heads = g.reshape(y, 1, 3, 4, COLUMNS)
    groups = g.fuse(g.nn_softmax(heads, axis=2), g.nn_relu(y))
    assert names(groups) == [["linear_cols"], ["nn.softmax"], ["nn.relu"]]


def test_operands_of_nodes_that_were_given_back_are_no_parameters(g):
    y = g.linear(g.x)
    groups = g.fuse(g.add(y, g.constant(ROWS, 1)), g.multiply(y, g.constant(ROWS, 1)))
    assert groups[0].operands == ()


# -- generic groups --------------------------------------------------------------------------------------------------


def test_a_chain_is_one_group(g):
    assert names(g.fuse(g.tanh(g.exp(g.multiply(g.x, g.constant(1)))))) == [["multiply", "exp", "tanh"]]


def test_a_reduction_takes_what_feeds_it_and_what_follows(g):
    total = g.add(g.x, g.constant(DEPTH, 1))
    norm = g.nn_layer_norm(
        total, g.constant(DEPTH), g.constant(DEPTH), axes=(1,), epsilon=1e-5, center=True, scale=True
    )
    assert names(g.fuse(g.nn_relu(norm))) == [["add", "nn.layer_norm", "nn.relu"]]


def test_two_reductions_over_other_axes_are_two_groups(g):
    groups = g.fuse(g.nn_softmax(g.nn_softmax(g.x, axis=1), axis=2))
    assert names(groups) == [["nn.softmax"], ["nn.softmax"]]


def test_a_softmax_that_is_spelled_out_is_one_group(g):
    def reduce(op, x):
        return g.graph.add(op, [x], (1, 1, COLUMNS), {"axis": (1,), "keepdims": True})

    e = g.exp(g.subtract(g.x, reduce("max", g.x)))
    assert names(g.fuse(g.divide(e, reduce("sum", e)))) == [["max", "subtract", "exp", "sum", "divide"]]


def test_what_two_groups_read_is_stored(g):
    shared = g.exp(g.x)
    groups = g.fuse(g.nn_softmax(shared, axis=1), g.nn_softmax(shared, axis=2))
    assert names(groups) == [["exp"], ["nn.softmax"], ["nn.softmax"]]


def test_a_gather_is_read_by_what_follows(g):
    ids = g.graph.input("ids", (1, 5), "int64")
    rows = g.graph.add("take", [g.constant(30, DEPTH), ids], (1, 5, DEPTH), {"axis": 0, "mode": "fast"})
    assert names(g.fuse(g.add(rows, g.constant(DEPTH)))) == [["take", "add"]]


def test_views_are_in_no_group(g):
    groups = g.fuse(g.exp(g.reshape(g.exp(g.x), DEPTH, COLUMNS)))
    assert names(groups) == [["exp"], ["exp"]]


def test_a_permutation_of_unit_axes_is_a_view(g):
    moved = g.graph.add("permute_dims", [g.x], (DEPTH, 1, COLUMNS), {"axes": (1, 0, 2)})
    swapped = g.graph.add("permute_dims", [moved], (COLUMNS, 1, DEPTH), {"axes": (2, 1, 0)})
    assert is_view(moved.producer)
    assert root(moved) is g.x
    assert not is_view(swapped.producer)
