"""Kernels whose entries are spelled out: what they print as, what they compute, and which layouts can be."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from sparsec.errors import KernelError, LayoutError
from sparsec.ir.lower import lower
from sparsec.ir.named import CSR, dense_blocks
from sparsec.ir.notation import parse_layout, parse_storage
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product import BATCH, COLUMN, ROW
from sparsec.ir.spelled_term import split_epilogue
from sparsec.schedules.steps import Tile
from sparsec.schedules.trace import Trace
from tests.ir.product_cases import EPILOGUES, Case, Compiled, interpreted, linear, sparse
from tests.ir.spelled_cases import AVX512, DEPTH, LAYOUTS, ROWS, SPELL, cut, looped_trace, on_images, spelled_trace


def check(case: Case, trace: Trace) -> None:
    """Hold the interpreter and loops, on a target without the instruction, against NumPy."""
    kernel = trace.tensorized(case.product)
    assert parse_kernel(str(kernel)) == kernel
    case.agrees(interpreted(kernel, case))
    scheduled = trace.apply(case.product, features=())
    assert not scheduled.lowered.codes
    Compiled(scheduled.lowered, scheduled.func).agrees(case)


# -- text ----------------------------------------------------------------------------------------------------------

WHOLE = """
kernel linear(W: float32[8, 6] @ "(i, k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : compressed)",
              X: float32[1, 240], bias: float32[8]) -> Y: float32[1, 320]:
    for b in range(0, 1), m in range(0, 40, 40), p0 in W[0] parallel:
        tile acc: float32[4, 48]:
            for r in range(0, 4):
                for n in range(0, 2), v in range(0, 16):
                    acc[r, n * 16 + v] = bias[p0 * 4 + r]
            for n in range(0, 2), p1 in W[1], p2 in W[2], v in range(0, 16) as x86.fragments.512:
                acc[p2, n * 16 + v] += W * X[b, W.k * 40 + (m + (n * 16 + v))]
            for r in range(0, 4):
                for n in range(0, 2), v in range(0, 16):
                    Y[b, (p0 * 4 + r) * 40 + (m + (n * 16 + v))] = max(acc[r, n * 16 + v], 0.0)
            for r in range(0, 4):
                for v in range(0, 16):
                    acc[r, v + 32] = bias[p0 * 4 + r]
            for p1 in W[1], p2 in W[2], v in range(0, 16) as x86.fragments.512:
                acc[p2, v + 32] += W * X[b, W.k * 40 + (m + (v + 24))]
            for r in range(0, 4):
                for v in range(8, 16):
                    Y[b, (p0 * 4 + r) * 40 + (m + (v + 24))] = max(acc[r, v + 32], 0.0)
"""

BY_LOOPS = """
kernel linear(W: float32[7, 6] @ "(i, k) -> (k floordiv 4 : dense, i floordiv 4 : dense, k mod 4 : compressed, i mod 4 : compressed)",
              X: float32[1, 96], scale: float32[1], bias: float32[7]) -> Y: float32[1, 112]:
    for b in range(0, 1), m in range(0, 16, 16) parallel:
        for p0 in W[0]:
            tile part: float32[80]:
                for k in range(0, 4):
                    for v in range(0, 16):
                        part[k * 16 + v] = X[b, min(p0 * 4 + k, 5) * 16 + (m + v)]
                for p1 in W[1]:
                    tile acc: float32[4, 16]:
                        for r in range(0, 4), v in range(0, 16):
                            acc[r, v] = 0.0
                        for p2 in W[2], p3 in W[3], v in range(0, 16) as x86.fragments.512:
                            acc[p3, v] += W * part[p2 * 16 + v]
                        for r in range(0, 4):
                            if p1 * 4 + r < 7:
                                tile sums: float32[16]:
                                    for v in range(0, 16):
                                        sums[v] = acc[r, v] + select(p0 == 0, 0.0, Y[b, (p1 * 4 + r) * 16 + (m + v)])
                                    for v in range(0, 16):
                                        Y[b, (p1 * 4 + r) * 16 + (m + v)] = select(p0 == 1, sums[v] * scale[0] + bias[p1 * 4 + r], sums[v])
