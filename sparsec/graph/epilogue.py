"""Elementwise operators as expressions of the kernel IR: what a product may do to each of its results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from sparsec.graph.graph import Node, Value
from sparsec.ir.kernel import Const, Expr, call, walk_expressions
from sparsec.ir.types import SINGLE_OR_HALF

MAX_TERMS = 256
"""An epilogue is a tree, so a value that is read twice is written twice; past this size it is better stored."""


def constant_of(value: Value) -> Const | None:
    """A constant with one element, as a constant of the IR."""
    if value.data is None or value.data.size != 1:
        return None
    return Const(float(value.data.reshape(())))


def express(node: Node, args: Sequence[Expr]) -> Expr | None:
    """Return the result of an elementwise node over floats, or None if an epilogue cannot hold it.

    Half precision is for storage: what an epilogue makes of the sum stays in float32 until the last result is stored.

    >>> express(Node("nn.relu", [x], [y], {}), [SUM])  # doctest: +SKIP
    Op(name='max', args=(Var(name='acc'), Const(value=0.0)))
    """
    make = _EXPRESSIONS.get(node.op)
    if make is None or node.output.dtype not in SINGLE_OR_HALF:
        return None
    result = make(*args, **node.attrs)
    if result is None or sum(1 for _ in walk_expressions(result)) > MAX_TERMS:
        return None
    return result


def _sigmoid(x: Expr) -> Expr:
    return call("sigmoid", x)


def _gelu(x: Expr) -> Expr:
    return x * 0.5 * (call("erf", x * math.sqrt(0.5)) + 1.0)


def _gelu_tanh(x: Expr) -> Expr:
    return x * 0.5 * (call("tanh", (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)


def _leaky_relu(x: Expr, alpha: float) -> Expr:
    return call("max", x, 0.0) + call("min", x, 0.0) * alpha


def _clip(x: Expr, min: Any, max: Any) -> Expr:
    return call("min", call("max", x, float(min)), float(max))


def _power(x: Expr, exponent: Expr) -> Expr | None:
    """A power that is a constant; small whole ones are products, since `pow` is a call for each lane."""
    if not isinstance(exponent, Const):
        return None
    n = exponent.value
    if n == 0.5:
        return call("sqrt", x)
    if n in (1, 2, 3, 4):
        return reduce(lambda a, b: a * b, [x] * int(n))
    return None


def _divide(a: Expr, b: Expr) -> Expr:
    """A division; by a power of two it is a multiplication, which is exact and an order of magnitude faster."""
    if isinstance(b, Const) and b.value and math.frexp(b.value)[0] in (0.5, -0.5):
        return a * (1.0 / b.value)
    return a / b


def _softplus(x: Expr, beta: float = 1.0, threshold: float = 20.0) -> Expr | None:
    """log(1 + eˣ), written so that the exponential cannot overflow; past a threshold of 20 it is x in float32."""
    if threshold < 20:
        return None
    scaled = x * float(beta)
    return (call("max", scaled, 0.0) + call("log", call("exp", call("abs", scaled) * -1.0) + 1.0)) * (1.0 / beta)


_EXPRESSIONS: dict[str, Callable[..., Expr | None]] = {
    "abs": lambda x: call("abs", x),
    "add": lambda a, b: a + b,
    "astype": lambda x, dtype: x,
    "clip": _clip,
    "divide": _divide,
    "erf": lambda x: call("erf", x),
    "exp": lambda x: call("exp", x),
    "log": lambda x: call("log", x),
    "maximum": lambda a, b: call("max", a, b),
    "minimum": lambda a, b: call("min", a, b),
    "multiply": lambda a, b: a * b,
    "negative": lambda x: x * -1.0,
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "nn.leakyrelu": _leaky_relu,
    "nn.relu": lambda x: call("max", x, 0.0),
    "nn.silu": lambda x: x * _sigmoid(x),
    "nn.softplus": _softplus,
    "power": _power,
    "rsqrt": lambda x: call("rsqrt", x),
    "sigmoid": _sigmoid,
    "sqrt": lambda x: call("sqrt", x),
    "square": lambda x: x * x,
    "subtract": lambda a, b: a - b,
    "tanh": lambda x: call("tanh", x),
}
