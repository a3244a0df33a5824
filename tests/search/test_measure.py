"""Candidates are timed in one library, and the winner is one of them."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.errors import TargetError
from sparsec.ir.kernel import Buffer
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, Product
from sparsec.schedules.rules.product import Proposal, candidates, contenders, propose
from sparsec.search.measure import Measured, _plan, fastest, measure
from sparsec.targets import Target


def product(rows: int, depth: int, columns: int | str) -> Product:
    x_index, y_index = (BATCH, DEPTH, COLUMN), (BATCH, ROW, COLUMN)
    weight = Buffer("W", "float32", (rows, depth))
    x, y = Buffer("X", "float32", (1, depth, columns)), Buffer("Y", "float32", (1, rows, columns))
    return Product("linear", weight, x, y, x_index, y_index, 1, rows, depth, columns)


def pruned(rows: int, depth: int, density: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.where(rng.random((rows, depth)) < density, rng.standard_normal((rows, depth)), 0).astype(np.float32)


def test_the_fastest_is_a_candidate_with_a_measured_time() -> None:
    target, matrix = Target.parse("native"), pruned(96, 128, 0.1)
    proposals = candidates(product(96, 128, 64), matrix, target)
    assert len({(p.product.layout, p.trace) for p in proposals}) == len(proposals) == 6
    best = fastest(proposals, matrix, target)
    assert (best.product, best.trace) in [(p.product, p.trace) for p in proposals]
    assert best.seconds not in [p.seconds for p in proposals] and 0 < best.seconds < 1
    assert best.timed and not any(p.timed for p in proposals)
    assert best.seconds <= best.dense_seconds and best.dense_seconds != proposals[0].dense_seconds


def test_a_slow_candidate_loses() -> None:
    """Dense tiles do a hundred times the work of a matrix with few nonzeros."""
    target, matrix = Target.parse("native"), pruned(512, 512, 0.01)
    proposals = candidates(product(512, 512, 64), matrix, target)
    best = fastest(proposals[::-1], matrix, target)
    assert "compressed" in str(best.product.layout)


def test_layers_of_one_form_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("sparsec.search.measure.fastest", lambda p, *_: calls.append(p) or p[-1])
    choose, target = Measured(), Target.parse("native")
    first, second = (choose(product(32, 64, 16), pruned(32, 64, 0.2), target) for _ in range(2))
    assert first is second and len(calls) == 1


def test_layers_with_zeros_of_another_structure_are_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout of as many zeros might not hold them."""

    def only_structured(product: Product, matrix: np.ndarray, target: Target, only_dense: bool) -> list[Proposal]:
        families = contenders(product, matrix, target)
        return families.get("2:4", families["bucketed rows"])

    monkeypatch.setattr("sparsec.search.measure.candidates", only_structured)
    monkeypatch.setattr("sparsec.search.measure.fastest", lambda proposals, *_: proposals[0])
    choose, target, rng = Measured(), Target.parse("native"), np.random.default_rng(0)
    structured = np.where(rng.random((64, 32, 4)).argsort(axis=2) < 2, 1, 0).reshape(64, 128).astype(np.float32)
    scattered = structured[:, rng.permutation(128)]
    for matrix in (structured, scattered):
        assert choose(product(64, 128, 64), matrix, target).product.layout.refusal(matrix != 0) is None


def test_symbolic_sizes_are_left_to_the_model() -> None:
    target, matrix = Target.parse("native"), pruned(32, 64, 0.1)
    proposals = candidates(product(32, 64, "tokens"), matrix, target)
    assert fastest(proposals, matrix, target) is proposals[0]
    activations = replace(product(32, 64, 16), weight_index=(ROW, DEPTH))
    assert Measured()(activations, None, target) == propose(activations, None, target)


def test_another_machine_cannot_be_timed_here() -> None:
    native, matrix = Target.parse("native"), pruned(32, 64, 0.1)
    lacking = next(name for name in ("amx-fp16", "sse4a") if not native.has(name))
    target = native.with_features(f"+{lacking}")
    with pytest.raises(TargetError, match="timed only on a machine that runs them"):
        fastest(candidates(product(32, 64, 16), matrix, target), matrix, target)


def linear_model(weight: np.ndarray) -> onnx.ModelProto:
    rows, depth = weight.shape
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [6, size]) for n, size in (("x", depth), ("y", rows)))
    initializer = numpy_helper.from_array(np.ascontiguousarray(weight.T), "w")
    graph = helper.make_graph([node], "linear", [x], [y], [initializer])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_model_compiles_by_measuring() -> None:
    """A linear layer, pruned: its answers are those of the model that the target's prices chose."""
    weight = pruned(48, 40, 0.2)
    data = np.random.default_rng(1).standard_normal((6, 40)).astype(np.float32)
    session = sparsec.compile(linear_model(weight), measure=True).load(threads=1)
    np.testing.assert_allclose(session(data), data @ weight.T, rtol=1e-5, atol=1e-5)


def test_dense_layouts_alone_are_measured_where_these_alone_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Proposal] = []
    monkeypatch.setattr(
        "sparsec.search.measure.fastest", lambda proposals, *_: timed.extend(proposals) or proposals[-1]
    )
    layers = sparsec.compile(linear_model(pruned(48, 40, 0.2)), measure=True, dense=True).manifest["layers"]
    assert len(timed) > 1 and {proposal.family for proposal in timed} == {"dense"}
    assert [layer["layout"] for layer in layers] == [str(timed[-1].product.layout)]


def test_what_candidates_read_is_written_before() -> None:
    """Memory that nothing has written is one page of zeros wherever it is read, and loads from it take other times."""
    target, matrix = Target.parse("native"), pruned(32, 64, 0.2)
    plan = _plan(candidates(product(32, 64, 16), matrix, target), matrix, target)
    read = {plan.tensors[index].storage.kind for step in plan.steps for index in step.args[:-1]}
    assert read - {"code"} == {"constant", "input"}
    assert [plan.tensors[step.args[-1]].storage.kind for step in plan.steps] == ["arena"] * len(plan.steps)


def test_candidates_are_timed_in_their_order() -> None:
    target, matrix = Target.parse("native"), pruned(512, 512, 0.01)
    families = contenders(product(512, 512, 64), matrix, target)
    (sparse,), (dense,) = families["bucketed rows"], families["dense"]
    times = measure([dense, sparse, dense], matrix, target, rounds=2)
    assert len(times) == 3 and times[1] < min(times[0], times[2])
