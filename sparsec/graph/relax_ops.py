"""How Relax operators take their arguments: the one place that both directions of the translation read.

A Relax call holds tensors, shapes and numbers as positional arguments and the rest as attributes. The Python function
that makes the call (``tvm.relax.op.…``) has a parameter of the same name for each of them, so its signature is the
table: a positional argument that is no tensor becomes an attribute under its parameter's name.
"""

import inspect
from collections.abc import Callable
from functools import cache

from tvm import relax

LIST_PARAMETERS = {
    "concat": "tensors",
    "stack": "tensors",
    "meshgrid": "tensors",
    "einsum": "operands",
    "index_tensor": "indices",
    "index_put": "indices",
}
"""The parameter of an operator that takes a list of tensors."""

RENAMED = {"nn.attention_bias": "nn.attention"}
"""Operators whose calls the function of another name makes."""


@cache
def find_function(op: str) -> Callable[..., relax.Expr] | None:
    """The function of ``tvm.relax.op`` that makes a call of an operator; None where there is none."""
    found = relax.op
    for part in op.split("."):
        found = getattr(found, part, None)
    return found


@cache
def parameters(op: str) -> tuple[str, ...]:
    """The parameter names of that function, which begin with the call's positional arguments, in order."""
    function = find_function(op)
    return tuple(inspect.signature(function).parameters) if function else ()
