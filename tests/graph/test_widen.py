"""Groups of half precision compute in float32."""

import numpy as np
import pytest

from sparsec.graph.graph import Graph, Value
from sparsec.graph.widen import widen


def nodes_of(build, dtype: str = "bfloat16") -> tuple[Graph, list]:
    graph = Graph()
    x = graph.input("x", (4, 8), dtype)
    graph.outputs = [build(graph, x)]
    return graph, graph.nodes


def described(nodes) -> list[str]:
    return [f"{node.op} {node.inputs[0].dtype} {node.output.dtype}" for node in nodes]


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_what_is_read_and_written_is_converted(half):
    def chain(graph: Graph, x: Value) -> Value:
        number = graph.constant(np.array(2, half))
        y = graph.add("multiply", [graph.add("nn.relu", [x], x.shape), number], x.shape)
        return graph.add("add", [y, x], x.shape)

    graph, nodes = nodes_of(chain, half)
    made = widen(nodes, graph.inputs, graph.outputs)
    assert described(made) == [
        f"astype {half} float32",
        "nn.relu float32 float32",
        "multiply float32 float32",
        "add float32 float32",
        f"astype float32 {half}",
    ]
    assert made[0].inputs == graph.inputs and made[-1].outputs == graph.outputs
    number = made[2].inputs[1]
    assert number.data.dtype == np.float32 and number.data == 2


def test_the_nodes_of_the_graph_stay_as_they_are():
    graph, nodes = nodes_of(lambda graph, x: graph.add("nn.relu", [x], x.shape))
    before = str(graph)
    widen(nodes, graph.inputs, graph.outputs)
    graph.verify()
    assert str(graph) == before


def test_constants_in_memory_are_read_as_they_are_stored():
    graph, nodes = nodes_of(lambda g, x: g.add("multiply", [x, g.constant(np.ones((1, 1), "bfloat16"))], x.shape))
    factor = nodes[0].inputs[1]
    made = widen(nodes, [*graph.inputs, factor], graph.outputs)
    assert made[1].op == "astype" and made[1].inputs == [factor]


def test_types_named_by_attributes_follow():
    graph, nodes = nodes_of(
        lambda g, x: g.add("nn.relu", [g.add("astype", [x], x.shape, {"dtype": "float16"}, dtype="float16")], x.shape)
    )
    assert [node.attrs.get("dtype") for node in widen(nodes, graph.inputs, graph.outputs)] == [
        "float32",
        "float32",
        None,
        "float16",
    ]


@pytest.mark.parametrize(
    "build",
    [
        lambda g, x: g.add("permute_dims", [x], (8, 4), {"axes": (1, 0)}),
        lambda g, x: g.add("call_tir", [x], x.shape, {"func": None, "name": "f"}),
        lambda g, x: g.add("shape_of", [x], (2,), dtype="int64"),
    ],
    ids=["moves", "functions of fixed types", "no value"],
)
def test_what_stays(build):
    graph, nodes = nodes_of(build)
    made = widen(nodes, graph.inputs, graph.outputs)
    if nodes[0].op == "shape_of":
        assert made[-1].output is graph.outputs[0]
    else:
        assert list(made) == nodes


def test_float32_stays():
    graph, nodes = nodes_of(lambda graph, x: graph.add("nn.relu", [x], x.shape), "float32")
    assert list(widen(nodes, graph.inputs, graph.outputs)) == nodes
