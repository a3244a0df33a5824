"""Kernels as text, which `sparsec.ir.parser` reads back to the same kernel.

Every statement takes one line, so that a line number says which one is meant; only the header may take more.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
    Coordinate,
    Expr,
    Fetch,
    For,
    If,
    Kernel,
    Load,
    Op,
    Position,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
)

WIDTH = 120  # columns that the header may take
KEYWORDS = frozenset({"and", "as", "at", "fetching", "for", "if", "in", "inf", "kernel", "nan", "of"})
KEYWORDS |= {"parallel", "range", "tile"}
PRECEDENCE = {
    **{"and": 0, "<": 1, "<=": 1, "==": 1, "^": 2, "&": 3},  # as in Python
    **{"+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5},
}
NOT_ASSOCIATIVE = frozenset({"<", "<=", "=="})  # a < b < c would read as something else in Python


def print_kernel(kernel: Kernel) -> str:
    """Return the text of a kernel, without a line break at the end.

    >>> from sparsec.ir.parser import parse_kernel
    >>> print(print_kernel(parse_kernel('''
    ... kernel double(X: float32[n]) -> Y: float32[n]:
    ...     for i in range(0, n):
    ...         Y[(i)] = (X[i] + X[i])
    ... ''')))
    kernel double(X: float32[n]) -> Y: float32[n]:
        for i in range(0, n):
            Y[i] = X[i] + X[i]
    """
    return "\n".join((print_header(kernel), *_body(kernel.body, "    ")))


def print_header(kernel: Kernel) -> str:
    """Return everything above the first statement."""
    opening = f"kernel {kernel.name}("
    parts = [print_buffer(buffer) for buffer in kernel.inputs] or [""]
    parts = [f"{part}," for part in parts[:-1]] + [f"{parts[-1]})"]
    outputs = [print_buffer(buffer) for buffer in kernel.outputs]
    if outputs:
        outputs[0] = f"-> {outputs[0]}"
    parts += [f"{part}," for part in outputs[:-1]] + outputs[-1:]
    parts[-1] += ":"

    lines = [opening + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) <= WIDTH:
            lines[-1] += f" {part}"
        else:
            lines.append(" " * len(opening) + part)
    return "\n".join(lines)


def print_buffer(buffer: Buffer) -> str:
    """Return a parameter as the header declares it."""
    layout = f' @ "{buffer.layout}"' if buffer.layout is not None else ""
    return f"{buffer.name}: {buffer.dtype}[{_join(buffer.shape)}]{layout}"


def print_statement(stmt: Stmt) -> str:
    """Return the line of a statement, without what is in its body."""
    if isinstance(stmt, For):
        axes = ", ".join(f"{axis.var} in {_iterable(axis)}" for axis in stmt.axes)
        instruction = f" as {stmt.instruction}" if stmt.instruction else ""
        return f"for {axes}{' parallel' if stmt.parallel else ''}{instruction}:"
    if isinstance(stmt, If):
        return f"if {print_expression(stmt.condition)}:"
    if isinstance(stmt, Tile):
        fetched = ", ".join(map(_fetched, stmt.fetch))
        return f"tile {stmt.name}: {stmt.dtype}[{_join(stmt.shape)}]{' fetching ' if fetched else ''}{fetched}:"
    return f"{print_expression(stmt.target)} {'+=' if stmt.accumulate else '='} {print_expression(stmt.value)}"


def print_expression(value: Expr, outer: int = -1) -> str:
    """Return an expression, in parentheses where its operator binds no tighter than the `outer` precedence."""
    if isinstance(value, Const):
        return repr(float(value.value)) if isinstance(value.value, float) else str(value.value)
    if isinstance(value, Var):
        return value.name
    if isinstance(value, Stored):
        return value.buffer
    if isinstance(value, Position):
        return f"position({value.buffer})"
    if isinstance(value, Coordinate):
        return f"{value.buffer}.{value.dim}"
    if isinstance(value, Load):
        return f"{value.buffer}[{', '.join(map(print_expression, value.indices))}]"
    assert isinstance(value, Op)
    if value.name not in PRECEDENCE or len(value.args) != 2:
        return f"{value.name}({', '.join(map(print_expression, value.args))})"
    left, right = value.args
    own = PRECEDENCE[value.name]
    left_text = print_expression(left, own if value.name in NOT_ASSOCIATIVE else own - 1)
    text = f"{left_text} {value.name} {print_expression(right, own)}"
    return f"({text})" if own <= outer else text


def _body(body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
    for stmt in body:
        yield indent + print_statement(stmt)
        if not isinstance(stmt, Assign):
            yield from _body(stmt.body, indent + "    ")


def _iterable(axis: Axis) -> str:
    if not isinstance(axis, Range):
        at = f" at {print_expression(axis.at)}" if axis.at is not None else ""
        part = f" {axis.part}" if axis.part else ""
        return f"{axis.buffer}[{axis.level}]{at}{part}"
    step = f", {axis.step}" if axis.step != 1 else ""
    return f"range({print_expression(axis.start)}, {print_expression(axis.stop)}{step})"


def _fetched(fetch: Fetch) -> str:
    later = f" at {fetch.var} + {fetch.ahead}" if fetch.var else ""
    condition = f" if {print_expression(fetch.condition)}" if fetch.condition else ""
    return f"{fetch.count} of {print_expression(fetch.first)}{later}{condition}"


def _join(dims: tuple[int | str, ...]) -> str:
    return ", ".join(map(str, dims))
