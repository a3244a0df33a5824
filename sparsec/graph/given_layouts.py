"""Layouts that a user gives to layers, in place of those that would be chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from sparsec.errors import InputError, LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.named import NAMED
from sparsec.ir.notation import parse_storage
from sparsec.ir.sums import Sum

Given = str | Layout | Sum
"""A name, such as ``CSR``, a layout in the notation, or the layout itself."""


class GivenLayouts:
    """Layouts by layer.

    >>> given = GivenLayouts({"encoder.*": "CSR", "*": "(i, k) -> (i : dense, k : bitmap)"})
    >>> str(given("encoder.0.fc1"))
    '(i, k) -> (i : dense, k : compressed)'

    Parameters
    ----------
    layouts : one for all layers, or by the name of a layer, in which ``*`` stands for anything; the first that fits
        counts

    Raises
    ------
    LayoutError : for a text that is neither a name nor in the notation
    """

    def __init__(self, layouts: Given | Mapping[str, Given] | None = None) -> None:
        found = layouts if isinstance(layouts, Mapping) else {"*": layouts} if layouts is not None else {}
        self._layouts = {pattern: read_layout(layout) for pattern, layout in found.items()}
        self._used: set[str] = set()

    def __call__(self, layer: str) -> Layout | Sum | None:
        """Return the layout for a layer, None where it is free."""
        for pattern, layout in self._layouts.items():
            if pattern == layer or fnmatchcase(layer, pattern):
                self._used.add(pattern)
                return layout
        return None

    def check_all_used(self) -> None:
        """Raise if a name fitted no layer that was asked for.

        Raises
        ------
        InputError
        """
        if unused := [pattern for pattern in self._layouts if pattern not in self._used and pattern != "*"]:
            raise InputError(
                f"a layout was given for {unused[0]!r}, but no layer with weights has that name; `sparsec inspect` "
                "lists the layers"
            )


def read_layout(layout: Given) -> Layout | Sum:
    """Return a layout by its name, with numbers in place of its defaults where there are any, or from its notation.

    >>> str(read_layout("2:4"))
    '(i, k) -> (i : dense, k floordiv 4 : dense, k mod 4 : structured[2, 4])'
    >>> str(read_layout("BSR:2,1"))
    '(i, k) -> (i floordiv 2 : dense, k : compressed, i mod 2 : dense)'
    """
    if not isinstance(layout, str):
        return layout
    if "->" in layout:
        return parse_storage(layout)
    if found := re.fullmatch(r"(\d+):(\d+)", layout):
        return NAMED["N:M"](int(found[1]), int(found[2]))
    name, _, numbers = (layout, "", "") if layout in NAMED else layout.partition(":")
    try:
        return NAMED[name](*map(int, filter(None, numbers.split(","))))
    except (KeyError, TypeError, ValueError):
        raise LayoutError(
            f"{layout!r} is not the name of a layout; use one of {'; '.join(NAMED)}, with numbers as in 2:4 or "
            "BSR:4,4, or write one in the notation, as (i, k) -> (i : dense, k : compressed)"
        ) from None
