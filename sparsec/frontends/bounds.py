"""The variables of symbolic dimensions, and what follows from their ranges."""

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, sym, tirx

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

    def bind(self, builder: relax.BlockBuilder, value: Any, name: str = "") -> relax.Var:
        """Bind a value to a variable whose shape is simplified, so that what is made from it matches.

        TVM infers ``min(seq, 512)`` for a slice of 512 positions and then cannot add it to ``seq`` tokens.
        """
        var = value if isinstance(value, relax.Var) else builder.emit(value, name_hint=name)
        if not (isinstance(var.ty, relax.TensorType) and isinstance(var.ty.shape, relax.ShapeExpr)):
            return var
        shape = relax.ShapeExpr([self.simplify(size) for size in var.ty.shape.values])
        value = builder.lookup_binding(var)
        if value is None or tvm_ffi.structural_equal(shape, var.ty.shape):
            return var
        kind = type(var)
        var = kind(builder.get_unique_name(var.name), relax.TensorType(shape, var.ty.dtype))
        builder.emit_normalized(relax.VarBinding(var, value))
        return var
