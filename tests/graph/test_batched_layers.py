"""A constant matrix for each batch becomes one linear layer."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from sparsec.graph import batched_layers
from sparsec.graph.from_relax import from_relax
from sparsec.graph.fuse import fuse
from sparsec.graph.graph import Graph
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.targets import TARGETS
from tests.graph.small_models import canonical, import_small, ops, run, same

rng = np.random.default_rng(4)


def const(*shape: int) -> relax.Expr:
    return relax.const(rng.standard_normal(shape).astype("float32"))


def check(build, *shapes, sizes=None, **symbols) -> Graph:
    imported = import_small(build, *shapes, **symbols)
    before, graph = run(from_relax(imported), **(sizes or {})), canonical(imported)
    same(before, run(graph, **(sizes or {})))
    return graph


@pytest.mark.parametrize(
    "x, weight",
    [((3, 5, 4), (3, 4, 6)), ((2, 3, 5, 4), (3, 4, 6)), ((2, 3, 5, 4), (2, 3, 4, 6)), ((7, 2, 3, 5, 4), (2, 3, 4, 6))],
)
def test_matrices_stand_on_the_diagonal_of_one(x, weight) -> None:
    graph = check(lambda bb, x: bb.emit(op.matmul(x, const(*weight))), x)
    (layer,) = (node for node in graph.nodes if node.op == "linear")
    count = int(np.prod(weight[:-2]))
    assert layer.inputs[1].shape == (count * 6, count * 4)
    assert np.count_nonzero(layer.inputs[1].data) == count * 24


@pytest.mark.parametrize("x, weight", [((3, 4, 20), (3, 6, 4)), ((2, 3, 4, 20), (3, 6, 4))])
def test_matrices_may_stand_on_the_left(x, weight) -> None:
    graph = check(lambda bb, x: bb.emit(op.matmul(const(*weight), x)), x)
    assert ops(graph).count("linear") == 1 and "matmul" not in ops(graph)


@pytest.mark.parametrize("x", [(5, 4), (1, 5, 4)])
def test_batches_that_read_the_same_share_it(x) -> None:
    graph = check(lambda bb, x: bb.emit(op.matmul(x, const(3, 4, 6))), x)
    (layer,) = (node for node in graph.nodes if node.op == "linear")
    assert layer.inputs[1].shape == (18, 4)


def test_many_large_matrices_are_several_layers(monkeypatch) -> None:
    monkeypatch.setattr(batched_layers, "LARGEST", 4 * 24)
    graph = check(lambda bb, x: bb.emit(op.matmul(x, const(5, 4, 6))), (5, 7, 4))
    assert [node.inputs[1].shape for node in graph.nodes if node.op == "linear"] == [(12, 8), (12, 8), (6, 4)]


def test_batches_that_are_partly_shared_are_left() -> None:
    assert "matmul" in ops(check(lambda bb, x: bb.emit(op.matmul(x, const(2, 3, 4, 6))), (2, 1, 5, 4)))


@pytest.mark.parametrize("tokens", [1, 19])
def test_the_layer_is_a_product_and_nothing_is_moved(tokens: int) -> None:
    def build(bb, x):
        y = bb.emit(op.nn.relu(bb.emit(op.matmul(x, const(3, 4, 6)))))
        return bb.emit(op.matmul(y, const(3, 6, 4)))

    graph = check(build, (3, "m", 4), sizes={"m": tokens}, m=(1, 64))
    plan_layouts(graph)
    groups = fuse(graph, TARGETS["znver5"])
    assert sum(group.anchor is not None and group.anchor.matrix is not None for group in groups) == 2
    assert len(groups) <= 4  # both layers, and a transpose at either end
