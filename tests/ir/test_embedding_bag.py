"""Embedding bags are sums of rows, over every layout of the table that tells where a row is."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.embedding_bag import EmbeddingBag, build_embedding_bag, objection_to_rows
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Kernel
from sparsec.ir.layout import Layout
from sparsec.ir.named import BITMAP, COO, CSC, CSR, DENSE, bsr, n_of_m, row_vectors
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.types import HALVES
from sparsec.schedules.rules.embedding_bag import schedule_embedding_bag
from tests.ir.layout_strategies import layouts
from tests.ir.product_cases import NATIVE, Compiled, integers, sparse

LAYOUTS = {
    "dense": DENSE,
    "compressed rows": CSR,
    "blocks": bsr(4, 16),
    "row vectors": row_vectors(4),
    "column vectors": parse_layout("(i, k) -> (i : dense, k floordiv 8 : compressed, k mod 8 : dense)"),
    "bitmap": BITMAP,
    "2:4": n_of_m(2, 4),
    "columns in blocks": parse_layout("(i, k) -> (k floordiv 16 : dense, i : dense, k mod 16 : compressed)"),
}
OFFSETS = np.int64([0, 0, 3, 8, 8, 20])  # two of the bags are empty


class Case:
    """A table, bags of its rows, and what they sum to."""

    def __init__(
        self, table: np.ndarray, layout: Layout, bags: str, mean: bool = False, weighted: bool = False
    ) -> None:
        rows, columns = table.shape
        count = 20
        ids = np.random.default_rng(0).integers(0, rows, count)
        weights = integers(count, seed=4) if weighted else None
        offsets = OFFSETS if bags == "offsets" else np.arange(0, count, 5)
        picked = table[ids] * (1 if weights is None else weights[:, None])
        sums = np.stack([part.sum(axis=0) for part in np.split(picked, offsets[1:])])
        sizes = np.diff(offsets, append=count)
        self.expected = sums / np.maximum(sizes, 1)[:, None] if mean else sums
        self.arrays = {"W": table, "ids": ids}
        if bags == "offsets":
            self.arrays["offsets"] = offsets
        if weights is not None:
            self.arrays["weights"] = weights
        self.op = EmbeddingBag(
            "embedding_bag",
            Buffer("W", "float32", table.shape, layout),
            Buffer("ids", "int64", ("count",)),
            Buffer("Y", "float32", ("bags", columns)),
            Buffer("offsets", "int64", ("bags",)) if bags == "offsets" else None,
            Buffer("weights", "float32", ("count",)) if weighted else None,
            0 if bags == "offsets" else 5,
            mean,
        )

    def agrees(self, found: np.ndarray) -> None:
        found, expected = (np.asarray(array, np.float32) for array in (found, self.expected))
        np.testing.assert_allclose(found, expected, rtol=1e-6 if self.op.mean else 0)

    def interpret(self, kernel: Kernel) -> None:
        self.agrees(interpret(kernel, self.arrays, {"bags": len(self.expected)})["Y"])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    layout=layouts(2).filter(lambda layout: len(layout.dims) == 2),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    bags=st.sampled_from(["offsets", "equal"]),
    mean=st.booleans(),
)
def test_any_layout(layout, shape, density, bags, mean):
    case = Case(sparse(*shape, density), layout, bags, mean)
    if objection_to_rows(layout):
        with pytest.raises(LayoutError, match="embeddings cannot be taken from"):
            build_embedding_bag(case.op)
        return
    kernel = build_embedding_bag(case.op)
    assert parse_kernel(str(kernel)) == kernel
    with suppress(LayoutError):  # a drawn level need not hold the table
        case.interpret(kernel)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    ("bags", "mean", "weighted"), [("offsets", False, True), ("equal", False, False), ("offsets", True, False)]
)
def test_compiled(layout, bags, mean, weighted):
    table = sparse(30, 37, 0.3)
    if layout == n_of_m(2, 4):
        table[:, np.arange(37) % 4 > 1] = 0
    case = Case(table, layout, bags, mean, weighted)
    scheduled = schedule_embedding_bag(case.op, NATIVE)
    compiled = Compiled(scheduled.lowered, scheduled.func)
    case.agrees(compiled(case.arrays, {"Y": case.expected.shape})["Y"])


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("layout", [DENSE, CSR], ids=str)
def test_numbers_of_no_row_stay_in_the_table(layout, wrap):
    case = Case(sparse(7, 16, 0.5), layout, "equal")
    far = [2**31, 2**32 + 1, 2**63 - 1]
    ids = np.int64([-1, 8, 2**31 - 1, -(2**31), 3, *far, *(-number for number in far), 5, 0, 7, 9, -8, 6, 1, 2, 4])
    case.arrays["ids"] = ids
    rows = ids % 7 if wrap else np.clip(ids, 0, 6)
    case.expected = np.stack([case.arrays["W"][part].sum(axis=0) for part in np.split(rows, 4)])
    case.op = replace(case.op, wrap=wrap)
    scheduled = schedule_embedding_bag(case.op, NATIVE)
    case.interpret(scheduled.kernel)
    case.agrees(Compiled(scheduled.lowered, scheduled.func)(case.arrays, {"Y": (4, 16)})["Y"])


OUTSIDE = {
    "behind": [0, 5000, 21, 2**31, 2**32 + 1],
    "before": [-1000, 2, -1, -(2**31), -(2**32) - 3],
    "descending": [18, 11, 11, 3, 0],
    "everywhere": [2**63 - 1, -(2**63), 20, 7, -5],
}


@pytest.mark.parametrize("offsets", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("layout", [DENSE, CSR], ids=str)
def test_bags_stay_in_the_numbers(layout, offsets):
    case = Case(sparse(8, 16, 0.5), layout, "offsets", weighted=True)
    case.arrays["offsets"] = np.int64(offsets)
    picked = case.arrays["W"][case.arrays["ids"]] * case.arrays["weights"][:, None]
    starts = [*np.clip(case.arrays["offsets"], 0, 20), 20]
    case.expected = np.stack([picked[starts[n] : starts[n + 1]].sum(axis=0) for n in range(5)])
    scheduled = schedule_embedding_bag(case.op, NATIVE)
    case.interpret(scheduled.kernel)
    case.agrees(Compiled(scheduled.lowered, scheduled.func)(case.arrays, {"Y": (5, 16)})["Y"])


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("layout", [DENSE, CSR, row_vectors(4)], ids=str)
def test_sums_of_halves_are_rounded_once(layout, half):
    """The table fits both types, but what its rows add up to on the way does not."""
    case = Case(15 * sparse(30, 37, 0.8), layout, "offsets", weighted=True)
    buffers = {name: replace(getattr(case.op, name), dtype=half) for name in ("table", "y", "weights")}
    case.op = replace(case.op, **buffers)
    case.arrays |= {name: case.arrays[name].astype(half) for name in ("W", "weights")}
    case.expected = case.expected.astype(half)
    scheduled = schedule_embedding_bag(case.op, NATIVE)
    case.interpret(scheduled.kernel)
    case.agrees(Compiled(scheduled.lowered, scheduled.func)(case.arrays, {"Y": case.expected.shape})["Y"])


@pytest.mark.parametrize("layout", [COO, CSC], ids=str)
def test_rows_that_cannot_be_found(layout):
    with pytest.raises(LayoutError, match=r"the level i : compressed.* must be searched for a row"):
        build_embedding_bag(Case(sparse(8, 16, 0.5), layout, "equal").op)
