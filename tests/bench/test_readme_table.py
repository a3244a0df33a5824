"""The README's table: built from kept results, put between its markers, everything else untouched."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import readme_table

RESULTS = {
    "machine": {"cpu": "Test CPU", "cores": 2, "caches": {"L1d": 32768}, "features": [], "system": "Linux"},
    "contests": [
        {
            "network": "resnet50",
            "sparsity": 0.9,
            "threads": 1,
            "date": "2026-11-20T12:00:00+00:00",
            "lanes": [
                {"engine": "sparsec", "version": "0.1.0", "times": [0.010, 0.012, 0.011]},
                {"engine": "onnxruntime", "version": "1.31.1", "times": [0.040, 0.041, 0.039]},
                {"engine": "openvino", "version": "2026.4.1", "times": [0.036, 0.036, 0.036]},
            ],
            "speedup": {"onnxruntime": {"median": 3.6}, "openvino": {"median": 3.27}},
        }
    ],
}


@pytest.fixture
def readme(tmp_path, monkeypatch):
    (tmp_path / "machine.json").write_text(json.dumps(RESULTS))
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    path = tmp_path / "README.md"
    path.write_text(f"before\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n")
    return path


def test_table_is_rewritten_in_place(readme):
    for _ in range(2):  # the second time changes nothing
        result = CliRunner().invoke(readme_table.main, [str(readme)])
        assert result.exit_code == 0, result.output
        page = readme.read_text()
        assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
        assert "| ResNet-50, 224² | 90 % | 1 | 11.0 | 40.0 | 36.0 | **3.27×** |" in page
        assert "Test CPU, 2 cores (L1d 32 KB)" in page and page.count("ResNet-50") == 1


def test_markers_must_be_there(readme):
    readme.write_text("no table here\n")
    result = CliRunner().invoke(readme_table.main, [str(readme)])
    assert result.exit_code == 1 and "the page holds no table" in result.output
    assert readme.read_text() == "no table here\n"


def test_results_must_be_there(readme):
    (readme.parent / "machine.json").unlink()
    result = CliRunner().invoke(readme_table.main, [str(readme)])
    assert result.exit_code == 1 and "run `make bench` first" in result.output
