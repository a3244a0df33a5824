"""What is said to be stored is what the arrays of a kernel take, offsets that are wider than coordinates among them."""

import numpy as np
import pytest

from sparsec.ir.named import CSR, NAMED
from sparsec.schedules.rules.given import propose_given
from tests.ir.product_cases import NATIVE, linear, sparse


@pytest.mark.parametrize(("columns", "symbolic"), [(37, ("columns",)), (700, ())])
@pytest.mark.parametrize("name", NAMED)
def test_bytes_are_those_of_the_packed_arrays(name: str, columns: int, symbolic: tuple[str, ...]) -> None:
    layout, weight = NAMED[name](), sparse(32, 144, 0.2)
    weight = np.where(layout.holds(weight != 0), weight, np.float32(0))
    proposal = propose_given(linear(weight, columns, symbolic=symbolic).product, weight, layout, NATIVE)
    scheduled = proposal.trace.apply(proposal.product)
    parts = proposal.product.parts(weight)
    arrays = [array for part, value in parts.items() for array in scheduled.pack(part, value).values()]
    assert proposal.nbytes(weight) == sum(array.nbytes for array in arrays)


def test_wide_offsets_count() -> None:
    weight = sparse(64, 768, 0.1)
    few, many = (propose_given(linear(weight, columns).product, weight, CSR, NATIVE) for columns in (64, 128))
    assert few.nbytes(weight) == CSR.nbytes(weight, np.float32, 16)
    assert many.nbytes(weight) == few.nbytes(weight) + 2 * np.count_nonzero(weight)
