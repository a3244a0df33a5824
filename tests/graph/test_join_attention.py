"""Attention becomes one group where it can be one kernel, and its scores are no tensor any more."""

import numpy as np
import pytest

from sparsec.graph.attention import join_attention
from sparsec.graph.fuse import Group, fuse
from sparsec.graph.graph import Graph, Value
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.graph.work import useful_flops
from sparsec.targets import Target
from tests.graph import test_fuse
from tests.graph.small_models import canonical, import_small
from tests.graph.test_fuse import check
from tests.graph.test_plan_layouts import encoder, layer
from tests.test_compiler import RNG, Builder, agree, masked, transformer_layer

ZEN4 = Target.parse("znver4")


def groups_of(build, *shapes, **symbols) -> tuple[Graph, list[Group]]:
    graph = canonical(import_small(build, *shapes, **symbols))
    plan_layouts(graph)
    groups = join_attention(graph, fuse(graph, ZEN4), ZEN4)
    check(graph, groups)
    return graph, groups


def count(groups: list[Group]) -> int:
    return sum(group.scores is not None for group in groups)


@pytest.mark.parametrize("tokens, number", [(16, 3), (37, 3), (1, 0)])
def test_each_layer_of_a_transformer_has_one_group(tokens, number):
    _, groups = groups_of(encoder, (2, tokens, 32), (2, tokens))
    assert count(groups) == number
    if number:
        made = {value for group in groups for value in group.outputs}
        assert not any(value.shape[-2:] == (tokens, tokens) for value in made)


def test_a_group_counts_the_work_of_both_products_and_is_named_for_the_first():
    graph, groups = groups_of(lambda bb, x: layer(bb, x), (1, 16, 32))
    (group,) = (group for group in groups if group.scores)
    first, second = (node for node in graph.nodes if node.op == "batch_matmul")
    assert group.nodes[0] is first and second in group.nodes
    assert group.label == (first.where or first.op)
    assert useful_flops(group.works) == 2 * (2 * 4 * 16 * 16 * 8)


def test_symbolic_sizes_stay_three_kernels():
    _, groups = groups_of(encoder, ("b", "t", 32), ("b", "t"), b=(1, 8), t=(1, 128))
    assert count(groups) == 0
    assert sum([node.op for node in group.nodes] == ["nn.softmax"] for group in groups) == 3


class Physical(test_fuse.Physical):
    """Attention node by node, for 20 queries and 24 keys."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = (self.graph.input(name, (1, 8, 24), "float32") for name in ("keys", "values"))

    def product(self, a: Value, b: Value, transposed: bool = False) -> Value:
        rows = a.shape[-1 if transposed else -2]
        return self.graph.add("batch_matmul", [a, b], (1, rows, b.shape[-1]), {"lhs_transposed": transposed})

    def scores(self) -> Value:
        return self.product(self.keys, self.x, transposed=True)

    def join(self, *outputs: Value) -> list[Group]:
        groups = join_attention(self.graph, self.fuse(*outputs), ZEN4)
        check(self.graph, groups)
        return groups


@pytest.mark.parametrize("axis, number", [(-2, 1), (1, 1), (2, 0)])
def test_the_softmax_runs_over_the_keys(axis, number):
    g = Physical()
    groups = g.join(g.tanh(g.product(g.values, g.nn_softmax(g.scores(), axis=axis))))
    assert count(groups) == number
    assert len(groups) == (1 if number else 3)


def test_something_else_than_a_softmax():
    g = Physical()
    assert count(g.join(g.product(g.values, g.exp(g.scores())))) == 0


@pytest.mark.parametrize("read", ["scores", "weights"])
def test_what_others_read_is_stored(read):
    g = Physical()
    scores = g.scores()
    weights = g.nn_softmax(scores, axis=1)
    y = g.product(g.values, weights)
    assert count(g.join(y, scores if read == "scores" else g.tanh(weights))) == 0


# -- compiled --------------------------------------------------------------------------------------------------------


def kernels(artifact, **feed) -> list[str]:
    return [step.kernel.rpartition("_")[0] for step in artifact.load(threads=1).profile(runs=1, **feed)]


@pytest.mark.parametrize("batch, tokens", [(2, 19), (1, 37), (1, 129)])
def test_a_transformer_layer(batch, tokens):
    feed = masked(batch, tokens)
    artifact = agree(transformer_layer(batch, tokens), feed)
    found = kernels(artifact, **feed)
    assert found.count("attention") == 1
    assert not {"matmul", "nn_softmax"} & set(found)


def test_views_between_the_products_and_operands_of_their_own():
    """Scores of batch and heads in one axis, as `[B, H, ..]` where a mask for each pair of tokens is added."""
    b = Builder()
    scores = b.Reshape(b.MatMul("k", "q"), np.int64([1, 3, 21, 20]))
    mask = np.where(RNG.random((1, 1, 21, 20)) < 0.3, -np.inf, 0).astype("float32")
    mask[:, :, 0] = 0
    weights = b.Softmax(b.Add(b.Mul(scores, np.float32(0.5)), mask), axis=2)
    y = b.MatMul("v", b.Reshape(weights, np.int64([3, 21, 20])))
    b.Add(b.Mul(y, RNG.standard_normal((3, 7, 1)).astype("float32")), "r", name="y")
    shapes = {"k": [3, 21, 8], "q": [3, 8, 20], "v": [3, 7, 21], "r": [3, 7, 20]}
    feed = {name: RNG.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    artifact = agree(b.model(shapes, {"y": [3, 7, 20]}), feed)
    assert kernels(artifact, **feed).count("attention") == 1


def test_groups_that_read_nothing_are_left_alone():
    g = Physical()
    count_up = g.graph.add("arange", [], (20,), {"start": 0, "end": 20, "step": 1, "dtype": "float32"}, dtype="float32")
    g.graph.outputs = [count_up]
    groups = fuse(g.graph, ZEN4)
    assert join_attention(g.graph, groups, ZEN4) == groups
