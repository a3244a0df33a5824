"""Attention in one kernel is what NumPy makes of two products and a softmax."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.attention import Attention, build_attention
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Const, Expr, Load
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, SUM, Product
from sparsec.ir.types import HALVES
from sparsec.schedules.rules.attention import has_schedule, schedule_attention
from sparsec.schedules.steps import Tile
from sparsec.targets import Target
from tests.ir.product_cases import NATIVE, Compiled

SCALE = 0.25


@dataclass(frozen=True)
class Sizes:
    batch: int
    keys: int
    depth: int
    rows: int
    queries: int


def product(names: str, sizes: Sizes, rows: int, depth: int, transposed: bool) -> Product:
    """W · X into Y of these three names, with what attention does to the scores and after the mix as epilogues."""
    weight, x, y = names
    columns, shape = sizes.queries, (depth, rows) if transposed else (rows, depth)
    epilogue: Expr = SUM * SCALE + Load("mask", (BATCH, ROW)) if transposed else SUM * Load("gate", (ROW,))
    operand = Buffer("mask", "float32", (sizes.batch, rows)) if transposed else Buffer("gate", "float32", (rows,))
    return Product(
        names,
        Buffer(weight, "float32", (sizes.batch, *shape)),
        Buffer(x, "float32", (sizes.batch, depth * columns)),
        Buffer(y, "float32", (sizes.batch, rows * columns)),
        (BATCH, DEPTH * columns + COLUMN),
        (BATCH, ROW * columns + COLUMN),
        sizes.batch,
        rows,
        depth,
        columns,
        (BATCH, DEPTH, ROW) if transposed else (BATCH, ROW, DEPTH),
        (operand,),
        epilogue,
    )


class Case:
    """Attention, its operands, and what NumPy makes of them."""

    def __init__(self, sizes: Sizes, masked: float = 0.3) -> None:
        rng = np.random.default_rng([sizes.keys, sizes.queries])
        scores = product("KQS", sizes, sizes.keys, sizes.depth, transposed=True)
        mix = product("VPY", sizes, sizes.rows, sizes.keys, transposed=False)
        self.op = Attention("attention", scores, mix)
        self.arrays = {
            buffer.name: rng.standard_normal([int(dim) for dim in buffer.shape]).astype(np.float32)
            for buffer in self.op.inputs
        }
        self.arrays["mask"][rng.random(self.arrays["mask"].shape) < masked] = -np.inf
        self.arrays["mask"][:, -1] = 0.5

    def store_as(self, half: str) -> None:
        """Take and give activations of half precision."""
        scores, mix = self.op.scores, self.op.mix
        scores, mix = (
            replace(p, **{name: replace(getattr(p, name), dtype=half) for name in ("weight", "x", "y")})
            for p in (scores, mix)
        )
        self.op = replace(self.op, scores=scores, mix=mix)
        self.arrays |= {name: self.arrays[name].astype(half) for name in "KQV"}

    @property
    def expected(self) -> np.ndarray:
        mix, arrays = self.op.mix, {name: array.astype(np.float64) for name, array in self.arrays.items()}
        x = arrays["Q"].reshape(len(arrays["Q"]), -1, int(mix.columns))
        scores = arrays["K"].transpose(0, 2, 1) @ x * SCALE + arrays["mask"][:, :, None]
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed = arrays["V"] @ (weights / weights.sum(axis=1, keepdims=True))
        return (mixed * arrays["gate"][:, None]).reshape(len(mixed), -1)

    def agrees(self, found: np.ndarray, rtol: float = 2e-5) -> None:
        np.testing.assert_allclose(found.astype(np.float32), self.expected, rtol=rtol, atol=rtol)

    def check(self, rtol: float = 2e-5) -> None:
        """Hold the interpreter and compiled code of the schedule against NumPy."""
        scheduled = schedule_attention(self.op, NATIVE)
        assert parse_kernel(str(scheduled.kernel)) == scheduled.kernel
        self.agrees(interpret(scheduled.kernel, self.arrays, {})["Y"], rtol)
        found = Compiled(scheduled.lowered, scheduled.func)(self.arrays, {"Y": self.expected.shape})
        self.agrees(found["Y"], rtol)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    sizes=st.builds(Sizes, *(st.integers(1, most) for most in (2, 9, 5, 7, 9))),
    widths=st.integers(1, 4),
    tile=st.integers(1, 4),
    stage=st.booleans(),
)
def test_any_tiling(sizes, widths, tile, stage):
    def cut(extent: int, size: int) -> tuple[int, ...]:
        return tuple(part for part in (size if extent >= size else 0, extent % size) if part)

    case = Case(sizes)
    tiling = Tile(cut(sizes.queries, widths), cut(sizes.keys, tile), stage).tiling(sizes.queries, sizes.keys)
    rows = Tile(cut(sizes.queries, widths), cut(sizes.rows, tile)).tiling(sizes.queries, sizes.rows).rows
    kernel = build_attention(case.op, tiling, rows)
    assert parse_kernel(str(kernel)) == kernel
    case.agrees(interpret(kernel, case.arrays, {})["Y"])


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(3, 5, 64, 64, 16),
        Sizes(2, 37, 13, 11, 37),
        Sizes(1, 129, 64, 64, 136),
        Sizes(2, 64, 8, 3, 200),
        Sizes(1, 1, 1, 1, 17),
    ],
    ids=str,
)
def test_compiled(sizes):
    Case(sizes).check()


@pytest.mark.parametrize("half", HALVES)
def test_halves_are_rounded_once(half):
    case = Case(Sizes(2, 21, 16, 9, 40))
    case.store_as(half)
    case.check(rtol=2e-3 if half == "float16" else 2e-2)


def test_a_query_without_keys_is_nan():
    case = Case(Sizes(2, 7, 4, 3, 16))
    case.arrays["mask"][1] = -np.inf
    assert np.isnan(case.expected[1]).all() and not np.isnan(case.expected[0]).any()
    case.check()


def test_large_scores_do_not_overflow():
    case = Case(Sizes(1, 7, 4, 3, 16), masked=0)
    case.arrays["mask"] += 1e4
    case.check(rtol=5e-3)  # the scores have four digits after the point


def test_an_operand_like_the_scores_is_read_where_they_are():
    case = Case(Sizes(2, 9, 4, 3, 24))
    scores = case.op.scores
    bias = Buffer("mask", "float32", scores.y.shape)
    epilogue = SUM * SCALE + Load("mask", scores.y_index) + Const(1.0)
    case.op = replace(case.op, scores=replace(scores, operands=(bias,), epilogue=epilogue))
    case.arrays["mask"] = np.repeat(case.arrays["mask"], 24, axis=1)
    scheduled = schedule_attention(case.op, NATIVE)
    found = Compiled(scheduled.lowered, scheduled.func)(case.arrays, {"Y": (2, 3 * 24)})["Y"]
    case.arrays["mask"] = case.arrays["mask"][:, ::24]
    case.agrees(found)


@pytest.mark.parametrize("target", ["x86-64-v3", "znver4", "armv8.6"])
def test_every_target_has_a_schedule_if_its_caches_hold_a_panel(target):
    target = Target.parse(target)
    case = Case(Sizes(1, 33, 8, 8, 40))
    case.agrees(interpret(schedule_attention(case.op, target).kernel, case.arrays, {})["Y"])
    assert has_schedule(case.op, target)
    assert not has_schedule(case.op, replace(target, l2_bytes=1024))
    assert not has_schedule(Case(Sizes(1, 33, 8, 8, 1)).op, target)
