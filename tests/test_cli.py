"""The command line: what it does, and that every failure is one sentence and exit code 2."""

import errno
import json
import platform
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.cli import main
from sparsec.cli.compile import compile as compile_command
from sparsec.errors import SparsecError
from sparsec.graph.store_weights import STORAGES
from tests.report.page_reader import Page

BATCH, DEPTH, HIDDEN, ROWS = 16, 64, 128, 32


class Result(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> Result:
        with pytest.raises(SystemExit) as exit_:
            main([str(arg) for arg in args])
        status = exit_.value.code
        assert isinstance(status, int)
        return Result(status, *capsys.readouterr())

    return call


def sparse(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A weight without a channel that is all zeros, which would be removed."""
    mask = rng.random((rows, columns)) < 0.1
    mask |= np.arange(rows)[:, None] % columns == np.arange(columns) % rows
    return rng.standard_normal((rows, columns), np.float32) * mask


def perceptron(weights: list[np.ndarray], batch: int | str = BATCH, operator: str = "Relu") -> onnx.ModelProto:
    first, second = weights
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"], name="fc1"),
        helper.make_node(operator, ["hidden"], ["active"], name="act"),
        helper.make_node("MatMul", ["active", "second"], ["y"], name="fc2"),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, ROWS])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [sparse(rng, DEPTH, HIDDEN), sparse(rng, HIDDEN, ROWS)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, weights: list[np.ndarray]) -> Path:
    """A folder of good and bad models and inputs."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(perceptron(weights), folder / "model.onnx")
    onnx.save(perceptron(weights, "batch"), folder / "open.onnx")
    onnx.save(perceptron(weights, operator="RandomUniformLike"), folder / "random.onnx")
    onnx.save(perceptron(weights, 8), folder / "eight.onnx")
    other = perceptron(weights)
    other.graph.input[0].name = other.graph.node[0].input[0] = "z"
    onnx.save(other, folder / "other.onnx")
    (folder / "text.onnx").write_text("this is not a model\n")
    whole = (folder / "model.onnx").read_bytes()
    (folder / "short.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(
        perceptron(weights), folder / "split.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0
    )
    (folder / "gone.bin").unlink()
    artifact = sparsec.compile(folder / "model.onnx").save(folder / "model.so")
    library = artifact.read_bytes()
    (folder / "short.so").write_bytes(library[: len(library) // 2])
    rng = np.random.default_rng(1)
    np.save(folder / "x.npy", rng.standard_normal((BATCH, DEPTH), np.float32))
    np.save(folder / "narrow.npy", np.zeros((BATCH, DEPTH - 1), np.float32))
    np.save(folder / "double.npy", np.zeros((BATCH, DEPTH)))
    (folder / "text.npy").write_text("these are not numbers\n")
    return folder


# -- what it does ------------------------------------------------------------------------------------------------------


def test_compile_then_run_gives_the_models_numbers(cli: Call, files: Path, weights: list[np.ndarray]) -> None:
    compiled = cli("compile", files / "open.onnx", "-o", "model.so", "--shape", f"batch={BATCH}")
    assert compiled.status == 0
    assert "2 layers, 2 of them sparse" in compiled.out
    assert "Next: sparsec run model.so" in compiled.out
    ran = cli("run", "model.so", "--input", f"x={files / 'x.npy'}", "--output", "results", "--threads", 2)
    assert ran.status == 0
    first, second = weights
    expected = np.maximum(np.load(files / "x.npy") @ first, 0) @ second
    (written,) = Path("results").iterdir()
    np.testing.assert_allclose(np.load(written), expected, rtol=1e-4, atol=1e-4)


def test_compile_as_json_says_what_was_made(cli: Call, files: Path) -> None:
    result = cli("compile", files / "model.onnx", "--json", "--target", "x86-64-v3")
    report = json.loads(result.out)
    assert (result.status, result.err) == (0, "")
    assert report["artifact"] == "model.so" and Path("model.so").stat().st_size == report["artifact_bytes"]
    assert Path(report["header"]).is_file()
    assert report["totals"]["layers"] == 2
    assert report["manifest"]["target"]["name"] == "x86-64-v3"


def test_compile_for_another_machine_suggests_no_run(cli: Call, files: Path) -> None:
    here = "x86_64" if platform.machine() == "x86_64" else "aarch64"
    other = {"x86_64": "aarch64", "aarch64": "x86-64-v2"}[here]
    assert "Next: sparsec inspect model.so" in cli("compile", files / "model.onnx", "--target", other).out
    expect_failure(cli("run", "model.so"), f"was compiled for .*, and this machine is {here}")


def test_storages_are_those_of_the_compiler() -> None:
    (option,) = (option for option in compile_command.params if option.name == "storage")
    assert tuple(option.type.choices) == STORAGES


@pytest.mark.parametrize("command", ["compile", "inspect"])
def test_storage_halves_the_bytes_of_weights(cli: Call, files: Path, command: str) -> None:
    found = json.loads(cli(command, files / "model.onnx", "--storage", "bfloat16", "--json").out)["totals"]
    plain = json.loads(cli("inspect", files / "model.onnx", "--json").out)["totals"]
    assert found["dense_nbytes"] * 2 == plain["dense_nbytes"] and found["nbytes"] < plain["nbytes"]


def test_inspect_says_how_weights_are_stored_and_how_far_off_they_are(cli: Call, files: Path) -> None:
    plain, stored = (cli("inspect", files / "model.onnx", *args).out for args in ((), ("--storage", "int4:32")))
    assert "stored as" not in plain and "off by" not in plain
    assert "int4:32" in stored and "off by" in stored and "%" in stored
    layers = json.loads(cli("inspect", files / "model.onnx", "--storage", "int8", "--json").out)["layers"]
    assert all(layer["storage"] == "int8" and 0 < layer["storage_error"] < 0.02 for layer in layers)


def test_what_to_do_next_can_be_pasted(cli: Call, files: Path) -> None:
    assert "Next: sparsec run 'my model.so'" in cli("compile", files / "model.onnx", "-o", "my model.so").out


def test_small_dense_models_are_not_compared(cli: Call) -> None:
    onnx.save(perceptron([np.ones((DEPTH, HIDDEN), np.float32), np.ones((HIDDEN, ROWS), np.float32)]), "dense.onnx")
    out = cli("compile", "dense.onnx").out
    assert "2 layers, 0 of them sparse\n" in out
    assert "as fast as dense" not in out and "of the model's" not in out


def test_run_takes_symbols(cli: Call, files: Path) -> None:
    assert cli("compile", files / "open.onnx", "-o", "open.so", "--shape", "batch=1..8", "--quiet").status == 0
    report = json.loads(cli("run", "open.so", "--shape", "batch=3", "--json").out)
    assert report["outputs"][0]["shape"] == [3, ROWS]
    assert report["runs"] >= 1
    assert "median" in cli("run", "open.so").out
    expect_failure(cli("run", "open.so", "--shape", "batch=9"), "dimension 'batch' cannot be 9; .*batch from 1 to 8")
    expect_failure(cli("run", "open.so", "--shape", "batch=1..8"), "'batch' runs at one size, as in --shape batch=1,")
    expect_failure(cli("run", "open.so", "--shape", f"x=9,{DEPTH}"), "'x' expects .*got")


def test_a_missing_model_fails_before_the_compiler_loads(cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparsec.compiler", None)  # what cannot be imported
    for command in ("compile", "inspect", "bench"):
        expect_failure(cli(command, "nothing.onnx"), "cannot read nothing.onnx: No such file")


def test_quiet_compile_prints_nothing(cli: Call, files: Path) -> None:
    assert cli("compile", files / "model.onnx", "--quiet") == (0, "", "")


def test_dump_holds_every_stage(cli: Call, files: Path) -> None:
    assert cli("compile", files / "model.onnx", "--quiet", "--dump", "stages").status == 0
    assert list(Path("stages").glob("*_fuse.txt"))
    assert list(Path("stages/kernels").glob("*.trace.json"))


def test_run_as_json_is_the_same_for_the_same_seed(cli: Call, files: Path) -> None:
    outputs = [
        json.loads(cli("run", files / "model.so", "--json", "--seed", seed).out)["outputs"] for seed in (3, 3, 4)
    ]
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[0][0]["shape"] == [BATCH, ROWS]


@pytest.mark.parametrize("name", ["model.onnx", "model.so"])
def test_inspect_shows_each_layer(cli: Call, files: Path, name: str) -> None:
    result = cli("inspect", files / name)
    assert result.status == 0
    for word in ("fc1", "fc2", f"{HIDDEN}×{DEPTH}", "unstructured", "(i, k) -> "):
        assert word in result.out


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


def test_inspect_for_another_machine_is_not_timed(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86-64-v2"
    monkeypatch.setattr("sparsec.compiler.compile", raises(AssertionError("nothing is compiled")))
    expect_failure(
        cli("inspect", files / "model.onnx", "--profile", "--target", other),
        f"this machine cannot run code for {other}",
    )


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


def test_targets_are_listed(cli: Call) -> None:
    assert "neoverse-n1" in cli("targets").out
    assert json.loads(cli("targets", "--json").out)["targets"]["znver4"]["vector_bits"] == 512


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


def test_inspect_of_an_artifact_tells_its_memory(cli: Call, files: Path) -> None:
    facts = json.loads(cli("inspect", files / "model.so", "--json").out)
    assert facts["constant_bytes"] > 0
    scratch = r", \d.* for each thread" if facts["workspace_bytes"] else ""  # where activations are copied
    assert re.search(rf"memory: \d.* weights, \d.* activations{scratch}\n", cli("inspect", files / "model.so").out)


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


@pytest.mark.parametrize("command", ["compile", "run", "bench", "inspect", "targets"])
def test_help_has_examples(cli: Call, command: str) -> None:
    result = cli(command, "--help")
    assert result.status == 0
    assert "Examples:" in result.out and f"sparsec {command} " in result.out + " "


# -- what goes wrong ---------------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[list[str], str]] = {
    "no such command": (["optimise"], "No such command 'optimise'"),
    "no argument": (["compile"], "Missing argument 'MODEL'"),
    "no such model": (["compile", "{}/nothing.onnx"], "cannot read .*nothing.onnx: No such file"),
    "a folder": (["compile", "{}"], "cannot read .*: Is a directory"),
    "an artifact": (["compile", "{}/model.so"], "model.so is a compiled library already; try: sparsec run"),
    "nothing": (["compile", ""], "cannot read .: Is a directory"),
    "no ONNX file": (["compile", "{}/text.onnx"], "text.onnx is not an ONNX file"),
    "truncated model": (["compile", "{}/short.onnx"], "short.onnx is not an ONNX file, or it is truncated"),
    "external data missing": (["compile", "{}/split.onnx"], "'gone.bin', which cannot be read"),
    "open dimension": (["compile", "{}/open.onnx"], r"input 'x' leaves 'batch' open .*--shape x=1,64"),
    "unsupported operator": (["compile", "{}/random.onnx"], "act.*RandomUniformLike|RandomUniformLike.*act"),
    "no such target": (["compile", "{}/model.onnx", "--target", "z80"], "unknown target 'z80'; the known ones"),
    "storage of another type": (["compile", "{}/model.onnx", "--storage", "int2"], "'int2' is not one of 'float16'"),
    "storage that is slow": (
        ["compile", "{}/model.onnx", "--storage", "float16", "--target", "x86-64-v2"],
        r"x86-64-v2 has no instruction that reads float16 \(F16C\).*as bfloat16",
    ),
    "shape without name": (["compile", "{}/open.onnx", "--shape", "1,64"], "cannot read the shape '1,64'; write it as"),
    "shape without sizes": (["compile", "{}/open.onnx", "--shape", "x="], "the shape 'x=' has no sizes"),
    "shape of words": (["compile", "{}/open.onnx", "--shape", "x=1,b-2"], "cannot read 'b-2' in the shape"),
    "shape of nothing": (["compile", "{}/open.onnx", "--shape", "z=1"], "neither an input nor a dimension 'z'"),
    "shape of another rank": (["compile", "{}/open.onnx", "--shape", "x=1,2,64"], "'x' has 2 axes, but .* has 3"),
    "shape that contradicts": (["compile", "{}/open.onnx", "--shape", "x=1,65"], "fixed size 64 at axis 1"),
    "shape twice": (["compile", "{}/open.onnx", "--shape", "x=1,64", "--shape", "x=2,64"], "'x' is given twice"),
    "output below a file": (["compile", "{}/model.onnx", "-o", "{}/x.npy/m.so"], "cannot write .*there is no folder"),
    "output is a folder": (["compile", "{}/model.onnx", "-o", "{}"], "it is a folder"),
    "output is the model": (["compile", "{}/model.onnx", "-o", "{}/model.onnx"], "it is the model itself"),
    "dump below a file": (["compile", "{}/model.onnx", "--dump", "{}/x.npy/d"], "cannot dump into .*Not a directory"),
    "no such artifact": (["run", "{}/nothing.so"], "cannot open .*nothing.so: No such file"),
    "truncated artifact": (["run", "{}/short.so"], "short.so is cut short or damaged"),
    "foreign library": (["run", "{}/foreign.so"], "it is a shared library that sparsec did not make"),
    "no library": (["run", "{}/text.onnx"], "text.onnx is not a sparsec artifact"),
    "no such input": (["run", "{}/model.so", "--input", "z={}/x.npy"], "no input 'z'; the model has x float32"),
    "input without name": (["run", "{}/model.so", "--input", "x.npy"], "cannot read 'x.npy'; write it as"),
    "input twice": (["run", "{}/model.so", *["--input", "x={}/x.npy"] * 2], "input 'x' is given twice"),
    "no such file": (["run", "{}/model.so", "--input", "x=no.npy"], "cannot read no.npy for input 'x': No such file"),
    "no array": (["run", "{}/model.so", "--input", "x={}/text.npy"], "is not an array that numpy.save wrote"),
    "input of another shape": (["run", "{}/model.so", "--input", "x={}/narrow.npy"], r"'x' expects .*got .*\[16, 63\]"),
    "input of another type": (
        ["run", "{}/model.so", "--input", "x={}/double.npy"],
        "'x' expects .*float32.*got float64",
    ),
    "shape of no input": (["run", "{}/model.so", "--shape", "z=1"], "no input or dimension 'z' to give a shape to"),
    "range of sizes": (["run", "{}/model.so", "--shape", "x=1..8,64"], "'x' runs at one size"),
    "results below a file": (["run", "{}/model.so", "--output", "{}/x.npy/r"], "x.npy/r: not a directory"),
    "no threads": (["run", "{}/model.so", "--threads", "0"], "'--threads': 0 is not in the range x>=1"),
    "inspect a truncated artifact": (["inspect", "{}/short.so"], "short.so is cut short or damaged"),
    "inspect nothing": (["inspect", "{}/nothing.onnx"], "cannot read .*nothing.onnx"),
    "layouts of an artifact": (["inspect", "{}/model.so", "--layouts"], "a library keeps no other layouts.*ONNX file"),
    "layout of an artifact": (["inspect", "{}/model.so", "--layout", "CSR"], "a library keeps no other .*ONNX file"),
    "layout of no layer": (["inspect", "{}/model.onnx", "--layout", "fc9=CSR"], "no layer with weights has that name"),
    "page below a file": (
        ["inspect", "{}/model.onnx", "--html", "{}/x.npy/p.html"],
        "cannot write .*there is no folder",
    ),
    "page over the model": (["inspect", "{}/model.onnx", "--html", "{}/model.onnx"], "it is the model itself"),
    "peers of an artifact": (["bench", "{}/model.so", "--peers", "openvino"], "peers run the ONNX file"),
    "storage of an artifact": (["bench", "{}/model.so", "--storage", "float16"], "keeps the storage"),
    "dense without a profile": (["bench", "{}/model.onnx", "--dense"], "the layers of a profile; add --profile"),
    "dense layouts of an artifact": (["bench", "{}/model.so", "--profile", "--dense"], "takes the ONNX file alone"),
    "no such peer": (
        ["bench", "{}/model.onnx", "--artifact", "{}/model.so", "--peers", "abacus"],
        "unknown peer 'abacus'",
    ),
    "no peer at all": (
        ["bench", "{}/model.onnx", "--artifact", "{}/model.so", "--peers", "deepsparse"],
        "no peer could run .*model.onnx: deepsparse: not installed: pip install deepsparse",
    ),
    "artifact of another model": (
        ["bench", "{}/other.onnx", "--artifact", "{}/model.so"],
        "model.so was not compiled from .*other.onnx: it computes x -> y, and the model z -> y",
    ),
    "artifact of another size": (
        ["bench", "{}/eight.onnx", "--artifact", "{}/model.so"],
        r"it takes x float32\[16, 64\], and the model \[8, 64\]",
    ),
    "results of a race": (["bench", "{}/model.so", "--json", "{}/x.npy/t.json"], "cannot write .*there is no folder"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failure_is_one_sentence(cli: Call, files: Path, case: str) -> None:
    if case == "foreign library":
        shutil.copy(np.linalg._umath_linalg.__file__, files / "foreign.so")
    args, message = FAILURES[case]
    expect_failure(cli(*(arg.replace("{}", str(files)) for arg in args)), message)
    assert not list(Path().iterdir()), "a failure leaves nothing behind"


def expect_failure(result: Result, message: str) -> None:
    assert result.status == 2
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert "Traceback" not in result.err and result.out == ""
    assert re.search(message, result.err), result.err


def test_full_disk_leaves_no_artifact(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "copyfile", raises(OSError(errno.ENOSPC, "No space left on device")))
    expect_failure(cli("compile", files / "model.onnx"), "cannot write model.so: No space left on device")
    assert not list(Path().iterdir())


def test_full_disk_leaves_no_output(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "save", raises(OSError(errno.ENOSPC, "No space left on device")))
    expect_failure(cli("run", files / "model.so", "--output", "results"), "no space left on device")
    assert not list(Path("results").iterdir())


def test_interrupt_exits_as_a_shell_expects(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsec.runtime.session.load", raises(KeyboardInterrupt()))
    assert cli("run", files / "model.so") == (130, "", "\nerror: interrupted\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("division by zero\nat great length"), "ZeroDivisionError: division by zero; this is a bug"),
        (RuntimeError(), "RuntimeError: no message; this is a bug in sparsec.*sparsec --traceback"),
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("No module", name="sklearn.svm"), "needs the package sklearn.*pip install scikit-learn"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error: x: permission denied"),
    ],
)
def test_what_nobody_foresaw(
    cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr("sparsec.runtime.session.load", raises(error))
    expect_failure(cli("run", files / "model.so"), message)
    with pytest.raises(type(error)):
        main(["--traceback", "run", str(files / "model.so")])


def raises(error: BaseException) -> Callable[..., Any]:
    def raise_(*args: Any, **kwargs: Any) -> Any:
        raise error

    return raise_
