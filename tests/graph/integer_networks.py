"""Networks over whole numbers, so that every order of summation gives the same result."""

from collections.abc import Callable

import numpy as np

from sparsec.graph.evaluate import evaluate
from sparsec.graph.graph import Graph, Value


class Network:
    """A graph, built node by node; weights, biases and inputs are random whole numbers."""

    def __init__(self, *shape: int, seed: int = 0, dtype: str = "float64") -> None:
        self.graph = Graph()
        self.rng = np.random.default_rng(seed)
        self.x = self.graph.input("x", shape, dtype)

    def __repr__(self) -> str:
        return str(self.graph)

    def integers(self, *shape: int) -> np.ndarray:
        return self.rng.choice([-2.0, -1.0, 1.0, 2.0], shape).astype(self.x.dtype)

    def weight(self, *shape: int, rows=(), columns=()) -> Value:
        """A weight whose rows and columns of these numbers are zero."""
        data = self.integers(*shape)
        data[list(rows)] = 0
        data[:, list(columns)] = 0
        return self.graph.constant(data, "w")

    def linear(self, x: Value, outputs: int, rows=(), columns=()) -> Value:
        weight = self.weight(outputs, x.shape[-1], rows=rows, columns=columns)
        return self.graph.add("linear", [x, weight], (*x.shape[:-1], outputs))

    def conv(self, x: Value, outputs: int, kernel=1, padding=0, groups=1, rows=(), columns=()) -> Value:
        weight = self.weight(outputs, x.shape[1] // groups, kernel, kernel, rows=rows, columns=columns)
        size = [extent + 2 * padding - kernel + 1 for extent in x.shape[2:]]
        attrs = {"strides": (1, 1), "padding": (padding,) * 4, "dilation": (1, 1), "groups": groups}
        return self.graph.add("conv2d", [x, weight], (x.shape[0], outputs, *size), attrs)

    def bias(self, x: Value, axis: int = -1) -> Value:
        shape = [1] * x.rank
        shape[axis] = x.shape[axis]
        return self.graph.add("add", [x, self.graph.constant(self.integers(*shape), "b")], x.shape)

    def relu(self, x: Value) -> Value:
        return self.graph.add("nn.relu", [x], x.shape)

    def square(self, x: Value) -> Value:
        return self.graph.add("square", [x], x.shape)

    def add(self, a: Value, b: Value) -> Value:
        return self.graph.add("add", [a, b], a.shape)

    def concat(self, axis: int, *parts: Value) -> Value:
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.graph.add("concat", parts, shape, {"axis": axis})

    def reshape(self, x: Value, *shape: int) -> Value:
        return self.graph.add("reshape", [x], shape, {"shape": shape})

    def permute(self, x: Value, *axes: int) -> Value:
        return self.graph.add("permute_dims", [x], [x.shape[axis] for axis in axes], {"axes": axes})

    def matmul(self, a: Value, b: Value) -> Value:
        return self.graph.add("matmul", [a, b], (*a.shape[:-1], b.shape[-1]), {"out_dtype": None})

    def slice(self, x: Value, axis: int, begin: int, end: int) -> Value:
        shape = list(x.shape)
        shape[axis] = end - begin
        attrs = {"axes": (axis,), "begin": (begin,), "end": (end,), "strides": (1,)}
        return self.graph.add("strided_slice", [x], shape, attrs)

    def max_pool(self, x: Value) -> Value:
        shape = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
        attrs = {"pool_size": (2, 2), "strides": (2, 2), "padding": (0, 0, 0, 0)}
        return self.graph.add("nn.max_pool2d", [x], shape, attrs)

    def run(self, *outputs: Value, rewrite: Callable[[Graph], None]) -> Graph:
        """Rewrite the graph; it still computes the same."""
        graph = self.graph
        graph.outputs = list(outputs)
        inputs = [self.rng.integers(-3, 4, v.shape).astype(v.dtype) for v in graph.inputs]
        before, shapes = evaluate(graph, inputs), [v.shape for v in outputs]
        rewrite(graph)
        graph.verify()
        assert [v.shape for v in graph.outputs] == shapes
        for expected, actual in zip(before, evaluate(graph, inputs), strict=True):
            np.testing.assert_array_equal(actual, expected)
        return graph

    def weights(self) -> list[tuple]:
        return [node.inputs[1].shape for node in self.graph.nodes if node.op in ("conv2d", "linear")]
