"""Dimensions of tensors: integers, or expressions over symbols such as ``"batch*seq"``.

Expressions use ``+ - * / %`` and parentheses with C's meaning on nonnegative integers: division rounds down.
"""

import ast
import operator
from collections.abc import Callable, Mapping

from sparsec.errors import ArtifactError, UnsupportedError

Dim = int | str
Range = tuple[int, int]

_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[int, int], int]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.floordiv),
    ast.Mod: ("%", operator.mod),
}


def evaluate(dim: Dim, symbols: Mapping[str, int]) -> int:
    """The value of a dimension.

    >>> evaluate("(seq + 15) / 16 * 16", {"seq": 20})
    32
    """
    return _fold(dim, lambda name: symbols[name], lambda value: value, lambda op, a, b: _OPERATORS[op][1](a, b))


def bounds(dim: Dim, symbols: Mapping[str, Range]) -> Range:
    """What a dimension is never less and never more than, both included, for symbols within their ranges.

    Interval arithmetic (Moore, Interval Analysis, 1966): safe, and exact where no symbol stands twice.

    >>> bounds("2000 - n", {"n": (1, 2000)})
    (0, 1999)

    Raises
    ------
    UnsupportedError
        If a divisor may be zero or less.
    """

    def binary(op: type[ast.operator], a: Range, b: Range) -> Range:
        if op in (ast.Div, ast.Mod) and b[0] <= 0:
            raise UnsupportedError(
                f"the dimension {dim} divides by what may be {b[0]}, so its size has no bound; narrow its symbols"
            )
        if op is ast.Mod:
            most = b[1] - 1
            return (0, min(a[1], most)) if a[0] >= 0 else (-most, most)
        corners = [_OPERATORS[op][1](x, y) for x in a for y in b]
        # C rounds a negative quotient up.
        return min(corners), max(corners) + (op is ast.Div and max(corners) < 0)

    return _fold(dim, lambda name: symbols[name], lambda value: (value, value), binary)


def to_c(dim: Dim, symbols: Mapping[str, str]) -> str:
    """The dimension as a C expression, with each symbol replaced by its C expression.

    >>> to_c("batch*seq", {"batch": "s[0]", "seq": "s[1]"})
    '(s[0] * s[1])'
    """
    return _fold(dim, lambda name: symbols[name], str, lambda op, a, b: f"({a} {_OPERATORS[op][0]} {b})")


def free_symbols(dim: Dim) -> set[str]:
    """The symbols that a dimension depends on."""
    return _fold(dim, lambda name: {name}, lambda value: set(), lambda op, a, b: a | b)


def _fold(dim: Dim, name: Callable, number: Callable, binary: Callable):  # type: ignore[no-untyped-def]
    def visit(node: ast.expr):  # type: ignore[no-untyped-def]
        match node:
            case ast.Constant(value=int(value)):
                return number(value)
            case ast.Name(id=symbol):
                return name(symbol)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return binary(type(op), visit(left), visit(right))
        raise ArtifactError(f"dimension {dim!r} is not an expression of + - * / % over symbols and integers")

    if isinstance(dim, int):
        return number(dim)
    try:
        tree = ast.parse(dim, mode="eval")
    except SyntaxError:
        raise ArtifactError(f"dimension {dim!r} is not an expression of + - * / % over symbols and integers") from None
    return visit(tree.body)
