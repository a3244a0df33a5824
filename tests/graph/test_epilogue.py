"""Epilogue expressions mean what the operators mean."""

import math

import numpy as np
import pytest

from sparsec.graph.epilogue import MAX_TERMS, constant_of, express
from sparsec.graph.evaluate import evaluate_node
from sparsec.graph.graph import Graph, Node, Value
from sparsec.ir.kernel import Const, Expr, Op, Var, call

X, Y = Var("x"), Var("y")

MEANING = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "abs": np.abs,
    "erf": np.vectorize(math.erf),
    "exp": np.exp,
    "log": np.log,
    "max": np.maximum,
    "min": np.minimum,
    "round": np.round,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}

UNARY = {
    "abs": {},
    "clip": {"min": -0.5, "max": 0.75},
    "erf": {},
    "exp": {},
    "negative": {},
    "nn.gelu": {},
    "nn.gelu_tanh": {},
    "nn.leakyrelu": {"alpha": 0.2},
    "nn.relu": {},
    "nn.silu": {},
    "nn.softplus": {"beta": 2.0, "threshold": 20.0},
    "sigmoid": {},
    "square": {},
    "tanh": {},
}
POSITIVE = ("log", "rsqrt", "sqrt")
BINARY = ("add", "divide", "maximum", "minimum", "multiply", "subtract")


def meaning(expression: Expr, values: dict[str, np.ndarray]) -> np.ndarray:
    if isinstance(expression, Var):
        return values[expression.name]
    if isinstance(expression, Const):
        return np.float64(expression.value)
    assert isinstance(expression, Op)
    return MEANING[expression.name](*(meaning(arg, values) for arg in expression.args))


def node(op: str, inputs: int, **attrs: object) -> Node:
    values = [Value(name, (64,), "float32") for name in "xy"[:inputs]]
    return Node(op, values, [Value("result", (64,), "float32")], attrs)


def agree(node: Node, args: list[Expr], arrays: list[np.ndarray]) -> None:
    expression = express(node, args)
    assert expression is not None
    (expected,) = evaluate_node(node, arrays, {})
    found = meaning(expression, dict(zip("xy", map(np.float64, arrays), strict=False)))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("op", UNARY)
def test_an_operator_of_one_operand(op):
    agree(node(op, 1, **UNARY[op]), [X], [np.linspace(-30, 30, 64).astype("float32") / (8 if op == "exp" else 1)])


@pytest.mark.parametrize("op", POSITIVE)
def test_an_operator_of_positive_numbers(op):
    agree(node(op, 1), [X], [np.geomspace(1e-3, 1e3, 64).astype("float32")])


@pytest.mark.parametrize("op", BINARY)
def test_an_operator_of_two_operands(op):
    x, y = np.random.default_rng(0).standard_normal((2, 64)).astype("float32")
    agree(node(op, 2), [X, Y], [x, y])


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, 4.0])
def test_a_power(exponent):
    x = np.geomspace(1e-2, 1e2, 64).astype("float32")
    agree(node("power", 2), [X, Const(exponent)], [x, np.float32(exponent)])


@pytest.mark.parametrize("exponent", [Y, Const(0.3), Const(-1.0)])
def test_other_powers_are_not_for_epilogues(exponent):
    assert express(node("power", 2), [X, exponent]) is None


def test_a_division_by_a_power_of_two_is_a_multiplication():
    assert express(node("divide", 2), [X, Const(8.0)]) == X * 0.125
    assert express(node("divide", 2), [X, Const(3.0)]) == X / Const(3.0)


@pytest.mark.parametrize(
    ("inner", "zero", "folds"),
    [
        (call("round", X) + 128.0, 128.0, True),
        (call("round", X) + 128.0, 127.0, False),
        (call("round", X) + 0.5, 0.5, False),
        (X + 128.0, 128.0, False),
    ],
)
def test_a_zero_point_that_is_taken_back_goes_into_the_limits(inner, zero, folds):
    clipped = call("min", call("max", inner, 0.0), 255.0)
    found = express(node("subtract", 2), [clipped, Const(zero)])
    assert found is not None
    assert (found == call("min", call("max", call("round", X), -zero), 255.0 - zero)) == folds
    numbers = [-1e30, -128.5, -127.5, -0.5, 0.0, 0.5, 1.5, 126.5, 127.5, 1e30, np.inf, np.nan]
    values = {"x": np.array(numbers, np.float32)}
    np.testing.assert_array_equal(meaning(found, values), meaning(clipped, values) - zero)


@pytest.mark.parametrize("op", ["sin", "nn.softmax", "cumsum"])
def test_an_unknown_operator_is_declined(op):
    assert express(node(op, 1), [X]) is None


def test_integers_are_declined():
    made = node("add", 2)
    made.output.dtype = "int32"
    assert express(made, [X, Y]) is None


def test_a_tree_that_grows_too_large_is_declined():
    expression: Expr = X
    for _ in range(MAX_TERMS):
        larger = express(node("nn.silu", 1), [expression])
        if larger is None:
            return
        expression = larger
    pytest.fail("the tree doubled without end")


def test_constants_of_one_element():
    graph = Graph()
    assert constant_of(graph.constant(np.float32([[2.5]]))) == Const(2.5)
    assert constant_of(graph.constant(np.float32([1, 2]))) is None
    assert constant_of(graph.input("x", (1,), "float32")) is None