"""  # noqa: E501


def test_fragments_start_sums_from_the_epilogue_and_limit_them() -> None:
    """Panels of whole vectors are one nest, and one that ends with the columns stores what no other has."""
    case = linear(sparse(8, 6, 0.5), 40, 1, "bias and relu", cut(4, rows=8, depth=6))
    assert str(spelled_trace(case).tensorized(case.product)).strip() == WHOLE.strip()


def test_loops_finish_what_fragments_can_not() -> None:
    """Sums rest in Y between parts of the depth; of X no row behind the last one is copied."""
    case = linear(sparse(7, 6, 0.5), 16, 1, "scale and bias", cut(4, part=4, rows=7, depth=6))
    assert str(spelled_trace(case, stage=True).tensorized(case.product)).strip() == BY_LOOPS.strip()


# -- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("stage", [False, True])
def test_every_epilogue(epilogue: str, stage: bool) -> None:
    layout = LAYOUTS["ragged blocks in ragged parts"]
    case = linear(sparse(ROWS, DEPTH, 0.2), 37, 2, epilogue, layout)
    check(case, looped_trace(case, stage=stage))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("stage", [False, True])
@pytest.mark.parametrize("epilogue", ["bias and relu", "scale and bias"])
def test_every_way_to_cut(name: str, stage: bool, epilogue: str) -> None:
    case = linear(sparse(ROWS, DEPTH, 0.2), 40, 2, epilogue, LAYOUTS[name])
    check(case, spelled_trace(case, stage=stage))


@pytest.mark.parametrize("columns", [16, 17, 31, 32, 100])
@pytest.mark.parametrize("stage", [False, True])
def test_any_number_of_columns_that_is_a_vector_or_more(columns: int, stage: bool) -> None:
    case = linear(sparse(ROWS, DEPTH, 0.2), columns, 2, "residual, bias and limits", LAYOUTS["parts"])
    for width in (32, 64):
        if columns % width == 0 or columns <= width or columns % width >= 16:
            check(case, looped_trace(case, width, stage))


@pytest.mark.parametrize("name", ["ragged blocks", "ragged blocks in ragged parts"])
@pytest.mark.parametrize("epilogue", ["bias and relu", "scale and bias"])
def test_images_with_columns_that_are_not_theirs(name: str, epilogue: str) -> None:
    case = on_images(linear(sparse(ROWS, DEPTH, 0.2), 40, 2, epilogue, LAYOUTS[name]))
    check(case, looped_trace(case))
    check(case, looped_trace(case, 24, stage=True))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything(density: float) -> None:
    weight = sparse(ROWS, DEPTH, density) + np.float32(density) * 20
    case = linear(weight, 33, 1, "bias and relu", LAYOUTS["ragged blocks in ragged parts"])
    check(case, looped_trace(case))


# -- who finishes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_lowering_finds_fragments_to_finish_what_the_kernel_leaves_to_them(epilogue: str) -> None:
    case = linear(sparse(ROWS, DEPTH, 0.2), 37, 1, epilogue, LAYOUTS["ragged blocks in ragged parts"])
    scheduled = spelled_trace(case).apply(case.product, AVX512.emits)
    assert (scheduled.lowered.codes["W"].frame.ends is not None) == (split_epilogue(case.product) is not None)


def test_loops_finish_rows_that_are_in_another_order() -> None:
    """Though the first rows of each block are at one distance."""
    case = linear(sparse(25, DEPTH, 0.2), 16, layout=cut(5, rows=25))
    case = replace(
        case,
        product=replace(case.product, y_index=(BATCH, (ROW + 13) % 25 * 16 + COLUMN)),
        expected=np.roll(case.expected.reshape(25, 16), 13, axis=0).reshape(1, -1),
    )
    assert split_epilogue(case.product) is None
    assert spelled_trace(case).apply(case.product, AVX512.emits).lowered.codes["W"].frame.ends is None
    check(case, spelled_trace(case))


def test_panels_that_start_sums_in_other_blocks_are_refused() -> None:
    """They share the code of their entries."""
    case = linear(sparse(ROWS, DEPTH, 0.2), 40, layout=LAYOUTS["parts"])
    text = str(spelled_trace(case).tensorized(case.product))
    assert text.count("select(p0 == 0, ") == 2
    lower(parse_kernel(text), AVX512.emits)
    changed = "select(p0 == 1, ".join(text.rsplit("select(p0 == 0, ", 1))
    with pytest.raises(KernelError, match="because another nest over the operand has other code"):
        lower(parse_kernel(changed), AVX512.emits)


# -- what cannot be spelled out ------------------------------------------------------------------------------------

REFUSED = {
    "compressed rows": CSR,
    "compressed columns of whole rows": parse_layout("(i, k) -> (k : compressed, i : dense)"),
    "dense blocks": dense_blocks(4),
    "blocks of single rows": cut(1, rows=8, depth=6),
    "columns inside of rows": parse_layout("(i, k) -> (i : compressed, k : compressed)"),
    "blocks found by a compressed level": parse_layout(
        "(i, k) -> (i floordiv 4 : compressed, k : compressed, i mod 4 : compressed)"
    ),
    "rows that are not next to each other": parse_layout(
        "(i, k) -> (i mod 2 : dense, k : compressed, i floordiv 2 : compressed)"
    ),
    "runs of rows": parse_layout("(i, k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : compressed[2])"),
    "rows in another order": parse_layout(
        "(i : balance[4, 1], k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : compressed)"
    ),
    "a depth in another order": parse_layout(
        "(i, k : balance[4, 1]) -> (i floordiv 4 : dense, k : compressed, i mod 4 : compressed)"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_layouts_are_refused(name: str) -> None:
    case = linear(sparse(8, 6, 0.5), 16, layout=REFUSED[name])
    with pytest.raises(LayoutError, match=re.escape(f"the entries of {REFUSED[name]} cannot be spelled out; store")):
        looped_trace(case).tensorized(case.product)


def test_rows_that_are_found_in_columns_are_one_block() -> None:
    layout = parse_layout("(i, k) -> (k : compressed, i : compressed)")
    check(linear(sparse(8, 6, 0.5), 16, 1, "bias and relu", layout), Trace((Tile((16,), spelled=16), SPELL)))


def test_terms_of_a_sum_are_refused() -> None:
    layout = parse_storage(f"{cut(4, rows=8, depth=6)} + {CSR}")
    case = linear(sparse(8, 6, 0.5), 16, layout=layout)
    with pytest.raises(LayoutError, match="cannot be spelled out: its weight is a sum of layouts"):
        looped_trace(case).tensorized(case.product)


def test_tiles_narrower_than_a_vector_are_refused() -> None:
    case = linear(sparse(8, 6, 0.5), 24, layout=cut(4, rows=8, depth=6))
    with pytest.raises(LayoutError, match="tiles of 8 columns are narrower than panels of 16"):
        Trace((Tile((16, 8), spelled=16), SPELL)).tensorized(case.product)
