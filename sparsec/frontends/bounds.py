"""The variables of symbolic dimensions, and what follows from their ranges."""

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import sym, tirx

from sparsec.frontends.shapes import Range


class Bounds:
    """One variable per symbol, and what follows from its range.

    >>> bounds = Bounds({"seq": (1, 128)})
    >>> bounds.simplify(tirx.min(bounds.variables["seq"], 512))
    seq
    """

    def __init__(self, symbols: Mapping[str, Range]) -> None:
        self.variables = {name: tirx.Var(name, "int64") for name in symbols}
        self._analyzer = sym.Analyzer()
        for name, (lower, upper) in symbols.items():
            self._analyzer.bind(self.variables[name], tvm.ir.Range(lower, upper + 1))

    def shape(self, dims: Sequence[int | str]) -> list[Any]:
        """Sizes and symbol names as sizes and variables."""
        return [self.variables[dim] if isinstance(dim, str) else dim for dim in dims]

    def simplify(self, size: Any) -> Any:
        """The shortest form of a size, an int where the ranges leave one value."""
        if isinstance(size, int):
            return size
        size = self._analyzer.simplify(size)
        return int(size) if isinstance(size, tirx.IntImm) else size
