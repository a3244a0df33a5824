"""Sampled products with operands, and the three ways to compute them: NumPy, the interpreter and compiled code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Kernel, Var
from sparsec.ir.layout import Layout
from sparsec.ir.sddmm import SDDMM, SDDMMTiling, build_sddmm, vector_axis
from sparsec.schedules.rules.sddmm import schedule_sddmm
from sparsec.schedules.trace import Scheduled
from tests.ir.compiled_once import compiled_once
from tests.ir.product_cases import NATIVE, integers

PATTERNS = ("random", "empty", "full", "one entry", "empty and full blocks")


def pattern(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """A mask of a kind, uint8."""
    random = np.random.default_rng([seed, rows, columns])
    mask = np.zeros((rows, columns), np.uint8)
    if kind == "random":
        mask[random.random(mask.shape) < 0.3] = 1
    elif kind == "full":
        mask[:] = 1
    elif kind == "one entry":
        mask[random.integers(rows), random.integers(columns)] = 1
    elif kind == "empty and full blocks":
        mask[: rows // 2, : columns // 2] = mask[-1:, -3:] = 1
    return mask


@dataclass(frozen=True)
class Case:
    """An operator, its operands by buffer, and its outputs."""

    op: SDDMM
    arrays: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]

    def agrees(self, found: Mapping[str, np.ndarray]) -> None:
        for name, array in self.expected.items():
            np.testing.assert_array_equal(found[name], array)


def sddmm(mask: np.ndarray, depth: int, layout: Layout, batch: int = 1) -> Case:
    """A · B at the entries of a mask, stored so that the vectors of the layout's schedule are contiguous."""
    rows, columns = mask.shape
    a, b = integers(batch, rows, depth, seed=1), integers(batch, depth, columns, seed=2)
    packed = layout.pack(mask)
    coordinates, position = packed.entries()
    expected = np.zeros((batch, packed.arrays["data"].size), np.float32)
    expected[:, position] = ((a @ b) * mask)[:, coordinates[0], coordinates[1]]

    i, j, k, n = Var("i"), Var("j"), Var("k"), Var("b")
    op = SDDMM(
        "sddmm",
        Buffer("P", "uint8", mask.shape, layout),
        Buffer("A", "float32", a.shape),
        Buffer("B", "float32", b.shape),
        Buffer("Y", "float32", (batch, "stored")),
        (n, i, k),
        (n, k, j),
        batch,
        depth,
        elsewhere=None if packed.arrays["data"].all() else 0.0,
    )
    if vector_axis(layout, mask.shape) == "k":
        b = np.ascontiguousarray(b.transpose(0, 2, 1))
        op = replace(op, b=Buffer("B", "float32", b.shape), b_index=(n, j, k))
    elif vector_axis(layout, mask.shape) == "i":
        a = np.ascontiguousarray(a.transpose(0, 2, 1))
        op = replace(op, a=Buffer("A", "float32", a.shape), a_index=(n, k, i))
    return Case(op, {"P": mask, "A": a, "B": b}, {"Y": expected})


def stored_as(case: Case, dtype: str) -> Case:
    """Store the pattern and all operands in one type of half precision; the exact sums are rounded once."""
    op = replace(case.op, **{name: replace(getattr(case.op, name), dtype=dtype) for name in ("pattern", "a", "b", "y")})
    arrays = {name: array.astype(dtype) for name, array in case.arrays.items()}
    return Case(op, arrays, {name: array.astype(dtype) for name, array in case.expected.items()})


def interpreted(kernel: Kernel, case: Case) -> dict[str, np.ndarray]:
    stored = {"stored": case.expected["Y"].shape[1]}
    packed = {"P": case.op.layout.pack(case.arrays["P"])}
    return interpret(kernel, case.arrays | packed, stored)


def check(case: Case) -> Scheduled:
    """Hold compiled code against NumPy."""
    scheduled = schedule_sddmm(case.op, NATIVE)
    if not case.expected["Y"].size:
        return scheduled  # a plan calls nothing that makes no element
    case.agrees(compiled_once(scheduled)(case.arrays, {name: array.shape for name, array in case.expected.items()}))
    return scheduled


def run(case: Case, tiling: SDDMMTiling) -> None:
    """Hold the interpreter against NumPy."""
    case.agrees(interpreted(build_sddmm(case.op, tiling), case))
