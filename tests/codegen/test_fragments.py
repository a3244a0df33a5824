"""Machine code that is written for entries, in artifacts, gives the numbers of NumPy, bit for bit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.ir.kernel import Buffer, Load
from sparsec.ir.product import BATCH, COLUMN, ROW, SUM
from sparsec.schedules.rules.spelled import SpelledPrices
from sparsec.schedules.trace import Trace
from tests.codegen.spelled_library import UNTOUCHED, Cases, SpelledLibrary
from tests.ir.product_cases import EPILOGUES, NATIVE, Case, integers, linear, sparse
from tests.ir.spelled_cases import DEPTH, LAYOUTS, ROWS, cut, on_images, spelled_trace

pytestmark = pytest.mark.skipif(not NATIVE.has("avx512f"), reason="fragments need AVX-512, which this processor lacks")
ENTRIES = (1, 127, 128, 129, 255, 256, 257, 383, 384, 385, 700)  # values are found from addresses 256 apart


# -- cases ---------------------------------------------------------------------------------------------------------


def grid() -> Iterator[tuple[str, Case, Trace]]:
    """Every way to cut with each of two epilogues, and every epilogue with a way that cuts all."""
    cuts = [(name, stage, epilogue) for name in LAYOUTS for stage in (0, 1) for epilogue in (*EPILOGUES,)[1:3]]
    cuts += [("blocks in chunks and parts", stage, epilogue) for stage in (0, 1) for epilogue in EPILOGUES]
    for name, stage, epilogue in dict.fromkeys(cuts):
        case = linear(sparse(ROWS, DEPTH, 0.2), 37, 2, epilogue, LAYOUTS[name])
        yield f"{name}, {epilogue}{', X copied' * stage}", case, spelled_trace(case, stage=bool(stage))


def widths() -> Iterator[tuple[str, Case, Trace]]:
    """Tiles of several widths in one kernel, which share their code."""
    for columns, width, stage in product((16, 17, 48, 80, 100, 131), (32, 64), (False, True)):
        if columns <= width or columns % width == 0 or columns % width >= 16:
            case = linear(sparse(ROWS, DEPTH, 0.2), columns, 1, "residual, bias and limits", LAYOUTS["parts"])
            yield f"{columns} columns in {width}{', X copied' * stage}", case, spelled_trace(case, width, stage)


def entries() -> Iterator[tuple[str, Case, Trace]]:
    """Rows and blocks without entries, all entries, and so many in one fragment."""
    weights = {"no entries": np.zeros((ROWS, DEPTH), np.float32), "all entries": integers(ROWS, DEPTH) + 20}
    for name, (row, column) in {"the first": (0, 0), "the last": (-1, -1), "one": (7, 30)}.items():
        weights[f"{name} entry alone"] = np.zeros((ROWS, DEPTH), np.float32)
        weights[f"{name} entry alone"][row, column] = 3
    for name, rows in {"row": slice(6, 7), "block": slice(5, 10), "last block": slice(25, 26)}.items():
        weights[f"a {name} without entries"] = sparse(ROWS, DEPTH, 0.3)
        weights[f"a {name} without entries"][rows] = 0
    for name, part in {"first": slice(0, 16), "last": slice(32, 45)}.items():
        weights[f"the {name} part without entries"] = sparse(ROWS, DEPTH, 0.3)
        weights[f"the {name} part without entries"][:, part] = 0
    for name, weight in weights.items():
        case = linear(weight, 20, 1, "bias and relu", LAYOUTS["ragged blocks in ragged parts"])
        yield name, case, spelled_trace(case)
    for count in ENTRIES:
        weight = np.zeros(30 * 30, np.float32)
        weight[np.random.default_rng(count).permutation(900)[:count]] = np.arange(count) % 9 + 1
        case = linear(weight.reshape(30, 30), 32, 1, "bias and relu", cut(30, rows=30, depth=30))
        yield f"{count} entries in a fragment", case, spelled_trace(case)


def distances() -> Iterator[tuple[str, Case, Trace]]:
    """Rows of X in one line each, in several, and out of reach of a byte that counts lines."""
    for columns, depth, stage in ((16, 300, 0), (80, 100, 0), (1024, 45, 0), (1040, 23, 0), (37, 600, 0), (37, 600, 1)):
        part = -(-depth // 2) if stage else depth
        for density in (0.02, 0.3):
            case = linear(sparse(9, depth, density), columns, 1, "bias and relu", cut(9, 0, part, 9, depth))
            name = f"{depth} rows of {columns}{', X copied' * stage}, density {density}"
            yield name, case, spelled_trace(case, stage=bool(stage))


def images() -> Iterator[tuple[str, Case, Trace]]:
    for name, epilogue, stage in product(
        ("ragged blocks", "ragged blocks in ragged parts"), ("bias and relu", "scale and bias"), (False, True)
    ):
        case = on_images(linear(sparse(ROWS, DEPTH, 0.2), 40, 2, epilogue, LAYOUTS[name]))
        yield f"images, {name}, {epilogue}{', X copied' * stage}", case, spelled_trace(case, 24, stage)
    for valid in (False, True):
        plain = linear(sparse(ROWS, DEPTH, 0.2), 16, 1, "bias and relu", LAYOUTS["ragged blocks"])
        case = on_images(plain, blank=5, valid=valid)
        yield f"images with a blank of 5{', some columns blank' * valid}", case, spelled_trace(case)


def operands(columns: int) -> Iterator[tuple[str, Case, Trace]]:
    """What epilogues read, or where they write, is not at one distance from one row, or element, to the next."""
    rows, layout = ROWS, LAYOUTS["ragged blocks"]
    plain = linear(sparse(rows, DEPTH, 0.2), columns, layout=layout)
    i, m, wide = np.arange(rows)[:, None], np.arange(columns), 2 * columns
    at = {
        "a bias for every second row": ((2 * rows,), (ROW * 2,), 2 * i),
        "a bias that pairs of rows share": ((rows // 2,), (ROW // 2,), i // 2),
        "a bias from behind": ((rows,), (ROW * -1 + (rows - 1),), rows - 1 - i),
        "a residual with longer rows": ((rows * wide,), (ROW * wide + COLUMN,), i * wide + m),
        "a residual that pairs of rows share": ((rows * wide,), (ROW // 2 * wide + COLUMN,), i // 2 * wide + m),
        "a residual with gaps": ((rows * wide,), (ROW * wide + COLUMN + COLUMN // 4 * 4,), i * wide + m + m // 4 * 4),
    }
    for name, (shape, index, place) in at.items():
        array = integers(*shape, seed=5)
        extra, added = Buffer("extra", "float32", shape), SUM + Load("extra", index)
        expected = (plain.expected.reshape(rows, columns) + array[place]).reshape(1, -1)
        read = replace(plain.product, operands=(extra,), epilogue=added)
        case = replace(plain, product=read, arrays={**plain.arrays, "extra": array}, expected=expected)
        yield f"{name}, {columns} columns", case, spelled_trace(case)
    swapped = replace(plain.product, y_index=(BATCH, (ROW + 13) % rows * columns + COLUMN))
    expected = np.roll(plain.expected.reshape(rows, columns), 13, axis=0).reshape(1, -1)
    case = replace(plain, product=swapped, expected=expected)
    yield f"results in another order, {columns} columns", case, spelled_trace(case)
    half = replace(plain.product, y=replace(plain.product.y, dtype="float16"))
    case = replace(plain, product=half, expected=plain.expected.astype(np.float16))
    yield f"results in half precision, {columns} columns", case, spelled_trace(case)


def gaps() -> Iterator[tuple[str, Case, Trace]]:
    """Columns of Y that no product has stay as they were."""
    for columns in (16, 20, 37):
        case = linear(sparse(ROWS, DEPTH, 0.2), columns, 1, "bias and relu", LAYOUTS["ragged blocks in ragged parts"])
        plane = columns + 40
        expected = np.full((1, ROWS, plane), UNTOUCHED)
        expected[..., 20 : 20 + columns] = case.expected.reshape(1, ROWS, columns)
        y = Buffer("Y", "float32", (1, ROWS * plane))
        within = replace(case.product, y=y, y_index=(BATCH, ROW * plane + COLUMN + 20))
        case = replace(case, product=within, expected=expected.reshape(1, -1))
        yield f"gaps around {columns} columns", case, spelled_trace(case)


def no_numbers() -> Iterator[tuple[str, Case, Trace]]:
    """NaN and infinities in X, which reach the rows that have entries at their depth, in their own column."""
    weight = sparse(ROWS, DEPTH, 0.2)
    weight[3] = 0
    for stage, (name, epilogue) in product((False, True), {"sums": "none", "limited": "bias and relu"}.items()):
        case = linear(weight, 37, 1, epilogue, LAYOUTS["ragged blocks in ragged parts"])
        x = case.arrays["X"].reshape(DEPTH, 37).copy()
        x[4, 3], x[20, 17], x[20, 36], x[21, 36], x[44, 30] = np.nan, np.inf, np.inf, -np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            terms = np.where(weight[:, :, None] != 0, weight[:, :, None] * x, 0)
            bias = {key: case.arrays[key].reshape(-1, 1) for key in EPILOGUES[epilogue].reads}
            expected = EPILOGUES[epilogue].numpy(terms.sum(axis=1, dtype=np.float64), **bias).astype(np.float32)
        touched = np.isnan(expected) | np.isinf(expected)
        assert not touched[3].any() and set(np.flatnonzero(touched.any(axis=0))) <= {3, 17, 30, 36}
        case = replace(case, arrays={**case.arrays, "X": x.reshape(1, -1)}, expected=expected.reshape(1, -1))
        yield f"no numbers, {name}{', X copied' * stage}", case, spelled_trace(case, stage=stage)


def all_cases() -> Cases:
    made = (grid(), widths(), entries(), distances(), images(), operands(16), operands(40), gaps(), no_numbers())
    return {name: (case, trace) for cases in made for name, case, trace in cases}


CASES = all_cases() if NATIVE.has("avx512f") else {}


# -- numbers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> SpelledLibrary:
    return SpelledLibrary(CASES)


@pytest.fixture(scope="module")
def found(library: SpelledLibrary) -> dict[str, np.ndarray]:
    return library.run()


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_numpy(name: str, found: dict[str, np.ndarray]) -> None:
    CASES[name][0].agrees(found[name])


def test_two_threads_compute_the_same(library: SpelledLibrary, found: dict[str, np.ndarray]) -> None:
    for _ in range(3):
        for name, array in library.run(threads=2).items():
            np.testing.assert_array_equal(array, found[name], err_msg=name)


@st.composite
def products(draw: st.DrawFn) -> tuple[Case, Trace]:
    rows, depth = draw(st.integers(2, 70)), draw(st.integers(1, 80))
    columns, density = draw(st.integers(16, 150)), draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
    r = draw(st.integers(2, min(rows, 30)))
    chunk = r * draw(st.integers(1, 4)) * draw(st.booleans())
    part = draw(st.integers(min(2, depth), depth)) if draw(st.booleans()) else depth  # one deep is no block
    layout = cut(r, chunk if r < chunk < rows else 0, part, rows, depth)
    weight = sparse(rows, depth, density, draw(st.integers(0, 99)))
    case = linear(weight, columns, draw(st.integers(1, 2)), draw(st.sampled_from(sorted(EPILOGUES))), layout)
    if draw(st.booleans()):
        case = on_images(case, draw(st.sampled_from([8, 16])), draw(st.sampled_from([8, 24])))
    widths = [w for w in (16, 32, 64, 128) if columns <= w or columns % w == 0 or columns % w >= 16]
    return case, spelled_trace(case, draw(st.sampled_from(widths or [columns])), draw(st.booleans()))


@settings(deadline=None, derandomize=True, max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(products(), min_size=8, max_size=16))
def test_any_products(drawn: list[tuple[Case, Trace]]) -> None:
    """Several at a time, since to link a library takes longer than a product."""
    library = SpelledLibrary({f"{n}: {case.product.layout}": (case, trace) for n, (case, trace) in enumerate(drawn)})
    for name, array in library.run(threads=2).items():
        case, _ = library.cases[name]
        np.testing.assert_allclose(array, case.expected, rtol=case.rtol, atol=case.rtol, err_msg=name)


# -- whole models --------------------------------------------------------------------------------------------------


def convolutions() -> onnx.ModelProto:
    """Filters of 3 × 3 pixels over padded images, of 1 pixel with what they are added to, and with a stride of 2."""
    shapes = {"first": (48, 32, 3, 3), "second": (32, 48, 1, 1), "third": (40, 32, 3, 3)}
    random = np.random.default_rng(0)
    weights = {
        name: np.where(random.random(shape) < 0.1, integers(*shape, seed=6), 0).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays = weights | {f"{name}_bias": integers(shape[0], seed=7) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "first", "first_bias"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("Conv", ["b", "second", "second_bias"], ["c"], name="second"),
        helper.make_node("Add", ["c", "x"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "third", "third_bias"], ["y"], name="third", pads=[1] * 4, strides=[2, 2]),
    ]
    limits = {"low": np.float32(0), "high": np.float32(6)}
    initializers = [numpy_helper.from_array(array, name) for name, array in (arrays | limits).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 32, 11, 13])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 40, 6, 7])
    graph = helper.make_graph(nodes, "convolutions", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("stage", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_are_those_of_onnxruntime(stage: bool, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sums are integers, and so equal in any order."""
    monkeypatch.setattr(SpelledPrices, "__call__", lambda prices, nest, widths: 0.0 if nest.stage == stage else 1e9)
    model = convolutions()
    artifact = sparsec.compile(model)
    layouts = [layer["layout"] for layer in artifact.manifest["layers"]]
    assert len(layouts) == 3 and all(layout.count("compressed") == 2 for layout in layouts)
    x = integers(2, 32, 11, 13, seed=8)
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = runtime.run(None, {"x": x})
    np.testing.assert_array_equal(artifact.load(threads)(x), expected)


# -- the library ---------------------------------------------------------------------------------------------------


def readelf(*args: str) -> str:
    return subprocess.run(["readelf", "-W", *args], capture_output=True, text=True, check=True).stdout


def test_code_can_be_run_and_not_be_written(library: SpelledLibrary, tmp_path: Path) -> None:
    path = str(library.artifact.save(tmp_path / "model.so"))
    sections = readelf("-S", path)
    flags = re.search(r"\] \.sparsec\.code +PROGBITS +(?:[0-9a-f]+ +){4}(\w+)", sections)
    assert flags and flags[1] == "AX"
    segments = [line.split() for line in readelf("-l", path).splitlines() if line.startswith("  LOAD")]
    assert segments and not any("W" in "".join(row[6:-1]) and "E" in "".join(row[6:-1]) for row in segments)


def test_the_plan_keeps_code_apart_from_constants(library: SpelledLibrary) -> None:
    plan = library.plan
    assert len(plan.code) == len(CASES) and all(code.dtype == np.uint8 for code in plan.code)
    kinds = {tensor.name.rpartition(".")[2]: tensor.storage.kind for tensor in plan.tensors}
    assert (kinds["code"], kinds["starts"], kinds["data"]) == ("code", "constant", "constant")
