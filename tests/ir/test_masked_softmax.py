"""The softmax over the entries of a pattern is what NumPy computes, over every layout that a pattern can take."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer
from sparsec.ir.layout import Layout
from sparsec.ir.masked_softmax import MaskedSoftmax, build_masked_softmax
from sparsec.ir.parser import parse_kernel
from sparsec.ir.types import HALVES, lowest
from sparsec.schedules.rules.masked_attention import schedule_softmax
from tests.ir.compiled_once import compiled_once
from tests.ir.layout_strategies import layouts
from tests.ir.product_cases import NATIVE, Compiled, integers
from tests.ir.sddmm_cases import PATTERNS, pattern
from tests.ir.test_sddmm import LAYOUTS

LOWEST = np.finfo(np.float32).min


class Case:
    """Scores where a layout stores them, −∞ where it stores no entry, and what NumPy makes of them."""

    def __init__(self, mask: np.ndarray, layout: Layout, batch: int = 1) -> None:
        self.packed = layout.pack(mask)
        stored = self.packed.arrays["data"].size
        (rows, columns), position = self.packed.entries()
        self.scores = np.full((batch, stored), -np.inf, np.float32)
        full = np.where(mask, integers(batch, *mask.shape), -np.inf)
        self.scores[:, position] = full[:, rows, columns]
        top = np.maximum(full.max(axis=2), LOWEST)
        exp = np.exp(full - top[..., None])
        weights = np.zeros((batch, stored))
        weights[:, position] = exp[:, rows, columns]
        self.expected = {"E": weights, "top": top, "total": exp.sum(axis=2)}
        buffers = [Buffer(name, "float32", (batch, "stored")) for name in ("S", "E")]
        buffers += [Buffer(name, "float32", (batch, len(mask))) for name in ("top", "total")]
        self.op = MaskedSoftmax("masked_softmax", Buffer("P", "uint8", mask.shape, layout), *buffers, batch)

    def store_as(self, half: str) -> None:
        """Take scores, and make results, of half precision."""
        names = ("scores", "weights", "top", "total")
        self.op = replace(self.op, **{name: replace(getattr(self.op, name), dtype=half) for name in names})
        self.scores = self.scores.astype(half)

    def agrees(self, found: dict[str, np.ndarray]) -> None:
        _, position = self.packed.entries()
        for name, array in self.expected.items():
            kept = (slice(None), position) if name == "E" else slice(None)
            given, wanted = (part[kept].astype(np.float32) for part in (found[name], array))
            np.testing.assert_allclose(given, wanted, rtol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    layout=layouts(2).filter(lambda layout: len(layout.dims) == 2),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from(PATTERNS),
)
def test_any_layout(layout, shape, kind):
    case = Case(pattern(kind, *shape), layout)
    kernel = build_masked_softmax(case.op)
    assert parse_kernel(str(kernel)) == kernel
    arrays = {"P": case.packed, "S": case.scores}
    case.agrees(interpret(kernel, arrays, {"stored": case.scores.shape[1]}))


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_compiled(layout, kind):
    case = Case(pattern(kind, 37, 45), layout, batch=2)
    if not case.scores.size:
        return  # there is nothing to compile for
    scheduled = schedule_softmax(case.op, NATIVE)
    shapes = {name: array.shape for name, array in case.expected.items()}
    mask = case.packed.unpack()
    case.agrees(compiled_once(scheduled)({"P": mask, "S": case.scores}, shapes))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", ["compressed rows", "compressed columns", "blocks of 4 x 8"])
def test_totals_of_halves_are_rounded_once(name, half):
    """2049 is no float16 and 257 no bfloat16, so that neither can count further by adding 1."""
    mask = np.ones((5, 2060 if half == "float16" else 260), np.uint8)
    mask[2, 100:] = mask[3] = 0
    case = Case(mask, LAYOUTS[name])
    case.scores[case.scores != -np.inf] = 2
    case.expected = {"E": case.scores == 2, "top": np.where(mask.any(axis=1), 2, lowest(half))[None]}
    case.expected["total"] = mask.sum(axis=1)[None]
    case.expected = {name: array.astype(np.float32).astype(half) for name, array in case.expected.items()}
    case.store_as(half)
    scheduled = schedule_softmax(case.op, NATIVE)
    shapes = {name: array.shape for name, array in case.expected.items()}
    for found in (
        interpret(scheduled.kernel, {"P": case.packed, "S": case.scores}, {"stored": case.scores.shape[1]}),
        Compiled(scheduled.lowered, scheduled.func)({"P": mask, "S": case.scores}, shapes),
    ):
        case.agrees(found)
