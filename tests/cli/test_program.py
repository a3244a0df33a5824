"""The program as a whole: its help, and that every failure is one sentence and exit code 2."""

import errno
import json
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import sparsec.runtime
from sparsec.cli import main
from sparsec.cli.options import THREADS
from sparsec.runtime.session import MOST_THREADS
from tests.cli.command_lines import Call, expect_failure, raises


@pytest.mark.parametrize("command", ["compile", "run", "bench", "inspect", "targets"])
def test_help_has_examples(cli: Call, command: str) -> None:
    result = cli(command, "--help")
    assert result.status == 0
    assert "Examples:" in result.out and f"sparsec {command} " in result.out + " "


def test_targets_are_listed(cli: Call) -> None:
    assert "neoverse-n1" in cli("targets").out
    assert json.loads(cli("targets", "--json").out)["targets"]["znver4"]["vector_bits"] == 512


def test_a_missing_model_fails_before_the_compiler_loads(cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparsec.compiler", None)  # what cannot be imported
    for command in ("compile", "inspect", "bench"):
        expect_failure(cli(command, "nothing.onnx"), "cannot read nothing.onnx: No such file")


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
    "no threads": (["run", "{}/model.so", "--threads", "0"], "'--threads': 0 is not in the range 1<=x<=1024"),
    "too many threads": (["run", "{}/model.so", "--threads", "100000"], "100000 is not in the range 1<=x<=1024"),
    "too many threads to race": (["bench", "{}/model.so", "--threads", "100000"], "100000 is not in the range"),
    "too many threads to compile for": (["compile", "{}/model.onnx", "--threads", "100000"], "is not in the range"),
    "inspect a truncated artifact": (["inspect", "{}/short.so"], "short.so is cut short or damaged"),
    "inspect nothing": (["inspect", "{}/nothing.onnx"], "cannot read .*nothing.onnx"),
    "layouts of an artifact": (["inspect", "{}/model.so", "--layouts"], "a library keeps no other layouts.*ONNX file"),
    "layout of an artifact": (["inspect", "{}/model.so", "--layout", "CSR"], "a library keeps no other .*ONNX file"),
    "layout of no layer": (["inspect", "{}/model.onnx", "--layout", "fc9=CSR"], "no layer with weights has that name"),
    "threads of an artifact": (
        ["inspect", "{}/model.so", "--threads", "2"],
        "a library is compiled already; give the ONNX file for --threads",
    ),
    "much of an artifact": (
        ["inspect", "{}/model.so", "--target", "znver4", "--storage", "int8"],
        "give the ONNX file for --target and --storage",
    ),
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


def test_a_package_that_cannot_be_imported_is_named(
    cli: Call, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "broken").mkdir()
    (folder / "broken" / "__init__.py").write_text("from . import below\n")
    (folder / "broken" / "below.py").write_text('raise OSError("libgone.so: cannot open shared object file")\n')
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("sparsec.runtime.session.load", lambda *args, **kwargs: import_module("broken"))
    expect_failure(
        cli("run", files / "model.so"),
        "the package broken is installed but cannot be imported: OSError: libgone.so: cannot open shared object file;",
    )


def test_the_command_line_takes_as_many_threads_as_the_runtime() -> None:
    source = Path(sparsec.runtime.__path__[0], "sparsec_runtime.c").read_text(encoding="utf-8")
    assert THREADS.max == MOST_THREADS and f"MAX_THREADS = {MOST_THREADS} " in source


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
