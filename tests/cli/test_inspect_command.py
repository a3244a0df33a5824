"""`sparsec inspect`: what it tells of models and of libraries."""

import json
import platform
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import sparsec
from sparsec.report.kinds import kind_of
from tests.cli.command_lines import DEPTH, HIDDEN, ROWS, Call, expect_failure, perceptron, raises
from tests.report.page_reader import Page


def test_inspect_says_how_weights_are_stored_and_how_far_off_they_are(cli: Call, files: Path) -> None:
    plain, stored = (cli("inspect", files / "model.onnx", *args).out for args in ((), ("--storage", "int4:32")))
    assert "stored as" not in plain and "off by" not in plain
    assert "int4:32" in stored and "off by" in stored and "%" in stored
    layers = json.loads(cli("inspect", files / "model.onnx", "--storage", "int8", "--json").out)["layers"]
    assert all(layer["storage"] == "int8" and 0 < layer["storage_error"] < 0.02 for layer in layers)


@pytest.mark.parametrize("name", ["model.onnx", "model.so"])
def test_inspect_shows_each_layer(cli: Call, files: Path, name: str) -> None:
    result = cli("inspect", files / name)
    assert result.status == 0
    layers = json.loads(cli("inspect", files / name, "--json").out)["layers"]
    for word in ("fc1", "fc2", f"{HIDDEN}×{DEPTH}", "unstructured", *(kind_of(layer["layout"]) for layer in layers)):
        assert word in result.out
    assert max(map(len, result.out.splitlines()[1:])) <= 120


def test_a_report_prints_what_inspect_shows(cli: Call, files: Path) -> None:
    report = sparsec.inspect(files / "model.onnx")
    shown = cli("inspect", files / "model.onnx").out
    table = str(report).partition("\n")[2]
    assert "fc1" in table and table in shown and len(str(report).splitlines()) < 20
    assert repr(report) == f"<Report of 2 layers, 2 sparse, on {report.target.name}>"


def test_inspect_says_the_same_of_a_model_and_of_its_artifact(cli: Call, files: Path) -> None:
    of_model, of_artifact = (
        json.loads(cli("inspect", files / f"model.{kind}", "--json").out) for kind in ("onnx", "so")
    )
    assert of_model["layers"] == of_artifact["layers"]
    assert of_model["totals"]["dense_nbytes"] == 4 * (DEPTH * HIDDEN + HIDDEN * ROWS)


def test_inspect_shows_layouts_of_each_kind_of_layer(cli: Call, files: Path) -> None:
    few, every = (cli("inspect", files / "model.onnx", flag) for flag in ("--layouts", "--all-layouts"))
    assert few.status == every.status == 0
    for word in ("fc1: linear", "fc2: linear", "dense", "▸", "by the model", "(i, k) -> "):
        assert word in few.out and word in every.out
    report = json.loads(cli("inspect", files / "model.onnx", "--layouts", "--json").out)
    for layer in report["layers"]:
        (chosen,) = (option for option in layer["options"] if option["chosen"])
        assert chosen["layout"] == layer["layout"] and layer["why"].startswith(f"{chosen['name']}: ")
        assert all(option["name"] in every.out for option in layer["options"])


def test_inspect_takes_the_layouts_that_compile_takes(cli: Call, files: Path) -> None:
    flags = ("--layout", "bitmap", "--layout", "fc1=CSR", "--json")
    compiled = json.loads(cli("compile", files / "model.onnx", "-o", "given.so", *flags).out)["manifest"]["layers"]
    for more in ((), ("--layouts",)):
        layers = json.loads(cli("inspect", files / "model.onnx", *flags, *more).out)["layers"]
        shown = [{name: layer[name] for name in layer if name not in ("options", "why")} for layer in layers]
        assert shown == compiled
        chosen = [option["layout"] for layer in layers for option in layer.get("options", ()) if option["chosen"]]
        assert chosen == [layer["layout"] for layer in layers if more]


def test_inspect_writes_a_page(cli: Call, files: Path) -> None:
    assert cli("inspect", files / "model.onnx", "--html", "page.html").out.startswith("page.html: ")
    page = Page(Path("page.html").read_text(encoding="utf-8"))
    assert "fc1" in page.text and page.count("details") == 2 and len(page.pictures) == 6


def test_inspect_of_an_artifact_writes_what_its_manifest_holds(cli: Call, files: Path) -> None:
    result = cli("inspect", files / "model.so", "--html", "page.html", "--profile", "--json")
    page = Page(Path("page.html").read_text(encoding="utf-8"))
    assert "keeps neither maps of the weights" in page.text and not page.pictures
    assert page.count("details") == 2 and "chosen layout, measured" in page.text
    assert all(layer["measured"] > 0 for layer in json.loads(result.out)["layers"])


def test_inspect_times_the_layers_of_a_model(cli: Call, files: Path) -> None:
    result = cli("inspect", files / "open.onnx", "--shape", "batch=1..8", "--profile")
    assert result.status == 0 and "measured" in result.out
    assert "open dimensions: batch (1 to 8); predictions assume 128 columns" in result.out


def test_inspect_for_another_machine_is_not_timed(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86-64-v2"
    monkeypatch.setattr("sparsec.compiler.compile", raises(AssertionError("nothing is compiled")))
    expect_failure(
        cli("inspect", files / "model.onnx", "--profile", "--target", other),
        f"this machine cannot run code for {other}",
    )


def test_inspect_of_an_artifact_tells_its_memory(cli: Call, files: Path) -> None:
    facts = json.loads(cli("inspect", files / "model.so", "--json").out)
    assert facts["constant_bytes"] > 0
    scratch = r", \d.* for each thread" if facts["workspace_bytes"] else ""  # where activations are copied
    assert re.search(rf"memory: \d.* weights, \d.* activations{scratch}\n", cli("inspect", files / "model.so").out)


def test_layers_that_are_gone_are_told_of(cli: Call, weights: list[np.ndarray]) -> None:
    model = perceptron([weights[0], 0 * weights[1]])
    model.graph.node[2].output[0] = "branch"
    model.graph.node.append(helper.make_node("MatMul", ["x", "past"], ["skip"], name="skip"))
    model.graph.node.append(helper.make_node("Add", ["branch", "skip"], ["y"], name="join"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((DEPTH, ROWS), np.float32), "past"))
    onnx.save(model, "branch.onnx")
    told = "2 layers are gone, since zeros leave them without effect or they were merged: fc1, fc2\n"
    for arguments in (["compile"], ["inspect"], ["inspect", "--layouts"]):
        assert told in cli(*arguments, "branch.onnx").out
    for file in ("branch.onnx", "branch.so"):
        assert json.loads(cli("inspect", file, "--json").out)["removed"] == ["fc1", "fc2"]
    assert told in cli("inspect", "branch.so").out
