"""The notation of layouts, after the map of MLIR's sparse_tensor encoding.

    storage := layout {"+" layout}
    layout  := "(" dim {"," dim} ")" "->" "(" level {"," level} ")"
    dim     := name [":" word]                        a word such as balance[8] permutes the dimension
    level   := digit ":" word                         a word such as dense or compressed(nonunique)
    digit   := name {("floordiv" | "mod") number}     read from left to right
    word    := name ["[" number {"," number} "]"] ["(" flag {"," flag} ")"]

`str` is the inverse of `parse_layout` and, for sums, of `parse_storage`. It prints a normal form: for `i mod 12
floordiv 4` it is `i floordiv 4 mod 3`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import TypeVar

from sparsec.errors import LayoutError
from sparsec.ir.layout import Digit, Layout
from sparsec.ir.levels import LEVELS, Attribute, Level
from sparsec.ir.orders import ORDERS, Order
from sparsec.ir.sums import Sum

Item = TypeVar("Item")
Word = TypeVar("Word", bound=Attribute)
_TOKEN = re.compile(r"\s*(->|[A-Za-z_]\w*|\d+|\S)")
_KEYWORDS = ("floordiv", "mod")


@lru_cache(4096)
def parse_layout(text: str) -> Layout:
    """Read a layout from its notation.

    >>> str(parse_layout("(i, k)->(i floordiv 4:dense, k:compressed, i mod 4:dense)"))
    '(i, k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : dense)'

    Raises
    ------
    LayoutError : with the column, if the text is not in the notation; or if the layout that it describes is not sound
    """
    parser = _Parser(text)
    return parser.ended(parser.layout())


@lru_cache(4096)
def parse_storage(text: str) -> Layout | Sum:
    """Read a layout, or a sum of layouts, from its notation.

    >>> len(parse_storage("(i, k) -> (i : dense, k : dense) + (i, k) -> (i : dense, k : compressed)").terms)
    2

    Raises
    ------
    LayoutError : as `parse_layout`
    """
    parser = _Parser(text)
    terms = [parser.layout()]
    while parser.accept("+"):
        terms.append(parser.layout())
    return parser.ended(Sum(tuple(terms)) if len(terms) > 1 else terms[0])


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(match[1], match.start(1)) for match in _TOKEN.finditer(text)] + [("", len(text))]
        self.next = 0

    def layout(self) -> Layout:
        dims = self.listed("(", self.dim, ")")
        self.expect("->")
        levels = self.listed("(", self.level, ")")
        orders = tuple((name, order) for name, order in dims if order is not None)
        return Layout(tuple(name for name, _ in dims), tuple(levels), orders)

    def ended(self, read: Item) -> Item:
        if self.token:
            raise self.error("the end of the layout")
        return read

    def dim(self) -> tuple[str, Order | None]:
        name = self.name("the name of a dimension")
        return name, self.word("an order", ORDERS) if self.accept(":") else None

    def level(self) -> tuple[Digit, Level]:
        digit = self.digit()
        self.expect(":")
        return digit, self.word("a level", LEVELS)

    def digit(self) -> Digit:
        digit = Digit(self.name("the name of a dimension"))
        while self.token in _KEYWORDS:
            operator, column = self.take(), self.column
            number = self.number("a divisor")
            if number < 2:
                raise self.error(f"a number above 1 after {operator}", f"{number}", column)
            cut = digit.divided(number) if operator == "floordiv" else digit.modulo(number)
            if cut is None:
                raise self.error(f"a number that divides {digit.size}", f"{number}", column)
            digit = cut
        return digit

    def word(self, what: str, known: Mapping[str, type[Word]]) -> Word:
        column = self.column
        what = f"{what} ({', '.join(known)})"
        name = self.name(what)
        if name not in known:
            raise self.error(what, repr(name), column)
        integers = [field for field in fields(known[name]) if field.type in ("int", int)]  # type: ignore[arg-type]
        most, least = len(integers), sum(field.default is MISSING for field in integers)
        numbers = self.listed("[", lambda: self.number("a number"), "]") if self.token == "[" else []
        if not least <= len(numbers) <= most or 0 in numbers:
            count = f"{least} to {most}" if least < most else f"{most}"
            raise self.error(f"{name} with {count} positive numbers in brackets", f"{numbers}", column)
        column = self.column
        flags = self.listed("(", lambda: self.name("a flag"), ")") if self.token == "(" else []
        possible = [field.name for field in fields(known[name]) if field.type in ("bool", bool)]  # type: ignore[arg-type]
        if set(flags).difference(possible):
            raise self.error(f"a flag of {name} ({', '.join(possible) or 'it has none'})", f"{flags}", column)
        values = {field.name: number for field, number in zip(integers, numbers)}  # noqa: B905 - the rest has defaults
        return known[name](**values, **dict.fromkeys(flags, True))

    # -- tokens --------------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        return self.tokens[self.next][0]

    @property
    def column(self) -> int:
        return self.tokens[self.next][1] + 1

    def take(self) -> str:
        self.next += 1
        return self.tokens[self.next - 1][0]

    def accept(self, token: str) -> bool:
        found = self.token == token
        self.next += found
        return found

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.error(repr(token))

    def listed(self, opening: str, item: Callable[[], Item], closing: str) -> list[Item]:
        self.expect(opening)
        items = [item()]
        while self.accept(","):
            items.append(item())
        if not self.accept(closing):
            raise self.error(f"',' or {closing!r}")
        return items

    def name(self, what: str) -> str:
        if not self.token.isidentifier() or self.token in _KEYWORDS:
            raise self.error(what)
        return self.take()

    def number(self, what: str) -> int:
        if not self.token.isdigit():
            raise self.error(what)
        return int(self.take())

    def error(self, expected: str, found: str = "", column: int = 0) -> LayoutError:
        found = found or (repr(self.token) if self.token else "the end")
        place = f"at column {column or self.column}"
        return LayoutError(f"Cannot read the layout {self.text!r} {place}: expected {expected}, found {found}.")
