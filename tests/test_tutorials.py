"""Every tutorial runs from top to bottom, shows what it promises, and is as short as it promises."""

import ast
import re
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
        'with T.sblock("fma_',
        "T.vectorized(",
        "== the inner loop",
        "× as fast",
    ],
    "03_prune_and_fine_tune.py": ["test images are right", "tile-wise:32", "plotted 5 patterns", "tile-wise at 75%: "],
    "04_a_new_layout.py": [
        "a run for each two filters",
        "refused: matmul: runs cannot hold this weight",
        "the convolution is stored as (i, k) -> (i",
        "  runs  ",
    ],
    "05_a_new_operator.py": [
        "best[v] = max(best[v], T * P[T.k, m + v])",
        "the interpreter computes what NumPy computes",
        "bucketed rows         exact",
    ],
    "06_a_new_instruction.py": [
        "for v0 in range(0, 24, 4), v1 in range(0, 4), l in range(0, 2) as x86.pmaddwd.128:",
        "for v0 in range(0, 16, 4), v1 in range(0, 4), l in W[1] run as x86.pmaddwd.128:",
        "exact, interpreted and compiled",
        "times in the machine code, such as\n    pmaddwd ",
        *[f"\n        {kind}: " for kind in ("types", "length", "operators", "combiner", "extents", "access")],
        "in CSR: tensorize does not apply to the block 'update': ",
    ],
}

WRITTEN = {"03_prune_and_fine_tune.py": ["plot.png"]}
"""The arguments of some tutorials, which are the files that they write."""

SHORT: dict[str, tuple[int, list[str]]] = {
    "04_a_new_layout.py": (40, ["A layout in one line", "A level of its own", "A name", "A price"]),
    "05_a_new_operator.py": (80, ["The loops", "The schedule", "The operator", "What it computes"]),
    "06_a_new_instruction.py": (30, ["The instruction"]),
}
"""How many lines of code some sections of a tutorial may have together."""


def test_every_tutorial_is_known() -> None:
    assert {path.name for path in TUTORIALS.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_tutorial_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, TUTORIALS / name, *WRITTEN.get(name, [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for text in SHOWN[name]:
        assert text in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == WRITTEN.get(name, []), "a tutorial leaves nothing else behind"


@pytest.mark.parametrize("name", SHORT)
def test_what_is_added_takes_few_lines(name: str) -> None:
    text = (TUTORIALS / name).read_text()
    _, *parts = re.split(r"^# -- (.+?) -+$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    most, titles = SHORT[name]
    assert 0 < sum(code_lines(sections[title]) for title in titles) <= most


def code_lines(text: str) -> int:
    """How many lines are neither empty nor a comment nor a docstring."""
    texts = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    docstrings = {
        line
        for node in texts
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return sum(bool(line) and not line.startswith("#") and n not in docstrings for n, line in lines)
