"""Imports point one way, as docs/architecture.md draws it, and what is light stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen.artifact import build
from tests.codegen.small_plans import affine_plan

ROOT = Path(__file__).parent.parent
FOLDERS = {"sparsec.ir": ROOT / "ir", "sparsec.schedules": ROOT / "schedules", "sparsec": ROOT / "sparsec"}

MAY_IMPORT = {
    "errors": "",
    "targets": "errors",
    "runtime": "errors",
    "frontends": "errors",
    "report": "errors runtime",
    "pruning": "errors frontends",
    "ir": "errors targets",
    "schedules": "errors targets ir",
    "codegen": "errors targets runtime",
    "graph": "errors targets ir schedules frontends codegen",
    "search": "errors targets ir schedules graph codegen",
    "operators": "errors targets ir schedules graph",
    "compiler": "errors targets ir schedules frontends codegen graph search operators runtime report",
    "bench": "errors targets runtime report codegen",
    "cli": "errors targets frontends runtime report bench pruning",
}
"""Each part of sparsec, and the parts that it may know; every part may know itself and sparsec's public face."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of sparsec by the name that it is imported by."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.lineno, str(node.module)
            if node.module == "sparsec":
                yield from ((node.lineno, f"sparsec.{alias.name}") for alias in node.names)


def part(module: str) -> str:
    """The part of sparsec that a module belongs to; empty for the public face."""
    return [*module.split("."), ""][1]


def test_every_part_is_known() -> None:
    assert {part(name) for name, _ in modules()} == {"", *MAY_IMPORT}


@pytest.mark.parametrize("importer", MAY_IMPORT)
def test_imports_point_one_way(importer: str) -> None:
    allowed = {"", importer, *MAY_IMPORT[importer].split()}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for name, path in modules()
        if part(name) == importer
        for line, imported in imports(path)
        if imported.split(".")[0] == "sparsec" and part(imported) in MAY_IMPORT.keys() - allowed
    ]
    assert not wrong


def test_imports_are_found_however_they_are_written(tmp_path: Path) -> None:
    lines = (
        "import sparsec.graph",
        "from sparsec import graph",
        "from sparsec.graph import fuse",
        "import sparsec.graph as g",
    )
    for line in lines:
        (tmp_path / "module.py").write_text(f"def f():\n    {line}\n")
        assert "graph" in {part(imported) for _, imported in imports(tmp_path / "module.py")}


def test_runtime_needs_numpy_alone() -> None:
    bfloat16 = {"ml_dtypes"}  # gives NumPy the type, where a model has tensors of it
    allowed = {*sys.stdlib_module_names, "numpy", "sparsec"} | bfloat16
    used = {
        imported.split(".")[0] for name, path in modules() if part(name) == "runtime" for _, imported in imports(path)
    }
    assert used <= allowed


@pytest.mark.parametrize("package", ["ir", "schedules"])
def test_packages_refuse_a_second_name(package: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ImportError: import this package as 'sparsec.{package}'" in done.stderr


REPORT = "print('', *{name.partition('.')[0] for name in set(sys.modules) - before})"


def loaded(code: str) -> set[str]:
    """The packages outside the standard library that a fresh interpreter has loaded after some code."""
    command = [sys.executable, "-c", f"import sys; before = set(sys.modules)\n{code}\n{REPORT}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) - sys.stdlib_module_names


def test_import_is_light() -> None:
    assert loaded("import sparsec, sparsec.errors, sparsec.cli") == {"sparsec", "click"}


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["--version"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = f"from sparsec.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert loaded(code) == {"sparsec", "click"}


def test_load_and_run_need_numpy_alone(tmp_path: Path) -> None:
    build(affine_plan(np.ones(16, np.float32))).save(tmp_path / "model.so")
    code = f"""
import numpy, sparsec
session = sparsec.load({str(tmp_path / "model.so")!r}, threads=2)
session(*(numpy.zeros(info.max_shape, info.dtype) for info in session.inputs))
"""
    assert loaded(code) == {"sparsec", "numpy"}
