"""The README's tables: built from kept results, put between their markers, everything else untouched."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import peers_rows, readme_table

RESULTS = {
    "machine": {"cpu": "Test CPU", "cores": 2, "caches": {"L1d": 32768}, "features": [], "system": "Linux"},
    "contests": [
        {
            "network": "resnet50",
            "sparsity": 0.9,
            "threads": 1,
            "date": "2026-11-20T12:00:00+00:00",
            "lanes": [
                {
                    "engine": "sparsec",
                    "version": "0.1.0",
                    "times": [0.010, 0.012, 0.011],
                    "error": 1e-6,
                    "agrees": True,
                },
                {"engine": "onnxruntime", "version": "1.31.1", "times": [0.040, 0.041, 0.039], "agrees": True},
                {"engine": "openvino", "version": "2026.4.1", "times": [0.036, 0.036, 0.036], "agrees": True},
            ],
            "speedup": {"onnxruntime": {"median": 3.6}, "openvino": {"median": 3.27}},
        }
    ],
}
BYTES = RESULTS | {"contests": [RESULTS["contests"][0] | {"structure": "4×1 blocks"}]}
SHARES = {"sparsec": 0.8, "openvino": 0.5}, {"sparsec": 0.2, "openvino": 0.5}
LAYERS = {"machine": RESULTS["machine"], "layers": [{"share_of_peak": s, "times": dict.fromkeys(s)} for s in SHARES]}
BLOCKS = {
    "machine": RESULTS["machine"],
    "layers": [{"block": [16, 4], "sparsity": 0.8, "share": s} for s in (0.98, 0.5)],
}
ROW = peers_rows.SECTIONS["fp32"][-1]
PEERS = {"machine": RESULTS["machine"], "rows": {ROW.key: RESULTS["contests"][0] | {"gain": {}}}}
PLACES = "".join(f"<!-- {name} -->\nold\n<!-- end of {name} -->\nafter\n" for name, *_ in readme_table.TABLES)


@pytest.fixture
def readme(tmp_path, monkeypatch):
    tables = []
    for (name, _, write), results in zip(readme_table.TABLES, (PEERS, BYTES, LAYERS, BLOCKS, PEERS), strict=True):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "machine.json").write_text(json.dumps(results))
        tables.append((name, folder, write))
    monkeypatch.setattr(readme_table, "TABLES", tuple(tables))
    path = tmp_path / "README.md"
    path.write_text(f"before\n{PLACES}")
    return path


def test_table_is_rewritten_in_place(readme):
    for _ in range(2):  # the second time changes nothing
        result = CliRunner().invoke(readme_table.main, [str(readme)])
        assert result.exit_code == 0, result.output
        page = readme.read_text()
        assert page.startswith("before\n") and page.count("\nafter\n") == 5 and "old" not in page
        assert f"| {ROW.model} | {ROW.zeros} | fp32 | 11.0 ms | 36.0 ms | – | **3.27×** | – |" in page
        assert "| ResNet-50, 224² | 90 %, 4×1 blocks | 1 | 11.0 |" in page
        assert "One thread, batch 1, 2026-11-20, Test CPU, 2 cores (L1d 32 KB)" in page and page.count("ResNet-50") == 3
        assert f"| {ROW.model} | {ROW.zeros} | 11.0 | 40.0 | 36.0 | – | **3.27× ✗ 6.5×** | – | 1e-06 |" in page
        assert "geometric means on Test CPU: 16×4 70% (80% zeros)." in page
        assert "2 convolutions" in page and "geometric means on Test CPU: sparsec 40%, OpenVINO 50%." in page


def test_the_latest_machine_stands_first_and_the_others_are_folded(readme):
    folder = readme.parent / "int8 table"
    contest = RESULTS["contests"][0] | {"date": "2026-12-01T12:00:00+00:00"}
    later = {"machine": RESULTS["machine"] | {"cpu": "Later CPU"}, "contests": [contest], "date": contest["date"]}
    (folder / "zeroth.json").write_text(json.dumps(later))
    assert CliRunner().invoke(readme_table.main, [str(readme)]).exit_code == 0
    first, folded = readme.read_text().split("<details><summary>On Test CPU, ")
    assert "Later CPU" in first and "int8, batch 1, 2026-11-20, Test CPU" in folded and "</details>" in folded


def test_the_machine_with_the_most_races_stands_before_later_ones(readme):
    folder, date = readme.parent / "headline table", "2026-12-01T12:00:00+00:00"
    more = PEERS | {"rows": {row.key: PEERS["rows"][ROW.key] for row in peers_rows.SECTIONS["fp32"]}}
    (folder / "machine.json").write_text(json.dumps(more))
    later = PEERS | {"machine": RESULTS["machine"] | {"cpu": "Later CPU"}, "date": date}
    (folder / "zeroth.json").write_text(json.dumps(later))
    assert CliRunner().invoke(readme_table.main, [str(readme)]).exit_code == 0
    assert "<details><summary>On Later CPU, " in readme.read_text()


def test_markers_must_be_there(readme):
    readme.write_text("no table here\n")
    result = CliRunner().invoke(readme_table.main, [str(readme)])
    assert result.exit_code == 1 and "no place for the headline table" in result.output
    assert readme.read_text() == "no table here\n"


def test_results_must_be_there(readme):
    paths = list(readme.parent.glob("*/machine.json"))
    for path in paths[1:]:
        path.unlink()
    assert CliRunner().invoke(readme_table.main, [str(readme)]).exit_code == 0
    assert readme.read_text().count("\nold\n") == 4  # places without results stay as they are
    paths[0].unlink()
    result = CliRunner().invoke(readme_table.main, [str(readme)])
    assert result.exit_code == 1 and "run `make bench-peers` first" in result.output
