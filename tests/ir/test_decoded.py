"""Weights that are stored as integers, and decoded to meet floats."""

from dataclasses import replace

import numpy as np
import pytest

from sparsec.ir.kernel import Buffer
from sparsec.ir.named import CSR, dense_blocks
from sparsec.ir.notation import parse_layout
from tests.ir.halves import stored_as
from tests.ir.product_cases import CHOSEN, Case, check, interpreted, linear, sparse, trace

STAGED = parse_layout("(i, k) -> (i floordiv 8 : dense, k floordiv 12 : dense, k mod 12 : dense, i mod 8 : dense)")
RAGGED = parse_layout("(i, k) -> (i floordiv 8 : dense, k floordiv 16 : dense, k mod 16 : dense, i mod 8 : dense)")
LAYOUTS = CHOSEN | {"decoded in blocks": STAGED, "decoded in ragged blocks": RAGGED}
INTEGERS = ("int4", "int8")


def integers(dtype: str, layout, group: int = 0, columns: int = 37) -> Case:
    """Scales are powers of two, so that sums stay exact."""
    weight = np.clip(sparse(13, 24, 0.3), -8, 7)
    if not group:
        return stored_as(linear(weight, columns, 2, "scale and bias", layout), dtype, "float32", "float32")
    scales = 2.0 ** np.random.default_rng(0).integers(-3, 3, (-(-24 // group), 13)).astype(np.float32)
    dense = (weight * np.repeat(scales.T, group, axis=1)[:, :24]).astype(np.float32)
    case = linear(dense, columns, 2, "scale and bias", layout)
    case = stored_as(replace(case, arrays={**case.arrays, "W": weight}), dtype, "float32", "float32")
    product = replace(case.product, scales=Buffer("S", "float32", scales.shape), group=group)
    return replace(case, product=product, arrays={**case.arrays, "S": scales})


@pytest.mark.parametrize("group", [0, 8, 7])
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_means_the_same(layout, dtype, group):
    case = integers(dtype, layout, group)
    case.agrees(interpreted(trace(case).apply(case.product).kernel, case))


@pytest.mark.parametrize("group", [0, 8])
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["buckets of blocks in chunks and parts", "decoded in ragged blocks"])
def test_layouts_compile(name, dtype, group):
    check(integers(dtype, LAYOUTS[name], group))


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("layout", [CSR, dense_blocks(8)], ids=str)
def test_few_columns_compile(layout, columns):
    check(integers("int4", layout, 8, columns))


@pytest.mark.parametrize(("dtype", "share"), [("int8", 4), ("int4", 8)])
def test_bytes_shrink(dtype, share):
    case = linear(sparse(64, 96, 1.0), 37, 1, "none", dense_blocks(8))
    wide, narrow = (
        trace(each).apply(each.product).pack("W", each.arrays["W"].clip(-8, 7))["data"].nbytes
        for each in (case, stored_as(case, dtype, "float32", "float32"))
        if each
    )
    assert wide == share * narrow


def test_a_block_is_decoded_before_it_is_used():
    case = integers("int8", STAGED)
    assert "tile w: float32[12, 8]" in str(trace(case).apply(case.product).kernel)
