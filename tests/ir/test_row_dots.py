"""Products whose vectors of sums are rows of the weight compute what NumPy does, for any columns, lines and rows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.steps import Tile
from tests.ir.dot_cases import EPILOGUES, WAYS, dotted, sparse_numbers, trace_of
from tests.ir.product_cases import Compiled, interpreted
from tests.ir.test_dots import layout_of

WAY = WAYS["vpdpbusd"]


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    rows=st.sampled_from([3, 16, 20]),
    depth=st.integers(1, 9),
    columns=st.sampled_from([16, 17, 37, 49]),
    parts=st.sampled_from([1, 2]),
    pixels=st.integers(2, 8),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    edges=st.booleans(),
)
def test_the_interpreter_agrees_with_numpy(rows, depth, columns, parts, pixels, epilogue, edges):
    width = max(16, -(-columns // parts))
    case = dotted(sparse_numbers(rows, depth, 0.7), columns, layout_of("panels", 16, 4), epilogue=epilogue, edges=edges)
    tiling = Tile((width,), (), True, dots=(1, 16, 64, pixels)).tiling(columns, rows)
    case.agrees(interpreted(build_kernel(case.product, tiling), case))


@pytest.mark.parametrize(("columns", "pixels", "epilogue", "edges"), [(49, 7, "bytes", False), (40, 6, "sums", True)])
def test_compiled_code_agrees_with_numpy(columns, pixels, epilogue, edges):
    case = dotted(
        sparse_numbers(40, 21, 0.7), columns, layout_of("panels", 32, 4), epilogue=epilogue, edges=edges, batch=2
    )
    tile = Tile((columns,), (), True, dots=(1, 16, 64, pixels))
    found = trace_of(WAY, case, tile).apply(case.product, WAY.target.emits if WAY.runs_here else ())
    assert WAY.instruction in str(found.kernel)
    Compiled(found.lowered, found.func).agrees(case)
