"""Kernels that walk a level by its runs, and the places of a run, mean what walking it as a whole means."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import KernelError
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import For, Kernel, Walk
from sparsec.ir.lower import lower
from sparsec.ir.parser import parse_kernel
from sparsec.ir.verifier import verify
from tests.ir.product_cases import Compiled

KERNEL = """\
kernel f(W: int8[5, 9] @ "(i, k) -> (i floordiv 2 : dense, k : compressed[4], i mod 2 : dense)",
         X: int8[9, 3]) -> Y: int32[6, 3], count: int32[3]:
    for p0 in W[0], p2 in W[2], m in range(0, 3):
        Y[p0 * 2 + p2, m] = 0
    for p0 in W[0]:
        count[p0] = 0
        for g in W[1] runs:
            count[p0] += 1
            for l in W[1] run, p2 in W[2], m in range(0, 3):
                Y[W.i, m] += W * X[W.k, m]
"""

INVALID = [
    ("g in W[1] runs", "g in W[2] runs", 7, "level 2 of W stores no runs; walk it as a whole"),
    ("l in W[1] run", "l in W[0] run", 9, "level 0 of W is already walked by a loop around this one"),
    ("g in W[1] runs", "g in W[1] run", 7, "a run of level 1 of W is walked inside a loop over its runs only"),
    ("g in W[1] runs", "g in X[1] runs", 7, "X has no layout"),
    ("g in W[1] runs", "g in W[3] runs", 7, "W has the levels 0 to 2"),
    ("g in W[1] runs", "g in W[1]", 9, "level 1 of W is already walked by a loop around this one"),
    ("l in W[1] run", "l in W[1]", 9, "level 1 of W is already walked by a loop around this one"),
    ("l in W[1] run", "l in W[1] runs", 9, "level 1 of W is already walked by a loop around this one"),
    ("l in W[1] run", "l in W[1] run, n in W[1] run", 9, "level 1 of W is already walked by a loop around this one"),
    ("g in W[1] runs:", "g in W[1] runs, h in W[1] runs:", 7, "level 1 of W is already walked by a loop around this"),
    ("g in W[1] runs", "g in W[1] at 1 runs", 7, "level 1 of W is not dense, so its coordinates must be searched for"),
    ("l in W[1] run", "l in W[1] at 2 run", 9, "level 1 of W is not dense, so its coordinates must be searched for"),
    ("for p0 in W[0]:\n", "for p0 in range(0, 3):\n", 7, "level 1 of W is walked before level 0; walk that one"),
    ("l in W[1] run, ", "", 10, "W has no value here, because its level 1 is not walked"),
    ("count[p0] += 1", "count[p0] += W", 8, "W has no value here, because its level 1 is not walked"),
    ("count[p0] += 1", "count[p0] += W.k", 8, "W.k is not known here, because level 1 is not walked"),
    ("count[p0] += 1", "count[p0] += l", 8, "l is not defined here"),
    ("g in W[1] runs:", "g in W[1] runs parallel:", 7, "a parallel nest cannot walk a sparse level, as g does"),
]


def test_what_is_parsed():
    kernel = parse_kernel(KERNEL)
    assert parse_kernel(str(kernel)) == kernel
    verify(kernel)
    (_, blocks) = kernel.body
    assert isinstance(blocks, For)
    runs = blocks.body[1]
    assert isinstance(runs, For) and runs.axes == (Walk("g", "W", 1, part="runs"),)
    inner = runs.body[1]
    assert isinstance(inner, For) and inner.axes[0] == Walk("l", "W", 1, part="run")


@pytest.mark.parametrize(("part", "other", "line", "message"), INVALID, ids=[other for _, other, _, _ in INVALID])
def test_what_does_not_verify(part, other, line, message):
    assert part in KERNEL
    with pytest.raises(KernelError) as caught:
        verify(parse_kernel(KERNEL.replace(part, other)))
    assert re.match(rf"Kernel f, line {line}, `", str(caught.value)), str(caught.value)
    assert message in str(caught.value)


# -- what they mean ------------------------------------------------------------------------------------------------

LAYOUTS = {
    "rows": "(i, k) -> (i : dense, k : compressed[{r}])",
    "blocks of rows": "(i, k) -> (i floordiv 2 : dense, k : compressed[{r}], i mod 2 : dense)",
    "buckets": "(i, k) -> (i : bucketed, k : compressed[{r}])",
    "buckets in chunks": "(i, k) -> (i floordiv 4 : dense, i mod 4 : bucketed, k : compressed[{r}])",
    "two digits below": (
        "(i, k) -> (i floordiv 4 : dense, k : compressed[{r}], i floordiv 2 mod 2 : dense, i mod 2 : dense)"
    ),
    "parts of the depth": "(i, k) -> (k floordiv 5 : dense, i : dense, k mod 5 : compressed[{r}])",
    "permuted rows": "(i : balance[2], k) -> (i : dense, k : compressed[{r}])",
}


def product(layout: str, shape: tuple[int, int], run_inside: bool, by_runs: bool = True) -> Kernel:
    """W · X; the places of a run are walked inside the rows of a block, or outside."""
    levels = layout.count(" : ") - layout.count("balance")
    sparse = next(n for n, level in enumerate(layout.split("-> (")[1].split(", ")) if "compressed" in level)
    outer = [f"p{n} in W[{n}]" for n in range(sparse)]
    inner = [f"p{n} in W[{n}]" for n in range(sparse + 1, levels)]
    run = [f"l in W[{sparse}] run"] if by_runs else []
    lanes = [*inner, *run] if run_inside else [*run, *inner]
    runs = f"g in W[{sparse}]{' runs' if by_runs else ''}"
    rows, depth = shape
    padded = rows + -rows % 4
    return parse_kernel(f"""\
