import numpy as np
import pytest

from sparsec.graph.graph import Graph
from sparsec.graph.merge_duplicates import merge_duplicates


def chain() -> Graph:
    graph = Graph()
    x = graph.input("x", (2, 3), "float32")
    a = graph.add("nn.relu", [x], x.shape)
    b = graph.add("add", [a, graph.constant(np.ones(3, "float32"))], x.shape)
    graph.add("exp", [b], x.shape)
    graph.outputs = [b]
    return graph


def test_prints_every_value_with_its_type() -> None:
    assert str(chain()) == (
        "graph(%x: float32[2, 3])\n"
        "  %const: float32[3] = constant\n"
        "  %relu: float32[2, 3] = nn.relu(%x)\n"
        "  %add: float32[2, 3] = add(%relu, %const)\n"
        "  %exp: float32[2, 3] = exp(%add)\n"
        "  return %add"
    )


def test_remove_dead_keeps_users_right() -> None:
    graph = chain()
    graph.remove_dead()
    assert [node.op for node in graph.nodes] == ["nn.relu", "add"]
    assert graph.outputs[0].users == []
    graph.verify()


def test_replace_rewires_users_and_outputs() -> None:
    graph = chain()
    relu, total = graph.nodes[0], graph.nodes[1]
    twice = graph.add("multiply", [relu.output, relu.output], relu.output.shape, before=total)
    graph.set_inputs(total, [twice, total.inputs[1]])
    graph.replace(total.output, twice)
    graph.remove_dead()
    graph.verify()
    assert graph.outputs == [twice] and relu.output.users == [twice.producer, twice.producer]


def test_verify_finds_a_node_before_its_input() -> None:
    graph = chain()
    graph.nodes.reverse()
    with pytest.raises(AssertionError, match="before it is made"):
        graph.verify()


def test_merge_duplicates_compares_attributes() -> None:
    graph = Graph()
    x = graph.input("x", (2, 3), "float32")
    sums = [graph.add("sum", [x], (d,), {"axis": (a,), "keepdims": False}) for a, d in ((0, 3), (1, 2), (0, 3))]
    graph.outputs = list(sums)
    merge_duplicates(graph)
    graph.verify()
    assert len(graph.nodes) == 2 and graph.outputs == [sums[0], sums[1], sums[0]]
