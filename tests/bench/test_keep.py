"""Results of races are kept with the machine, where they are asked for or under its name."""

import json
from pathlib import Path

import pytest

from benchmarks.keep import keep, kept
from sparsec.bench.machine import this_machine
from sparsec.errors import InputError


def test_results_are_kept_with_the_machine(tmp_path: Path) -> None:
    path = keep({"layers": [1.5]}, tmp_path / "results")
    assert path == tmp_path / "results" / f"{this_machine().slug}.json"
    kept = json.loads(path.read_text())
    assert kept["layers"] == [1.5] and kept["machine"]["cpu"] == this_machine().cpu


def test_they_are_kept_elsewhere_where_that_is_asked_for(tmp_path: Path) -> None:
    path = keep({"layers": []}, tmp_path / "results", tmp_path / "mine" / "here.json", indent=None)
    assert path == tmp_path / "mine" / "here.json" and path.read_text().count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_what_was_kept_is_added_to_on_the_same_machine_only(tmp_path: Path) -> None:
    assert kept(tmp_path) == {}
    path = keep({"rows": {"a": 1}}, tmp_path)
    assert kept(tmp_path) == kept(tmp_path / "elsewhere", path) == {"rows": {"a": 1}}
    path.write_text(path.read_text().replace(this_machine().cpu, "Another CPU"))
    with pytest.raises(InputError, match=r"measured on another machine, Another CPU, .* name another file with --json"):
        kept(tmp_path)
