"""`sparsec bench`: races, profiles, and what is kept of them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import sparsec
from sparsec import Artifact
from sparsec.errors import SparsecError
from tests.cli.command_lines import Call, expect_failure, perceptron


def test_bench_of_an_artifact_times_and_profiles_it(cli: Call, files: Path) -> None:
    result = cli("bench", files / "model.so", "--seconds", 0.05, "--profile", "--json", "-")
    measured = json.loads(result.out)
    assert 0 < measured["fastest_seconds"] <= measured["median_seconds"]
    assert {"fc1", "fc2"} <= {step["label"] for step in measured["profile"]}
    assert all(0 < step["share_of_peak"] < 1.05 for step in measured["profile"] if step["flops"])
    assert all(rate > 1e9 for rate in measured["peaks"].values())
    assert measured["memory"]["constant_bytes"] > 0 and measured["memory_bytes"] > 0


def test_bench_profiles_a_model_beside_its_dense_self(cli: Call, files: Path) -> None:
    args = ("--profile", "--dense", "--peers", "onnxruntime", "--seconds", 0.1, "--json", "race.json")
    result = cli("bench", files / "model.onnx", *args)
    assert result.status == 0 and "speed-up" in result.out and "peak of a core" in result.out
    race = json.loads(Path("race.json").read_text())
    layers = [step for step in race["profile"] if step["label"] in ("fc1", "fc2") and step["flops"]]
    assert len(layers) == 2 and all(step["dense_seconds"] > 0 and step["speedup"] > 0 for step in layers)
    assert all(lane["memory_bytes"] > 0 for lane in race["lanes"])


@pytest.mark.parametrize("output", ["race.json", "-"])
@pytest.mark.parametrize(("model", "measured"), [("model.onnx", "lanes"), ("model.so", "median_seconds")])
def test_bench_keeps_a_race_whose_profile_fails(
    cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch, model: str, measured: str, output: str
) -> None:
    def fail(*given: object) -> None:
        raise SparsecError("there is no clock")

    monkeypatch.setattr("sparsec.bench.profile.profile", fail)
    args = ["--profile", "--seconds", 0.1, "--json", output]
    result = cli("bench", files / model, *args, *(["--peers", "onnxruntime"] if model == "model.onnx" else []))
    assert result.status == 2
    assert result.err == "error: all else was measured, but the steps cannot be profiled: there is no clock\n"
    kept = json.loads(result.out if output == "-" else Path(output).read_text())
    assert measured in kept and "profile" not in kept
    assert output == "-" or "median" in result.out


@pytest.mark.parametrize("threads", [1, 2])
def test_bench_compiles_for_its_threads(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    compiled: list[Artifact] = []
    compile_model = sparsec.compile

    def keep(*args: object, **options: object) -> Artifact:
        compiled.append(compile_model(*args, **options))
        return compiled[-1]

    monkeypatch.setattr(sparsec, "compile", keep)
    args = ("--threads", threads, "--profile", "--dense", "--peers", "onnxruntime", "--seconds", 0.05)
    assert cli("bench", files / "model.onnx", *args).status == 0
    assert [artifact.manifest["target"]["cores"] for artifact in compiled] == [threads] * 2


def test_bench_races_a_model(cli: Call, files: Path) -> None:
    args = ("--artifact", files / "model.so", "--peers", "onnxruntime", "--seconds", 0.1, "--json", "race.json")
    result = cli("bench", files / "model.onnx", *args)
    assert result.status == 0 and "ONNX Runtime" in result.out
    assert json.loads(Path("race.json").read_text())["speedup"]["onnxruntime"]["median"] > 0


@pytest.mark.parametrize("given", ["--storage", "--artifact"])
def test_bench_allows_for_rounded_weights(cli: Call, files: Path, given: str) -> None:
    args = ["--peers", "onnxruntime", "--seconds", 0.1, "--quiet", "--json", "race.json"]
    if given == "--artifact":
        cli("compile", files / "model.onnx", "--storage", "float16", "-o", "half.so", "--quiet")
    result = cli("bench", files / "model.onnx", given, "float16" if given == "--storage" else "half.so", *args)
    assert result == (0, "", "")
    assert 1e-5 < json.loads(Path("race.json").read_text())["lanes"][0]["error"] < 8 * 2**-11


def test_bench_suspects_a_library_of_other_weights(cli: Call, files: Path, weights: list[np.ndarray]) -> None:
    onnx.save(perceptron([2 * weights[0], weights[1]]), "twice.onnx")
    args = ("--artifact", files / "model.so", "--peers", "onnxruntime", "--seconds", 0.1, "--quiet")
    expect_failure(cli("bench", "twice.onnx", *args), "differ from .* so it was probably not compiled from twice.onnx")
