"""Every tutorial runs from top to bottom, and shows what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parent.parent / "tutorials"

SHOWN = {
    "01_compile_a_pruned_model.py": ["unstructured", "largest difference from NumPy", "speed-up: "],
    "02_one_sparse_operator.py": [
        "(i, k) -> (i : dense, k : compressed)",
        "kernel linear(W: float32[256, 192] @ ",
        "interpreter against NumPy",
        '["tensorize", ',
        'with T.sblock("update")',
        "T.vectorized(",
        "== the inner loop",
        "× as fast",
    ],
    "03_prune_and_fine_tune.py": ["test images are right", "tile-wise:32", "plotted 5 patterns", "tile-wise at 75%: "],
}


def test_every_tutorial_is_known() -> None:
    assert {path.name for path in TUTORIALS.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_tutorial_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, TUTORIALS / name], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for text in SHOWN[name]:
        assert text in done.stdout
    assert not list(tmp_path.iterdir()), "a tutorial leaves nothing behind"
