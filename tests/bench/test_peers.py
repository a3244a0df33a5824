"""The race against all peers: what is raced, which forms and cores it is raced on, and what is kept and shown of it."""

import json
from dataclasses import asdict

import pytest
from click.testing import CliRunner

from benchmarks import peers, peers_course, peers_table
from benchmarks.models import MODELS
from benchmarks.peers_course import Compiled, Course
from benchmarks.peers_rows import AIMS, FORMS, SECTIONS, Row
from sparsec.bench import Lane, Race
from sparsec.bench.machine import Machine, this_machine
from sparsec.errors import ModelError, SparsecError
from tests.bench.test_int8 import SMALL

ROWS = [row for rows in SECTIONS.values() for row in rows]
NETWORK = Row("resnet50", "fp32", 0.9)
TIMES = {"sparsec": 0.010, "onnxruntime": 0.070, "openvino": 0.060, "deepsparse": 0.015}


def lane(engine: str, seconds: float) -> Lane:
    return Lane(engine, "1.0", 0.1, [seconds] * 3, seconds, error=2e-6, agrees=True)


def found(row: Row, **more: object) -> dict:
    machine = Machine("Test CPU", 2, {"L1d": 32768})
    lanes = [lane(engine, seconds) for engine, seconds in TIMES.items()]
    race = Race("net.onnx", row.threads, lanes, {}, "onnxruntime", machine, "2026-11-20T12:00:00+00:00")
    forms = dict.fromkeys(TIMES, row.precision)
    return {"row": asdict(row), "forms": forms, "gain": {}, **race.to_json(), **more}


def shown(*raced: tuple[Row, dict]) -> str:
    machine = {"cpu": "Test CPU", "cores": 2, "caches": {"L1d": 32768}}
    return peers_table.tables({"machine": machine, "rows": {row.key: race for row, race in raced}})


