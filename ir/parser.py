"""The text of kernels, read back.

    kernel     := "kernel" name "(" [buffers] ")" ["->" buffers] ":" body
    buffers    := buffer {"," buffer}
    buffer     := name ":" dtype "[" [dim {"," dim}] "]" ["@" '"' layout '"']
    body       := statement {statement}, each on a line of its own, all at one column right of the line above them
    statement  := "for" axis {"," axis} ["parallel"] ["as" name {"." (name | number)}] ":" body
                | "if" expression ":" body
                | "tile" name ":" dtype "[" [number {"," number}] "]" ["fetching" fetch {"," fetch}] ":" body
                | element ("=" | "+=") expression
    fetch      := number "of" element ["at" name "+" number] ["if" expression]
    axis       := name "in" "range" "(" expression "," expression ["," number] ")"
                | name "in" name "[" number "]" ["at" expression]
    expression := atom {operator atom}, where `and`, comparisons, `^`, `&`, sums and products bind in this order,
                  weakest first
    atom       := ["-"] (number | "inf" | "nan") | "(" expression ")" | name "(" expressions ")"
                | element | name "." name | "position" "(" name ")" | name
    element    := name "[" [expressions] "]"

A name alone is the stored value of the parameter of this name, or else a variable. `#` starts a comment. Nothing here
looks at the meaning of a kernel: that is `sparsec.ir.verifier`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sparsec.errors import KernelError, LayoutError
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
    Walk,
)
from sparsec.ir.layout import Layout
from sparsec.ir.notation import parse_layout
from sparsec.ir.printer import KEYWORDS, NOT_ASSOCIATIVE, PRECEDENCE

Item = TypeVar("Item")

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#.*)
      | (?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
      | (?P<int>\d+)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<string>"[^"\n]*")
      | (?P<sign>->|//|<=|==|\+=|[-+*/%&^<=()\[\]:,.@])
      | (?P<unknown>.)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    column: int
    first: bool  # of its line


def parse_kernel(text: str) -> Kernel:
    """Read a kernel from the text that `print_kernel` writes.

    >>> kernel = parse_kernel('''
    ... kernel double(X: float32[n]) -> Y: float32[n]:
    ...     for i in range(0, n):
    ...         Y[i] = X[i] * 2.0
    ... ''')
    >>> kernel.symbols
    ('n',)

    Raises
    ------
    KernelError : with the line and column, if the text is not a kernel
    """
    return _Parser(text).kernel()


def _tokens(text: str) -> list[_Token]:
    tokens = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        first = True
        for match in _TOKEN.finditer(line):
            if match.lastgroup != "skip":
                tokens.append(_Token(match.lastgroup or "", match[0], number, match.start() + 1, first))
                first = False
    return [*tokens, _Token("end", "", len(lines), len(lines[-1]) + 1, True)]


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.next = 0
        self.parameters: set[str] = set()

    def kernel(self) -> Kernel:
        column = self.token.column
        self.expect("kernel")
        name = self.name("the name of the kernel")
        inputs = self.listed("(", self.buffer, ")")
        outputs = self.items(self.buffer) if self.accept("->") else []
        self.parameters = {buffer.name for buffer in inputs + outputs}
        body = self.body(column)
        if self.token.kind != "end":
            raise self.error("a statement in the column of the ones above, or the end")
        return Kernel(name, tuple(inputs), tuple(outputs), body)

    def buffer(self) -> Buffer:
        name = self.name("the name of a parameter")
        self.expect(":")
        dtype = self.name("an element type such as float32")
        shape = self.listed("[", self.dim, "]")
        return Buffer(name, dtype, tuple(shape), self.layout() if self.accept("@") else None)

    def dim(self) -> int | str:
        return self.number("") if self.token.kind == "int" else self.name("a number or the name of a dimension")

    def layout(self) -> Layout:
        if self.token.kind != "string":
            raise self.error('a layout in double quotes, such as "(i, k) -> (i : dense, k : compressed)"')
        token = self.take()
        try:
            return parse_layout(token.text[1:-1])
        except LayoutError as error:
            raise KernelError(f"Cannot read the kernel at line {token.line}, column {token.column}: {error}") from error

    # -- statements ------------------------------------------------------------------------------------------------

    def body(self, outer: int) -> tuple[Stmt, ...]:
        """Read the colon and the statements right of column `outer`."""
        self.expect(":")
        column = self.token.column
        if not self.token.first or self.token.kind == "end" or column <= outer:
            raise self.error("a statement on the next line, indented more than this one")
        body = []
        while self.token.kind != "end" and self.token.column >= column:
            if self.token.column > column:
                raise self.error(f"a statement at column {column}, as the ones above")
            body.append(self.statement())
            if not self.token.first:
                raise self.error("an operator or the end of the line")
        return tuple(body)

    def statement(self) -> Stmt:
        column = self.token.column
        if self.accept("for"):
            axes = tuple(self.items(self.axis))
            parallel = self.accept("parallel")
            instruction = self.instruction() if self.accept("as") else ""
            return For(axes, self.body(column), parallel, instruction)
        if self.accept("if"):
            condition = self.expression()
            return If(condition, self.body(column))
        if self.accept("tile"):
            name = self.name("the name of the tile")
            self.expect(":")
            dtype = self.name("an element type such as float32")
            shape = tuple(self.listed("[", lambda: self.number("a constant extent"), "]"))
            fetch = tuple(self.items(self.fetch)) if self.accept("fetching") else ()
            return Tile(name, dtype, shape, self.body(column), fetch)
        name = self.name("for, if, tile or an assignment")
        target = Load(name, tuple(self.listed("[", self.expression, "]")))
        accumulate = self.accept("+=")
        if not accumulate and not self.accept("="):
            raise self.error("'=' or '+='")
        return Assign(target, self.expression(), accumulate)

    def fetch(self) -> Fetch:
        count = self.number("how many elements to fetch")
        self.expect("of")
        name = self.name("the name of a buffer")
        first = Load(name, tuple(self.listed("[", self.expression, "]")))
        var, ahead = "", 0
        if self.accept("at"):
            var = self.name("the variable of a walk")
            self.expect("+")
            ahead = self.number("how many positions ahead")
        return Fetch(count, first, var, ahead, self.expression() if self.accept("if") else None)

    def instruction(self) -> str:
        """Read a dotted name, whose later parts may be numbers."""
        parts = [self.name("the name of an instruction")]
        while self.accept("."):
            parts.append(str(self.number("")) if self.token.kind == "int" else self.name("a part of a name"))
        return ".".join(parts)

    def axis(self) -> Axis:
        var = self.name("the name of a loop variable")
        self.expect("in")
        if not self.accept("range"):
            buffer = self.name("range(start, stop) or a level of a packed parameter, such as W[0]")
            self.expect("[")
            level = self.number("the number of a level")
            self.expect("]")
            at = self.expression() if self.accept("at") else None
            part = next((part for part in ("runs", "run") if self.accept(part)), "")
            return Walk(var, buffer, level, at, part)
        self.expect("(")
        start = self.expression()
        self.expect(",")
        stop = self.expression()
        step = self.number("a constant step") if self.accept(",") else 1
        self.expect(")")
        return Range(var, start, stop, step)

    # -- expressions -----------------------------------------------------------------------------------------------

    def expression(self, weakest: int = 0) -> Expr:
        """Read atoms joined by operators that bind at least as tight as `weakest` (precedence climbing)."""
        value = self.atom()
        while (own := PRECEDENCE.get(self.token.text, -1)) >= weakest:
            operator = self.take().text
            value = Op(operator, (value, self.expression(own + 1)))
            if operator in NOT_ASSOCIATIVE and self.token.text in NOT_ASSOCIATIVE:
                raise self.error("one comparison; join two with 'and'")
        return value

    def atom(self) -> Expr:
        token = self.token
        if self.accept("("):
            value = self.expression()
            self.expect(")")
            return value
        if token.kind in ("int", "float") or token.text in ("-", "inf", "nan"):
            return self.constant()
        name = self.name("a number, a name or '('")
        if name == "position":
            self.expect("(")
            packed = self.name("the name of a packed parameter")
            self.expect(")")
            return Position(packed)
        if self.token.text == "(":
            return Op(name, tuple(self.listed("(", self.expression, ")")))
        if self.token.text == "[":
            return Load(name, tuple(self.listed("[", self.expression, "]")))
        if self.accept("."):
            return Coordinate(name, self.name("the name of a dimension"))
        return Stored(name) if name in self.parameters else Var(name)

    def constant(self) -> Const:
        sign = -1 if self.accept("-") else 1
        if self.token.kind == "int":
            return Const(sign * int(self.take().text))
        if self.token.kind == "float" or self.token.text in ("inf", "nan"):
            return Const(sign * float(self.take().text))
        raise self.error("a number after '-' (write 0 - x to negate a value)")

    # -- tokens ----------------------------------------------------------------------------------------------------

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def accept(self, text: str) -> bool:
        found = self.token.text == text
        self.next += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(repr(text))

    def items(self, item: Callable[[], Item]) -> list[Item]:
        found = [item()]
        while self.accept(","):
            found.append(item())
        return found

    def listed(self, opening: str, item: Callable[[], Item], closing: str) -> list[Item]:
        """Read items in brackets; there may be none."""
        self.expect(opening)
        if self.accept(closing):
            return []
        found = self.items(item)
        if not self.accept(closing):
            raise self.error(f"',' or {closing!r}")
        return found

    def name(self, what: str) -> str:
        if self.token.kind != "name" or self.token.text in KEYWORDS:
            raise self.error(what)
        return self.take().text

    def number(self, what: str) -> int:
        if self.token.kind != "int":
            raise self.error(what)
        return int(self.take().text)

    def error(self, expected: str) -> KernelError:
        token = self.token
        found = repr(token.text) if token.text else "the end of the text"
        return KernelError(
            f"Cannot read the kernel at line {token.line}, column {token.column}: expected {expected}, found {found}."
        )
