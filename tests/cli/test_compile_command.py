"""`sparsec compile`: what it writes and says."""

import errno
import json
import platform
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparsec.cli.compile import compile as compile_command
from sparsec.graph.store_weights import STORAGES
from tests.cli.command_lines import BATCH, DEPTH, HIDDEN, ROWS, Call, expect_failure, perceptron, raises


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


@pytest.mark.parametrize("command", ["compile", "inspect"])
def test_layouts_are_chosen_for_the_threads_that_are_asked_for(cli: Call, files: Path, command: str) -> None:
    found = json.loads(cli(command, files / "model.onnx", "--threads", 3, "--json").out)
    assert found.get("manifest", found)["target"]["cores"] == 3
    assert "--threads" in cli(command, files / "model.onnx", "--threads", 0).err


def test_compile_says_whether_speed_is_predicted_or_measured(cli: Call, files: Path) -> None:
    assert "these are predicted to be " in cli("compile", files / "model.onnx").out
    assert "these are measured to be " in cli("compile", files / "model.onnx", "--measure").out
    table = cli("inspect", "model.so").out
    assert "measured" in table and "predicted" not in table
    assert cli("inspect", "model.so", "--html", "page.html").status == 0
    assert "chosen layout, measured" in Path("page.html").read_text(encoding="utf-8")


def test_what_to_do_next_can_be_pasted(cli: Call, files: Path) -> None:
    assert "Next: sparsec run 'my model.so'" in cli("compile", files / "model.onnx", "-o", "my model.so").out


def test_small_dense_models_are_not_compared(cli: Call) -> None:
    onnx.save(perceptron([np.ones((DEPTH, HIDDEN), np.float32), np.ones((HIDDEN, ROWS), np.float32)]), "dense.onnx")
    out = cli("compile", "dense.onnx").out
    assert "2 layers, 0 of them sparse\n" in out
    assert "as fast as dense" not in out and "of the model's" not in out


def test_quiet_compile_prints_nothing(cli: Call, files: Path) -> None:
    assert cli("compile", files / "model.onnx", "--quiet") == (0, "", "")


def test_dump_holds_every_stage(cli: Call, files: Path) -> None:
    assert cli("compile", files / "model.onnx", "--quiet", "--dump", "stages").status == 0
    assert list(Path("stages").glob("*_fuse.txt"))
    assert list(Path("stages/kernels").glob("*.trace.json"))


def test_full_disk_leaves_no_artifact(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "copyfile", raises(OSError(errno.ENOSPC, "No space left on device")))
    expect_failure(cli("compile", files / "model.onnx"), "cannot write model.so: No space left on device")
    assert not list(Path().iterdir())
