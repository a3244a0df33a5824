"""Groups of half precision compute in float32."""

import numpy as np
import pytest

from sparsec.graph.graph import Graph, Value
from sparsec.graph.widen import Body, widen


def graph_of(build, dtype: str = "bfloat16") -> Graph:
    graph = Graph()
    x = graph.input("x", (4, 8), dtype)
    graph.outputs = [build(graph, x)]
    return graph


def widened(graph: Graph, *constants: Value) -> list:
    return list(widen(Body(tuple(graph.nodes), (*graph.inputs, *constants), tuple(graph.outputs))).nodes)


def described(nodes) -> list[str]:
    return [f"{node.op} {node.inputs[0].dtype} {node.output.dtype}" for node in nodes]


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_what_is_read_and_written_is_converted(half):
    def chain(graph: Graph, x: Value) -> Value:
        number = graph.constant(np.array(2, half))
        y = graph.add("multiply", [graph.add("nn.relu", [x], x.shape), number], x.shape)
        return graph.add("add", [y, x], x.shape)

    graph = graph_of(chain, half)
    made = widened(graph)
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
    graph = graph_of(lambda graph, x: graph.add("nn.relu", [x], x.shape))
    before = str(graph)
    widened(graph)
    graph.verify()
    assert str(graph) == before


def test_constants_in_memory_are_read_as_they_are_stored():
    graph = graph_of(lambda g, x: g.add("multiply", [x, g.constant(np.ones((1, 1), "bfloat16"))], x.shape))
    factor = graph.nodes[0].inputs[1]
    made = widened(graph, factor)
    assert made[1].op == "astype" and made[1].inputs == [factor]


def test_types_named_by_attributes_follow():
    graph = graph_of(
        lambda g, x: g.add("nn.relu", [g.add("astype", [x], x.shape, {"dtype": "float16"}, dtype="float16")], x.shape)
    )
    assert [node.attrs.get("dtype") for node in widened(graph)] == [
        "float32",
        "float32",
        None,
        "float16",
    ]


@pytest.mark.parametrize(
    "build",
    [
        lambda g, x: g.add("permute_dims", [g.constant(np.ones((4, 8), "float16"))], (8, 4), {"axes": (1, 0)}),
        lambda g, x: g.add("call_tir", [x], x.shape, {"func": None, "name": "f"}),
        lambda g, x: g.add("shape_of", [x], (2,), dtype="int64"),
    ],
    ids=["moves", "functions of fixed types", "no value"],
)
def test_what_stays(build):
    graph = graph_of(build)
    made = widened(graph)
    if graph.nodes[0].op == "shape_of":
        assert made[-1].output is graph.outputs[0]
    else:
        assert made == graph.nodes


def test_float32_stays():
    graph = graph_of(lambda graph, x: graph.add("nn.relu", [x], x.shape), "float32")
    assert widened(graph) == graph.nodes


def test_bfloat16_is_moved_as_bits():
    graph = graph_of(lambda g, x: g.add("permute_dims", [g.add("concat", [x, x], (8, 8))], (8, 8), {"axes": (1, 0)}))
    body = widen(Body(tuple(graph.nodes), tuple(graph.inputs), tuple(graph.outputs)))
    assert described(body.nodes) == ["concat uint16 uint16", "permute_dims uint16 uint16"]
    assert [value.dtype for value in (*body.parameters, *body.outputs)] == ["uint16", "uint16"]
    assert body.nodes[0].inputs == [*body.parameters] * 2 and body.nodes[1].outputs == [*body.outputs]
