"""Profiles: steps beside the peak of a core and beside dense layouts, and what memory a run takes."""

from dataclasses import replace

import pytest

import sparsec
from sparsec.bench import run_memory
from sparsec.bench.peak import find_peak
from sparsec.bench.profile import profile
from sparsec.errors import SparsecError
from sparsec.targets import Target
from tests.test_compiler import Builder, normal, sparse

FMA = f"fma.{Target.parse('native').lanes('float32')}"
X = normal(128, 256)


def model(density: float, name: str = "y"):
    """A pruned layer, a softmax, and a layer without zeros."""
    b = Builder()
    hidden = b.Softmax(b.MatMul("x", sparse(256, 256, density=density)), axis=-1)
    b.MatMul(hidden, normal(256, 128), name=name)
    return b.model({"x": [128, 256]}, {name: [128, 128]})


@pytest.fixture(scope="module")
def sessions() -> tuple[sparsec.Session, sparsec.Session]:
    proto = model(0.05)
    return sparsec.compile(proto).load(1), sparsec.compile(proto, dense=True).load(1)


def test_products_are_held_against_the_peak(sessions) -> None:
    found = profile(sessions[0], [X])
    assert list(found.peaks) == [FMA]
    products = [step for step in found.steps if step.flops]
    assert len(products) == 2 and all(step.instruction == FMA and step.speedup is None for step in products)
    for step in found.steps:
        assert (step.share_of_peak is None) == (step.flops == 0)
    for step in products:
        assert step.share_of_peak == pytest.approx(step.flops / step.seconds / found.peaks[FMA])
        assert 0 < step.share_of_peak < 1.05
    assert found.to_json()["profile"][0].keys() == vars(found.steps[0]).keys()


def test_a_pruned_layer_is_held_against_its_dense_self(sessions) -> None:
    found = profile(*sessions[:1], [X], dense=sessions[1])
    pruned, whole = (step for step in found.steps if step.flops)
    assert pruned.dense_seconds is not None and pruned.speedup is not None and pruned.speedup > 1
    assert (whole.dense_seconds, whole.speedup) == (None, None), "its own layout is dense"
    assert 0 < pruned.seconds < pruned.dense_seconds


def test_models_with_other_steps_are_not_compared(sessions) -> None:
    b = Builder()
    b.Relu(b.MatMul("x", sparse(256, 128)), name="y")
    other = sparsec.compile(b.model({"x": [128, 256]}, {"y": [128, 128]})).load(1)
    with pytest.raises(SparsecError, match="has other layers when it is compiled with dense layouts"):
        profile(sessions[0], [X], dense=other)


def test_arithmetic_without_a_loop_has_no_share(sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_peak(FMA) is not None
    monkeypatch.setattr("sparsec.bench.profile.find_peak", lambda instruction: None)
    found = profile(sessions[0], [X])
    assert not found.peaks and all(step.share_of_peak is None for step in found.steps)


def test_a_step_during_which_the_clock_stood_still_has_no_share(sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = type(sessions[0]).profile

    def stopped(session, *inputs, runs):
        return [replace(step, seconds=0.0) if step.flops else step for step in measured(session, *inputs, runs=runs)]

    monkeypatch.setattr(type(sessions[0]), "profile", stopped)
    found = profile(sessions[0], [X])
    assert all((step.seconds, step.share_of_peak) == (0.0, None) for step in found.steps if step.flops)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_holds_its_weights_once(tmp_path, threads: int) -> None:
    b = Builder()
    b.MatMul("x", normal(4096, 2048), name="y")
    artifact = sparsec.compile(b.model({"x": [64, 4096]}, {"y": [64, 2048]}))
    weights = 4 * 4096 * 2048
    planned = artifact.manifest
    assert weights <= planned["constant_bytes"] < 1.01 * weights
    taken = run_memory(artifact.save(tmp_path / "model.so"), threads, {"x": normal(64, 4096)})
    most = planned["constant_bytes"] + planned["arena_bytes"] + threads * planned["workspace_bytes"]
    assert weights < taken < most + 8e6, "pages of 2 MB, the outputs and what Python needs come to it"


def test_what_does_not_run_takes_no_memory(tmp_path) -> None:
    with pytest.raises(SparsecError, match=r"sparsec could not run .*none.so: .*cannot open"):
        run_memory(tmp_path / "none.so", 1, {})
