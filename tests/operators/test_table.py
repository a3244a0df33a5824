"""Every operator over every layout: compiled code and the interpreter against NumPy, bit for bit."""

from itertools import cycle, islice

import numpy as np
import pytest

import sparsec
from sparsec.errors import LayoutError
from sparsec.ir.types import HALVES
from tests.operators.cells import LAYOUTS, TYPES, Cell, Library, Types, weights
from tests.operators.masks import MASK_OPERATORS, MaskOperator, Programs
from tests.operators.operators import EDGES, OPERATORS, Operator
from tests.operators.table import PAGE, reasons, render

INTERPRETED = ("random",)  # the interpreter takes its time


def differences(operator: Operator, types: tuple[Types, ...], first: int = 0) -> list[str]:
    """Compute an operator over all layouts, whose types take turns, and say where it is not what NumPy computes."""
    turns = islice(cycle(types), first, None)
    library = Library({name: Cell(operator, layout, next(turns)) for name, layout in LAYOUTS.items()})
    found = []
    for name, cell in library.cells.items():
        for weight, matrix in weights(operator).items():
            wanted = cell.expected(matrix)
            for way, y in library.outputs(name, matrix, weight in INTERPRETED):
                if not np.array_equal(y, wanted):
                    found.append(f"{name}, {weight}, {way}")
    return found


@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_cell_is_what_numpy_computes(name, types):
    """Where types take turns, every layout meets each of them with every other operator."""
    assert differences(OPERATORS[name](), types, first=list(OPERATORS).index(name)) == []


@pytest.mark.parametrize("make", EDGES.values(), ids=EDGES)
def test_matrices_of_one_row_and_of_one_column(make):
    assert differences(make(), TYPES["float32"]) == []


@pytest.mark.parametrize(
    ("operator", "storage"),
    [(one, storage) for one in MASK_OPERATORS.values() for storage in ((None, *HALVES) if one.weighted else (None,))],
    ids=lambda part: part.name if isinstance(part, MaskOperator) else part,
)
def test_operators_over_masks_and_tables_are_what_numpy_computes(operator, storage):
    kinds = weights(OPERATORS["matmul, linear"]())
    programs = Programs(operator, kinds, LAYOUTS, storage)
    assert list(programs.differences(INTERPRETED)) == []
    assert len(programs.programs) == len(kinds) * (len(LAYOUTS) - len(programs.refused))


@pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)
def test_the_products_are_those_of_the_operators(make):
    """The weights of the table are full of entries that matter, so that a kernel which does nothing fails."""
    operator = make()
    results = [operator.numpy(matrix, operator.x) for matrix in weights(operator).values()]
    assert [bool(y.any()) for y in results] == [True, True, True, True, False]
    assert operator.places.sum() in (operator.places.size, operator.places.size // 3)


@pytest.mark.parametrize("name", reasons())
def test_what_is_refused_is_refused_for_the_reason_on_the_page(name):
    with pytest.raises(LayoutError) as caught:
        sparsec.op("matmul", weights(OPERATORS["matmul, linear"]())["full"], 5, layout=LAYOUTS[name])
    assert reasons()[name] in str(caught.value)


def test_the_page_is_that_of_the_table():
    """Run ``python -m tests.operators.table`` after a change."""
    assert PAGE.read_text() == render()
