"""Dense tiles of many additions ask for the lines that they end with; others have no time to wait for them."""

import numpy as np
import pytest

from sparsec.ir.fetching import LONG
from sparsec.ir.layout import Layout
from sparsec.ir.named import CSR, dense_blocks
from tests.ir.product_cases import check, linear, trace

PANELS = dense_blocks(4)


def fetches(depth: int, layout: Layout = PANELS, epilogue: str = "none") -> int:
    """Return how often a kernel with tiles of 4 × 32 elements asks for a line."""
    case = linear(np.ones((8, depth), np.float32), 64, epilogue=epilogue, layout=layout)
    return str(check(case, trace(case, 32)).func).count("llvm.prefetch")


def test_a_line_of_each_row_is_asked_for():
    assert fetches(LONG) == 4 * 2


def test_what_an_epilogue_reads_beside_is_asked_for_too():
    assert fetches(LONG, epilogue="residual") == 2 * fetches(LONG)
    assert fetches(LONG, epilogue="bias and relu") == fetches(LONG)


@pytest.mark.parametrize("depth, layout", [(LONG - 1, PANELS), (2 * LONG, CSR)], ids=["short", "sparse"])
def test_other_tiles_ask_for_nothing(depth, layout):
    assert fetches(depth, layout) == 0