def test_rows_are_told_apart_and_can_be_made():
    assert len({row.key for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.network in MODELS and row.options["opset"] == 13
    assert len({(row.network, row.precision, *sorted(row.options.items()), row.sparsity) for row in FORMS}) == len(AIMS)
    assert {row.options.get("tokens", 128) for row in SECTIONS["tokens"]} == {1, 16, 37, 128, 129, 384, 512}


def test_every_form_has_an_aim_and_a_table_has_a_heading():
    assert [row.aims for row in FORMS] == list(AIMS.values())
    assert all(row.aims == (None, None) for row in SECTIONS["threads"])
    assert SECTIONS.keys() == peers_table.HEADINGS.keys()


def test_rows_are_named_by_what_sets_them_apart():
    row = Row("bert_base", "int8", 0.9, "block:4x1", section="int8")
    assert (row.model, row.zeros) == ("BERT-base, 128 tokens", "90 %, 4×1 blocks")
    assert Row("vgg16", "fp32", 0.95, extent=200).model == "VGG-16, 200²"
    assert row.options == {"opset": 13, "prune": "block:4x1"}
    assert Row("bert_base", "fp32", 0.0, extent=16, batch=2).options == {"opset": 13, "tokens": 16, "batch": 2}


def test_tables_compare_with_the_faster_dense_peer_and_mark_aims():
    text = shown((SECTIONS["fp32"][7], found(SECTIONS["fp32"][7])))
    assert SECTIONS["fp32"][7].zeros == "90 %"
    cells = "| ResNet-50, 224² | 90 % | 10.0 | 70.0 | 60.0 | 15.0 | **6.00× ✓ 5×** | **1.50× ✗ 2×** | 2e-06 | – | – |"
    assert cells in text and text.startswith("fp32, one thread") and "<details>" not in text
    assert "2026-11-20, Test CPU, 2 cores (L1d 32 KB). sparsec 1.0, ONNX Runtime 1.0, OpenVINO 1.0, DeepSparse" in text


def test_tables_say_what_is_wrong_or_absent():
    row = SECTIONS["fp32"][7]
    race = found(row)
    race["lanes"][2]["agrees"] = False
    del race["lanes"][3]
    race["lanes"][2]["error"] = 0.4
    text = shown((row, race))
    assert "| 60.0 ≠ 4e-01 | – | **6.00× ✓ 5×** | – | 2e-06 | – | – |" in text
    assert "Behind ≠ stands the error" in text and "≠" not in shown((row, found(row)))


def test_tables_of_bytes_show_forms_and_the_error_against_floats():
    row = SECTIONS["int8"][1]
    race = found(row, float_error=dict.fromkeys(TIMES, 0.043) | {"onnxruntime": 0.11})
    race["forms"]["deepsparse"] = "fp32"
    assert "| 70.0 ≠ 11.0% | 60.0 | 15.0 (in fp32) | **6.00× ✓ 3×** | **1.50×** | 4.3% |" in shown((row, race))


def test_more_threads_and_items_are_compared_with_one():
    two, batch = SECTIONS["threads"][0], SECTIONS["batch"][1]
    gain = {"sparsec": {"median": 1.8, "min": 1.7, "max": 1.9}}
    text = shown((two, found(two, gain=gain)), (batch, found(batch, gain=gain)))
    assert "| 0 % | 10.0 (1.80× ✗ 1.85×) | 70.0 |" in text
    assert "| 90 % | 0.31 (1.80×) | 2.19 |" in text
    assert text.startswith("<details>") and "</details>\n\n2026-11-20" in text


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course where nothing is compiled or measured."""
    monkeypatch.setattr(peers_course, "compile_once", lambda model, target, threads: Compiled(model, model, 0.0))
    return Course(tmp_path, 1.0, tuple(TIMES)[1:])


def test_a_peer_runs_the_form_that_it_is_fastest_on(course, monkeypatch):
    files = {"linear": course.folder / "a", "adds": course.folder / "b", "fp32": course.folder / "c"}
    monkeypatch.setattr(Course, "files", lambda self, row: files)
    heats = {
        "onnxruntime": {"linear": [2.0], "adds": [1.0]},
        "deepsparse": {"adds": [3.0], "fp32": [2.0]},
        "openvino": {},
    }
    tried = {}

    def compare(engine, settings, seconds, python, pinned):
        tried[engine] = list(settings)
        return heats[engine]

    monkeypatch.setattr(peers_course, "compare_settings", compare)
    chosen = {peer: course._fastest_form(SECTIONS["int8"][1], peer) for peer in course.peers}
    assert chosen == {"onnxruntime": "adds", "openvino": "linear", "deepsparse": "fp32"}
    assert tried == {
        "onnxruntime": ["linear", "adds"], "openvino": ["linear", "adds"], "deepsparse": ["linear", "adds", "fp32"],
    }  # fmt: skip


def test_batches_are_compared_item_by_item(course, monkeypatch):
    row = SECTIONS["batch"][1]
    monkeypatch.setattr(Course, "files", lambda self, row: {"fp32": course.folder / f"{row.batch}.onnx"})
    raced = {}

    def compare(engine, settings, seconds, python, pinned):
        raced[engine] = {name: setting.file.name for name, setting in settings.items()}
        return {"base": [1.0, 2.0], "row": [16.0, 16.0]} if engine != "deepsparse" else {"base": [1.0]}

    monkeypatch.setattr(peers_course, "compare_settings", compare)
    result = Race("net.onnx", 1, [lane(engine, 1.0) for engine in TIMES], {}, "onnxruntime", this_machine())
    gains = course._gains(row, dict.fromkeys(TIMES, "fp32"), result)
    assert list(raced) == list(TIMES) and all(files == {"base": "1.onnx", "row": "32.onnx"} for files in raced.values())
    assert list(gains) == ["sparsec", "onnxruntime", "openvino"]
    assert all((ratio.min, ratio.median) == (2, 3) for ratio in gains.values())
    assert course._gains(row.base, {}, result) == {}


def test_a_row_is_compiled_for_its_threads(tmp_path, monkeypatch):
    asked = []

    class Artifact:
        def save(self, path):
            asked[-1] += (path.name,)

    def compile_for(model, target, threads):
        asked.append((target, threads))
        return Artifact()

    row = SECTIONS["threads"][1]
    monkeypatch.setattr(Course, "files", lambda self, row: {"fp32": tmp_path / "net.onnx"})
    monkeypatch.setattr(peers_course.sparsec, "compile", compile_for)
    for each in (row, row.base, row):
        Course(tmp_path, 1.0).compiled(each)
    assert asked == [("native", 2, "net.native.2.so"), ("native", 1, "net.native.1.so")]


def test_no_race_is_run_that_a_failing_profile_would_lose(course, monkeypatch):
    def fail(*given):
        raise SparsecError("there is no clock")

    raced = []
    monkeypatch.setattr(Course, "files", lambda self, row: {"fp32": course.folder / "a"})
    monkeypatch.setattr(Course, "_limits", fail)
    monkeypatch.setattr(peers_course, "race", lambda *given, **options: raced.append(given))
    with pytest.raises(SparsecError, match="there is no clock"):
        course.race(NETWORK)
    assert not raced


def run(*arguments: object):
    return CliRunner().invoke(peers.main, [*map(str, arguments)])


@pytest.fixture
def fake(monkeypatch):
    """Races that take no time; ResNet-50 cannot be compiled."""

    def compile_row(self, row: Row) -> None:
        if row.network == "resnet50":
            raise ModelError("it is broken")

    def race_row(self, row: Row):
        race = Race("net.onnx", 1, [lane("sparsec", 0.1), lane("openvino", 0.2)], {}, "openvino", this_machine())
        return race, {"seconds": self.seconds, "peers": self.peers}

    monkeypatch.setattr(Course, "compiled", compile_row)
    monkeypatch.setattr(Course, "race", race_row)


def test_reruns_replace_their_rows_alone(fake, tmp_path):
    output = tmp_path / "kept.json"
    common = ("--json", output, "--deepsparse", tmp_path / "none")
    first = run("-s", "batch", "-s", "fp32", "--seconds", 1, *common, "-r", "BERT-base")
    assert first.exit_code == 0 and "DeepSparse takes no part, for there is no" in first.output.replace("\n", " ")
    assert run("-s", "fp32", "--seconds", 2, *common, "-r", "tokens, 80 %", "-r", "tokens, 90 %").exit_code == 0
    kept = json.loads(output.read_text())
    assert kept["machine"]["cpu"] == this_machine().cpu
    assert {key: row["seconds"] for key, row in kept["rows"].items()} == {
        row.key: 2 if row.section == "fp32" and row.sparsity in (0.8, 0.9) else 1
        for row in ROWS
        if row.section in ("fp32", "batch") and row.network == "bert_base"
    }


def test_a_row_that_fails_does_not_end_the_rest(fake, tmp_path):
    output, python = tmp_path / "kept.json", tmp_path / "python"
    python.touch()
    result = run("-s", "batch", "--json", output, "--deepsparse", python)
    assert result.exit_code == 1 and "ResNet-50" in result.output and "it is broken" in result.output
    (row,) = json.loads(output.read_text())["rows"].values()
    assert row["peers"] == ["onnxruntime", "openvino", "deepsparse"]


def test_rows_that_need_more_cores_are_left_out(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "physical_cores", lambda: 1)
    result = run("-s", "threads", "--json", tmp_path / "kept.json", "--deepsparse", tmp_path / "none")
    assert result.exit_code == 0 and "may use 1 of the 2 cores" in result.output
    assert not (tmp_path / "kept.json").exists()


def test_results_of_another_machine_are_not_mixed(fake, tmp_path):
    output = tmp_path / "kept.json"
    output.write_text(json.dumps({"machine": asdict(Machine("Another CPU", 64)), "rows": {}}))
    result = run("--json", output)
    assert result.exit_code == 1 and "was measured on another machine, Another CPU, 64 cores" in result.output


def test_a_small_network_is_raced_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(Row, "options", SMALL | {"opset": 13})
    row = Row("bert_base", "int8", 0.9, section="int8", threads=1)
    race, kept = Course(tmp_path, 0.1).race(row)
    assert [done.engine for done in race.lanes] == ["sparsec", "onnxruntime", "openvino"]
    assert set(kept["forms"]) == {"onnxruntime", "openvino"} and "fp32" not in kept["forms"].values()
    assert kept["float_error"].keys() == {"sparsec", "onnxruntime", "openvino"} and kept["gain"] == {}
    assert 0 < kept["float_error"]["sparsec"] < 0.1
    json.dumps(kept)


def test_tables_show_how_far_from_the_limit_a_row_is():
    row = SECTIONS["fp32"][7]
    assert "| 2e-06 | 4.00 | 53% |" in shown((row, found(row, limit_seconds=4e-3, share_of_peak=0.531)))
