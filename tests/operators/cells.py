"""The cells of the table: an operator over weights that are stored in some layout and in some type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsec.ir.interpreter import interpret
from sparsec.ir.layout import Layout
from sparsec.ir.named import NAMED, tew, tile_wise, tvw, v_n_m
from sparsec.ir.notation import parse_storage
from sparsec.ir.product import Product
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.given import propose_given
from sparsec.schedules.trace import Scheduled
from tests.ir import libraries
from tests.ir.fragments_here import load_caller
from tests.ir.product_cases import NATIVE, Compiled, integers
from tests.operators.operators import Operator

Array = np.ndarray

WRITTEN = (
    "(i, k) -> (k : dense, i : bitmap)",
    "(i, k) -> (i mod 4 : dense, i floordiv 4 : dense, k floordiv 8 : dense, k mod 8 : dense)",
    "(i, k) -> (i : compressed, k : compressed)",
    "(i, k) -> (k floordiv 8 : dense, i : bucketed, k mod 8 : compressed)",
    "(i : balance[3], k) -> (i floordiv 5 : dense, i mod 5 : dense, k : compressed)",
    "(i, k) -> (k floordiv 4 : compressed, i floordiv 2 : bitmap, k mod 4 : dense, i mod 2 : dense)",
    "(i, k : similar[4]) -> (i floordiv 4 : dense, k floordiv 2 : compressed, i mod 4 : dense, k mod 2 : bitmap)",
    "(i, k) -> (i : dense, k floordiv 9 : dense, k mod 9 : structured[4]) + (i, k) -> (k : dense, i : compressed)",
)
"""Layouts without a name."""

SMALL = {"tile-wise:4": tile_wise(4), "TEW:4": tew(4), "TVW:4": tvw(4), "V:N:M:4,2,8": v_n_m(4, 2, 8)}
"""Layouts of which the weights of the tests have more than one tile."""

LAYOUTS: dict[str, Layout | Sum] = (
    {name: make() for name, make in NAMED.items()} | SMALL | {text: parse_storage(text) for text in WRITTEN}
)
"""Every layout with a name, and some without one."""

Types = tuple[str, str, str]
"""Of the weight, of X and of Y."""

TYPES: dict[str, tuple[Types, ...]] = {
    "float32": (("float32",) * 3,),
    "float16 or bfloat16": (("float16",) * 3, ("bfloat16",) * 3),
    "int8 → int32": (("int8", "int8", "int32"),),
}
"""Types that the layouts of an operator take by turns."""


def weights(operator: Operator) -> dict[str, Array]:
    """Matrices of small integers that sums are exact of, by what is hard about them; float32 [rows, depth]."""
    places = operator.places
    full = np.where(places, integers(*places.shape) % 8 + 1, np.float32(0))
    random = np.random.default_rng(0)
    tiles = full.copy()
    tiles[4:8] = tiles[-1:] = tiles[:, 8:16] = 0
    one = np.zeros_like(full)
    one[tuple(random.permutation(np.argwhere(places))[0])] = 3
    return {
        "random": np.where(random.random(full.shape) < 0.3, integers(*full.shape, seed=2) * places, np.float32(0)),
        "empty and full tiles": tiles,
        "full": full,
        "one nonzero": one,
        "all zero": np.zeros_like(full),
    }


@dataclass(frozen=True)
class Cell:
    """An operator, and how its weight is stored."""

    operator: Operator
    layout: Layout | Sum
    types: Types

    @property
    def product(self) -> Product:
        product = self.operator.anchor.product
        buffers = (product.weight, product.x, product.y)
        w, x, y = (replace(buffer, dtype=dtype) for buffer, dtype in zip(buffers, self.types, strict=True))
        return replace(product, weight=w, x=x, y=y)

    def held(self, matrix: Array) -> Array:
        """What the layout can hold of a matrix, in the type of the weight."""
        return np.where(self.layout.holds(matrix != 0), matrix, np.float32(0)).astype(self.types[0])

    def schedule(self, name: str) -> tuple[Product, Scheduled]:
        """Schedule the product as one whose layout was given; the kernel is the same for all weights of its shape."""
        proposal = propose_given(self.product, self.held(weights(self.operator)["random"]), self.layout, NATIVE)
        return proposal.product, proposal.trace.apply(replace(proposal.product, name=name))

    def expected(self, matrix: Array) -> Array:
        """What NumPy computes, rounded once."""
        exact = self.operator.numpy(np.float64(self.held(matrix)), np.float64(self.operator.x))
        return exact.astype(self.types[2])


class Library:
    """Cells whose kernels were compiled together."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.cells = cells
        self.scheduled = {name: cell.schedule(f"kernel_{n}") for n, (name, cell) in enumerate(cells.items())}
        funcs = [scheduled.func for _, scheduled in self.scheduled.values()]
        if any(scheduled.lowered.codes for _, scheduled in self.scheduled.values()):
            load_caller()
        library = libraries.Library(funcs, NATIVE)
        self.compiled = {
            name: Compiled(scheduled.lowered, scheduled.func, library=library)
            for name, (_, scheduled) in self.scheduled.items()
        }

    def outputs(self, name: str, matrix: Array, interpreted: bool) -> Iterator[tuple[str, Array]]:
        """Yield what a cell's compiled code, and the interpreter, make of a weight."""
        cell, (product, scheduled), compiled = self.cells[name], self.scheduled[name], self.compiled[name]
        given = cell.operator.anchor.constants | product.parts(cell.held(matrix))
        shape = tuple(map(int, product.y.shape))

        def operands(x: Array) -> dict[str, Array]:
            return given | {"X": x.astype(cell.types[1]).reshape([int(dim) for dim in product.x.shape])}

        yield "compiled", cell.operator.run(lambda x: compiled(operands(x), {"Y": shape})["Y"])
        if interpreted:
            yield "interpreted", cell.operator.run(lambda x: interpret(scheduled.kernel, operands(x))["Y"])
