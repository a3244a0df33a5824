"""A program in C against the header gives the numbers that Python gives."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsec.runtime.session import load


def compiler() -> list[str]:
    """The system's C compiler, or Zig's, which takes a minute to build its start-up files the first time."""
    return ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]


PROGRAM = Path(__file__).with_name("run_model.c")


def test_a_c_program_prints_the_same_numbers(models: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 16), dtype=np.float32)
    x.tofile(tmp_path / "x.bin")
    command = [*compiler(), "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{models}"]
    command += [str(PROGRAM), str(models / "affine.so"), f"-Wl,-rpath,{models}", "-o", str(tmp_path / "run_model")]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "run_model", tmp_path / "x.bin"], capture_output=True, text=True, check=True)
    printed = np.array(done.stdout.split(), dtype=np.float32).reshape(4, 16)
    np.testing.assert_array_equal(printed, load(models / "affine.so", threads=1)(x))


def test_the_program_stays_short() -> None:
    assert len(PROGRAM.read_text().splitlines()) <= 60


@pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler on this machine")
def test_the_header_is_cxx_too(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text('#include "affine.h"\nint main() { return sparsec_abi_version() - 1; }\n')
    subprocess.run(["c++", "-Wall", "-Werror", "-fsyntax-only", f"-I{models}", str(tmp_path / "a.cpp")], check=True)