kernel f(W: int8[{rows}, {depth}] @ "{layout}", X: int8[{depth}, 4]) -> Y: int32[{padded}, 4]:
    for i in range(0, {padded}), m in range(0, 4):
        Y[i, m] = 0
    for {", ".join(outer)}:
        for {runs}:
            for {", ".join([*lanes, "m in range(0, 4)"])}:
                Y[W.i, m] += W * X[W.k, m]
""")


def operands(shape: tuple[int, int], density: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng([*shape, int(100 * density)])
    weight, x = random.integers(-128, 128, shape, np.int8), random.integers(-128, 128, (shape[1], 4), np.int8)
    return {"W": weight * (random.random(shape) < density), "X": x}


def expected(arrays: dict[str, np.ndarray], rows: int) -> np.ndarray:
    found = arrays["W"].astype(np.int32) @ arrays["X"].astype(np.int32)
    return np.pad(found, ((0, rows - len(found)), (0, 0)))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.integers(2, 5),
    st.tuples(st.integers(1, 9), st.integers(1, 13)),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(),
)
def test_the_interpreter_agrees_with_numpy(name, r, shape, density, run_inside):
    kernel = product(LAYOUTS[name].format(r=r), shape, run_inside)
    assert parse_kernel(str(kernel)) == kernel
    arrays = operands(shape, density)
    found = interpret(kernel, arrays)["Y"]
    np.testing.assert_array_equal(found, expected(arrays, len(found)))


@pytest.mark.parametrize("by_runs", [True, False])
@pytest.mark.parametrize("name", LAYOUTS)
def test_lowered_loops_agree_with_numpy(name, by_runs):
    """Runs that are walked as a whole are, too, where every place of a run is a coordinate of its own."""
    for run_inside, density in ((False, 0.3), (True, 1.0))[: 2 if by_runs else 1]:
        shape = (7, 13)
        kernel = product(LAYOUTS[name].format(r=3), shape, run_inside, by_runs)
        lowered, arrays = lower(kernel), operands(shape, density)
        found = Compiled(lowered, lowered.func)(arrays, {"Y": (8, 4)})["Y"]
        np.testing.assert_array_equal(found, expected(arrays, 8))
        np.testing.assert_array_equal(found, interpret(kernel, arrays)["Y"])


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_runs_are_counted(density):
    kernel, arrays = parse_kernel(KERNEL), operands((5, 9), density)
    arrays["X"] = arrays["X"][:, :3]
    wanted = np.array([-(-(arrays["W"][p : p + 2] != 0).any(axis=0).sum() // 4) for p in (0, 2, 4)])
    lowered = lower(kernel)
    for found in (
        interpret(kernel, arrays),
        Compiled(lowered, lowered.func)(arrays, {"Y": (6, 3), "count": (3,)}),
    ):
        np.testing.assert_array_equal(found["count"], wanted)
        np.testing.assert_array_equal(found["Y"], expected(arrays, 6))
