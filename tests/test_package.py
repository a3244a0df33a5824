"""What setup.cfg says agrees with what is on disk."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import sparsec

ROOT = Path(__file__).parent.parent


def setup_cfg() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def entries(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_packages_are_the_folders_on_disk() -> None:
    options = setup_cfg()["options"]
    homes = dict(re.split(r"\s*=\s*", line) for line in entries(options["package_dir"]))
    on_disk = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in homes.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    listed = entries(options["packages"])
    assert sorted(listed) == sorted(on_disk)


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in ("ir", "schedules", "sparsec"):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} would not be installed"


def test_data_files_are_listed() -> None:
    listed = {package: re.split(r"\s*,\s*", text) for package, text in setup_cfg()["options.package_data"].items()}
    for path in (ROOT / "sparsec").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in listed.get(package, ())), path


def test_the_operators_load_on_first_use() -> None:
    code = "import sparsec, sys; assert 'tvm' not in sys.modules; print(sparsec.operators.matmul.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "matmul\n", done.stderr


def test_version_is_the_same_everywhere() -> None:
    version = setup_cfg()["metadata"]["version"]
    assert sparsec.__version__ == version
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == version


def test_documents_link_to_files_that_exist() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
