"""A program in C against the header gives the numbers that Python gives."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen.artifact import build
from tests.codegen.small_plans import affine_plan
from tests.runtime.c_program import PROGRAM, run_program


def test_a_c_program_gives_the_same_numbers() -> None:
    x = np.random.default_rng(0).standard_normal((4, 16), dtype=np.float32)
    artifact = build(affine_plan(np.linspace(-1, 1, 16, dtype=np.float32)))
    (found,) = run_program(artifact, [x])
    np.testing.assert_array_equal(found, artifact.load(threads=1)(x))


def test_the_program_stays_short() -> None:
    assert len(PROGRAM.read_text().splitlines()) <= 60


@pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler on this machine")
def test_the_header_is_cxx_too(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text('#include "affine.h"\nint main() { return sparsec_abi_version() - 2; }\n')
    subprocess.run(["c++", "-Wall", "-Werror", "-fsyntax-only", f"-I{models}", str(tmp_path / "a.cpp")], check=True)
