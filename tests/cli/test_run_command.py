"""`sparsec run`: what comes out of a library."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command_lines import BATCH, DEPTH, ROWS, Call, expect_failure, raises


def test_run_takes_symbols(cli: Call, files: Path) -> None:
    assert cli("compile", files / "open.onnx", "-o", "open.so", "--shape", "batch=1..8", "--quiet").status == 0
    report = json.loads(cli("run", "open.so", "--shape", "batch=3", "--json").out)
    assert report["outputs"][0]["shape"] == [3, ROWS]
    assert report["runs"] >= 1
    assert "median" in cli("run", "open.so").out
    expect_failure(cli("run", "open.so", "--shape", "batch=9"), "dimension 'batch' cannot be 9; .*batch from 1 to 8")
    expect_failure(cli("run", "open.so", "--shape", "batch=1..8"), "'batch' runs at one size, as in --shape batch=1,")
    expect_failure(cli("run", "open.so", "--shape", f"x=9,{DEPTH}"), "'x' expects .*got")


@pytest.mark.parametrize("command", [["run"], ["bench", "--seconds", 0.05]])
def test_more_threads_than_cores_are_warned_of(
    cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch, command: list
) -> None:
    monkeypatch.setattr("sparsec.targets.native.physical_cores", lambda: 2)
    name, *args = command
    two, five = (cli(name, files / "model.so", *args, "--threads", threads) for threads in (2, 5))
    assert (two.status, two.err) == (five.status, "") == (0, "")
    warning = "warning: 5 threads share the 2 physical cores that this process may use, and are slower than 2\n"
    assert five.err == warning


def test_run_as_json_is_the_same_for_the_same_seed(cli: Call, files: Path) -> None:
    outputs = [
        json.loads(cli("run", files / "model.so", "--json", "--seed", seed).out)["outputs"] for seed in (3, 3, 4)
    ]
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[0][0]["shape"] == [BATCH, ROWS]


def test_full_disk_leaves_no_output(cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "save", raises(OSError(errno.ENOSPC, "No space left on device")))
    expect_failure(cli("run", files / "model.so", "--output", "results"), "no space left on device")
    assert not list(Path("results").iterdir())
