"""Products whose operands are stored in half precision.

The integers of `tests.ir.product_cases` are exact in both half types and their sums in float32, so results are equal
bit for bit: the sum rounded once where Y is of half precision.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparsec.ir.kernel import Buffer
from tests.ir.product_cases import Case

TYPES = ("float32", "float16", "bfloat16")


def stored_as(case: Case, weight: str, x: str, y: str) -> Case:
    """Store the weight, X, and Y with the operands of the epilogue in these types."""

    def typed(buffer: Buffer, dtype: str) -> Buffer:
        return replace(buffer, dtype=dtype)

    product = replace(
        case.product,
        weight=typed(case.product.weight, weight),
        x=typed(case.product.x, x),
        y=typed(case.product.y, y),
        operands=tuple(typed(buffer, y) for buffer in case.product.operands),
    )
    types = {"W": weight, "X": x} | dict.fromkeys((buffer.name for buffer in product.operands), y)
    arrays = {name: array.astype(np.dtype(types.get(name, str(array.dtype)))) for name, array in case.arrays.items()}
    return replace(case, product=product, arrays=arrays, expected=case.expected.astype(y))
