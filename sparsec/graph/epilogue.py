"""Elementwise operators as expressions of the kernel IR: what a product may do to each of its results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.ir.kernel import Const, Expr, Load, Op, call, walk_expressions
from sparsec.ir.types import BYTES, SINGLE_OR_HALF, STORED, is_float

MAX_TERMS = 256
"""An epilogue is a tree, so a value that is read twice is written twice; past this size it is better stored."""


def constant_of(value: Value) -> Const | None:
    """A constant with one element, as a constant of the IR."""
    if value.data is None or value.data.size != 1:
        return None
    number = value.data.reshape(())
    return Const(float(number) if is_float(value.dtype) else int(number))


def express(node: Node, args: Sequence[Expr]) -> Expr | None:
    """Return the result of an elementwise node, or None if an epilogue cannot hold it.

    Half precision and 8 bits are for storage: what an epilogue makes of the sum stays in float32 until the last result
    is stored. Before that, sums of integers are added to, and scaled, in int32.

    >>> express(Node("nn.relu", [x], [y], {}), [SUM])  # doctest: +SKIP
    Op(name='max', args=(Var(name='acc'), Const(value=0.0)))
    """
    make = _EXPRESSIONS.get(node.op)
    if make is None or not _fits(node):
        return None
    result = make(*args, **node.attrs)
    if node.op == "astype" and _is_integer(node.inputs[0], *args):
        result = call("float", *args)
    if result is None or sum(1 for _ in walk_expressions(result)) > MAX_TERMS:
        return None
    return result


def stored(result: Expr, dtype: str) -> Expr:
    """The result without what storing it in 8 bits does anyway, which is to round it and bring it into their range.

    >>> print_expression(stored(call("min", call("max", call("round", SUM), 0.0), 255.0), "uint8"))  # doctest: +SKIP
    'acc'
    """
    if dtype not in BYTES:
        return result
    limits = np.iinfo(dtype)
    match result:
        case Op("min", (Op("max", (inner, Const(low))), Const(high))) if (low, high) == (limits.min, limits.max):
            result = inner
    match result:
        case Op("round", (inner,)):
            result = inner
    return result


def _is_integer(value: Value, expression: Expr) -> bool:
    """Whether an expression is in int32; integers of 8 bits that the epilogue itself made are still in float32."""
    return value.dtype == "int32" or (value.dtype in BYTES and isinstance(expression, Load))


def _fits(node: Node) -> bool:
    """Whether a node computes in float32 or int32, and not from one to the other by cutting something off."""
    dtype, types = node.output.dtype, {value.dtype for value in node.inputs}
    if node.op == "astype" and dtype in BYTES:
        return types <= set(SINGLE_OR_HALF) and _is_whole(node.inputs[0], np.iinfo(dtype))
    if node.op == "astype":
        return dtype in SINGLE_OR_HALF and types <= set(STORED)
    return (dtype in SINGLE_OR_HALF and types <= set(SINGLE_OR_HALF)) or (node.op in _EXACT and types == {"int32"})


def _is_whole(value: Value, limits: np.iinfo) -> bool:
    """Whether a value holds whole numbers within limits, as `quantize` brings them."""
    clip = value.producer
    if clip is None or clip.op != "clip" or clip.attrs["min"] < limits.min or clip.attrs["max"] > limits.max:
        return False
    steps = clip.inputs[0].producer
    if steps is not None and steps.op == "add" and (zero := constant_of(steps.inputs[1])) and zero.value % 1 == 0:
        steps = steps.inputs[0].producer
    return steps is not None and steps.op == "round"


def _sigmoid(x: Expr) -> Expr:
    return call("sigmoid", x)


def _gelu(x: Expr) -> Expr:
    """x Φ(x), with the normal distribution function as `fast_math` recognises it."""
    return x * (call("erf", x * math.sqrt(0.5)) * 0.5 + 0.5)


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


def _subtract(a: Expr, b: Expr) -> Expr:
    """A difference; a zero point that whole numbers were clipped with goes into the limits, which changes no result.

    Before:  `min(max(round(x) + 8, 0), 255) - 8`
    After:   `min(max(round(x), -8), 247)`
    """
    match a, b:
        case Op("min", (Op("max", (Op("+", (Op("round") as whole, Const(zero))), Const(low))), Const(high))), Const(by):
            if zero == by and float(zero).is_integer():
                return call("min", call("max", whole, low - zero), high - zero)
    return a - b


def _softplus(x: Expr, beta: float = 1.0, threshold: float = 20.0) -> Expr | None:
    """log(1 + eˣ), written so that the exponential cannot overflow; past a threshold of 20 it is x in float32."""
    if threshold < 20:
        return None
    scaled = x * float(beta)
    return (call("max", scaled, 0.0) + call("log", call("exp", call("abs", scaled) * -1.0) + 1.0)) * (1.0 / beta)


_EXACT = {"add", "multiply", "subtract"}
"""What is done to integers in int32."""

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
    "round": lambda x: call("round", x),
    "rsqrt": lambda x: call("rsqrt", x),
    "sigmoid": _sigmoid,
    "sqrt": lambda x: call("sqrt", x),
    "square": lambda x: x * x,
    "subtract": _subtract,
    "tanh": lambda x: call("tanh", x),
}
