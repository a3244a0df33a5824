from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen.artifact import build
from tests.codegen.small_plans import affine_plan, parallel_plan, symbolic_plan


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one artifact of each small plan."""
    folder = tmp_path_factory.mktemp("models")
    build(affine_plan(np.linspace(-1, 1, 16, dtype=np.float32))).save(folder / "affine.so")
    build(symbolic_plan()).save(folder / "symbolic.so")
    build(parallel_plan(repeats=20)).save(folder / "parallel.so")
    return folder
