"""Many cases in one model, so that thousands of tiny networks cost tens of links and not thousands."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import compose

import sparsec
from sparsec.errors import SparsecError
from tests.conformance.cases import Case

SIZE = 40
"""Cases in a batch: with more, what the compiler holds at once grows, and a failure takes longer to find."""


def batches(cases: Iterable[Case], size: int = SIZE) -> Iterator[list[Case]]:
    """Cases of the same operator sets, at most `size` together."""
    by_opset: dict[tuple[tuple[str, int], ...], list[Case]] = {}
    for case in cases:
        opset = tuple(sorted((entry.domain, entry.version) for entry in case.model.opset_import))
        by_opset.setdefault(opset, []).append(case)
    for group in by_opset.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def merge(cases: Sequence[Case]) -> onnx.ModelProto:
    """One model with the inputs, nodes and outputs of all cases side by side, each under its own prefix."""
    batch = onnx.ModelProto(ir_version=max(case.model.ir_version for case in cases))
    batch.opset_import.extend(cases[0].model.opset_import)
    batch.graph.name = "batch"
    for case in cases:
        model = compose.add_prefix(case.model, _prefix(case))
        batch.functions.extend(model.functions)
        for field in ("node", "input", "output", "initializer", "sparse_initializer"):
            getattr(batch.graph, field).extend(getattr(model.graph, field))
    return batch


def check(cases: Sequence[Case], folder: Path) -> dict[str, str]:
    """Compile, save, load and run cases together and compare every output; what went wrong by case, empty if nothing.

    Where a batch does not compile, the case that the error names is taken out, or else the batch is halved.
    """
    if not cases:
        return {}
    try:
        outputs = _run(cases, folder / f"{cases[0].name}-{len(cases)}.so")
    except Exception as error:  # whatever it is, it is a finding about one of the cases
        problem = describe(error)
        guilty = [case for case in cases if _prefix(case) in str(error)] if len(cases) > 1 else cases
        if guilty:
            rest = [case for case in cases if case not in guilty]
            return {case.name: problem.replace(_prefix(case), "") for case in guilty} | check(rest, folder)
        half = len(cases) // 2
        return check(cases[:half], folder) | check(cases[half:], folder)
    problems = {case.name: _compare(case, [outputs.pop(0) for _ in case.outputs]) for case in cases}
    return {name: problem for name, problem in problems.items() if problem}


def describe(error: Exception) -> str:
    """An error in one line; what is not the compiler's own kind of error says so by its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SparsecError) else f"{type(error).__name__}: {text}"[:400]


def _prefix(case: Case) -> str:
    return f"{case.name}."


def _run(cases: Sequence[Case], library: Path) -> list[np.ndarray]:
    shapes = {
        _prefix(case) + info.name: value.shape
        for case in cases
        for info, value in zip(case.model.graph.input, case.inputs, strict=True)
    }
    sparsec.compile(merge(cases), shapes=shapes).save(library)
    session = sparsec.load(library, threads=1)
    results = session(*(value for case in cases for value in case.inputs))
    return list(results) if isinstance(results, tuple) else [results]


def _compare(case: Case, results: Sequence[np.ndarray]) -> str:
    for info, got, want in zip(case.model.graph.output, results, case.outputs, strict=True):
        if (got.dtype, got.shape) != (want.dtype, want.shape):
            return f"{info.name} is {got.dtype}{list(got.shape)}, not {want.dtype}{list(want.shape)}"
        try:
            np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol, err_msg=info.name)
        except AssertionError as error:
            return f"wrong numbers: {describe(error)[:300]}"
    return ""
