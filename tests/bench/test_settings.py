"""Races of an engine against itself, and the cores that engines are held to."""

import os
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsec.bench import Ratio, engine, race, seeded_inputs
from sparsec.bench.settings import Setting, compare_settings, outputs

ALLOWED = sorted(os.sched_getaffinity(0))


@pytest.fixture
def models(tmp_path):
    """Products of matrices of 8 and of 800 rows."""
    paths = {}
    for rows in (8, 800):
        shape = [rows, 256]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
        weight = numpy_helper.from_array(np.ones((256, 256), np.float32), "w")
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", ends[:1], ends[1:], [weight])
        paths[rows] = tmp_path / f"{rows}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), paths[rows])
    return paths


def recorder(folder) -> str:
    """An interpreter with a sparsec that notes the cores it may run on."""
    (folder / "sparsec.py").write_text(
        "import os\n"
        "class Session:\n"
        "    def bind(self, x):\n"
        "        open(LOG, 'a').write(f'{sorted(os.sched_getaffinity(0))}\\n')\n"
        "        return lambda: x\n"
        "def load(path, threads):\n"
        "    return Session()\n".replace("LOG", repr(str(folder / "log")))
    )
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_settings_take_turns(models):
    settings = {name: Setting(models[rows], models[rows]) for name, rows in {"small": 8, "large": 800}.items()}
    times = compare_settings("onnxruntime", settings, seconds=0.1)
    assert list(times) == ["small", "large"] and len(times["small"]) == len(times["large"]) >= 3
    assert Ratio.of(times["large"], times["small"]).median > 3


def test_outputs_are_those_of_the_setting(models):
    (answer,) = outputs("onnxruntime", Setting(models[8], models[8]))
    x = seeded_inputs(models[8])["x"]
    np.testing.assert_allclose(answer, x @ np.ones((256, 256), np.float32), rtol=1e-4, atol=1e-4)


def test_what_an_engine_cannot_run_is_left_out(models, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"hello")
    settings = {"whole": Setting(models[8], models[8]), "broken": Setting(models[8], tmp_path / "broken.onnx")}
    assert list(compare_settings("onnxruntime", settings, seconds=0.1)) == ["whole"]
    del settings["whole"]
    assert compare_settings("onnxruntime", settings, seconds=0.1) == {}


@pytest.mark.parametrize("pinned", [True, False])
def test_engines_are_held_to_as_many_cores_as_threads(models, tmp_path, pinned):
    python = recorder(tmp_path)
    settings = {str(threads): Setting(models[8], "net.so", threads) for threads in (1, len(ALLOWED))}
    compare_settings("sparsec", settings, 0.1, python, pinned)
    race(models[8], ("onnxruntime",), 1, "net.so", 0.1, pythons={"sparsec": python}, pinned=pinned)
    one = [engine._processors(1) if pinned else ALLOWED]
    expected = [*one, *([ALLOWED] if len(ALLOWED) > 1 else []), *one]
    assert (tmp_path / "log").read_text().splitlines() == list(map(str, expected))


def test_threads_have_cores_of_their_own_while_there_are_such(monkeypatch):
    monkeypatch.setattr(engine, "cores", lambda: [[0, 4], [1, 5], [2]])
    assert engine._processors(2) == [0, 1] and engine._processors(4) == [0, 1, 2, 4]
    assert engine._processors(9) == [0, 1, 2, 4, 5]


def test_ratios_are_those_of_rounds():
    assert Ratio.of([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == Ratio(3.0, 2.0, 4.0)
    with pytest.raises(ValueError, match="longer"):
        Ratio.of([1.0], [1.0, 2.0])
