"""Races: turns, ratios, comparisons of outputs, and what is said when an engine cannot run."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsec.bench import Lane, Race, race, race_table, racing, seeded_inputs, summary_table
from sparsec.bench.machine import Machine, this_machine
from sparsec.bench.result import INT8_TOLERANCE, STORAGE_TOLERANCE
from sparsec.bench.worker import measure
from sparsec.errors import InputError, ModelError, SparsecError


def info(name: str, dtype: int, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.fixture
def model(tmp_path):
    """Looks up rows of a table, masks and scales them: an integer input, a mask and a float input."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "mask"], ["kept"]),
        helper.make_node("Add", ["kept", "x"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    inputs = [info("ids", TensorProto.INT64, [6]), info("mask", TensorProto.FLOAT, [6, 1]), info("x", 1, [6, 4])]
    outputs = [info("y", TensorProto.FLOAT, [6, 4]), info("z", TensorProto.FLOAT, [6, 4])]
    table = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "table")
    graph = helper.make_graph(nodes, "lookup", inputs, outputs, [table])
    path = tmp_path / "lookup.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def lane(engine: str, times: list[float]) -> Lane:
    return Lane(engine, "1.0", 0.1, times, min(times), error=1e-6, agrees=True)


RACE = Race(
    "net.onnx",
    threads=1,
    lanes=[lane("sparsec", [1.0, 2.0, 1.0]), lane("onnxruntime", [4.0, 6.0, 5.0]), lane("openvino", [3.0, 9.0, 3.5])],
    absent={"deepsparse": "not installed: pip install deepsparse"},
    reference="onnxruntime",
    machine=Machine("Test CPU", 2, {"L1d": 32768}),
)


def test_peers_run_the_same_model_and_agree(model):
    result = race(model, ("onnxruntime", "openvino"), threads=1, seconds=0.1)
    assert [done.engine for done in result.lanes] == ["onnxruntime", "openvino"]
    assert result.reference == "onnxruntime"
    for done in result.lanes:
        assert done.agrees and done.error < 1e-6
        assert 1e5 < done.memory_bytes < 1e9
        assert len(done.times) >= 3 and 0 < done.fastest <= done.seconds
    assert json.loads(json.dumps(result.to_json()))["lanes"][1]["engine"] == "openvino"


def test_peer_that_is_not_installed_is_reported(model, tmp_path):
    result = race(model, ("onnxruntime", "deepsparse"), seconds=0.1)
    assert result.absent == {"deepsparse": "not installed: pip install deepsparse"}
    no_interpreter = race(model, ("onnxruntime", "openvino"), seconds=0.1, pythons={"openvino": str(tmp_path / "none")})
    assert "interpreter does not start" in no_interpreter.absent["openvino"]


def test_an_engine_that_dies_tells_its_last_words(model, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'illegal instruction' >&2\nexit 4\n")
    python.chmod(0o755)
    with pytest.raises(SparsecError, match=r"no peer could run .*exit code 4, illegal instruction"):
        race(model, ("onnxruntime",), seconds=0.1, pythons={"onnxruntime": str(python)})


def test_an_artifact_that_does_not_load_is_an_error(model, tmp_path):
    with pytest.raises(SparsecError, match="sparsec could not run"):
        race(model, ("onnxruntime",), artifact=tmp_path / "absent.so", seconds=0.1)


@pytest.mark.parametrize("shift, agrees", [(0.0, True), (0.1, False)])
def test_sparsec_is_raced_first_and_its_answers_are_checked(model, tmp_path, shift, agrees):
    (tmp_path / "sparsec.py").write_text(
        "import numpy as np\n"
        "def load(path, threads):\n"
        "    assert (path, threads) == ('model.so', 2)\n"
        "    return Session()\n"
        "class Session:\n"
        "    def bind(self, ids, mask, x):\n"
        "        y = np.arange(12, dtype=np.float32).reshape(3, 4)[ids] * mask + x\n"
        "        results = y, np.maximum(y, 0) + np.float32(SHIFT)\n"
        "        return lambda: results\n".replace("SHIFT", str(shift))
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    result = race(model, ("onnxruntime",), 2, "model.so", seconds=0.1, pythons={"sparsec": str(python)})
    assert [done.engine for done in result.lanes] == ["sparsec", "onnxruntime"]
    assert result.lane("sparsec").agrees is agrees
    ratio = result.speedup(over="onnxruntime")
    assert 0 < ratio.min <= ratio.median <= ratio.max


def test_unknown_peer():
    with pytest.raises(InputError, match="unknown peer 'tensorrt': sparsec can be raced against deepsparse, onnx"):
        race("net.onnx", ("tensorrt",))


def test_not_a_model(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"hello")
    with pytest.raises(ModelError, match="cannot be read as an ONNX model"):
        race(tmp_path / "net.onnx")


def test_inputs_are_seeded_and_in_range(model):
    first, again, other = (seeded_inputs(model, seed=seed) for seed in (0, 0, 1))
    assert first["ids"].dtype == np.int64 and first["ids"].shape == (6,)
    assert set(np.concatenate([seeded_inputs(model, seed=s)["ids"] for s in range(9)])) == {0, 1, 2}
    np.testing.assert_array_equal(first["mask"], 1)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert np.any(first["x"] != other["x"])


def test_open_shapes_must_be_closed(model):
    opened = onnx.load(model)
    opened.graph.input[2].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(opened, model)
    with pytest.raises(InputError, match=r"input x of .* has the open shape \[batch,4\]: close it with --shape x="):
        seeded_inputs(model)
    assert seeded_inputs(model, shapes={"x": (2, 4)})["x"].shape == (2, 4)


def test_speedup_is_the_median_of_ratios_within_rounds():
    ratio = RACE.speedup(over="openvino")
    assert (ratio.median, ratio.min, ratio.max) == (3.5, 3.0, 4.5)
    assert RACE.best_peer == "openvino"
    assert RACE.to_json()["speedup"]["onnxruntime"] == {"median": 4.0, "min": 3.0, "max": 5.0}
    with pytest.raises(InputError, match="deepsparse did not take part in this race: not installed"):
        RACE.speedup(over="deepsparse")


def test_tables_show_ratios_errors_and_absences(capsys):
    from rich.console import Console

    wrong = replace(RACE, lanes=[replace(RACE.lanes[0], error=0.5, agrees=False), *RACE.lanes[1:]])
    console = Console(width=160)
    console.print(race_table(RACE))
    console.print(summary_table([("Net, 90 %", RACE), ("Wrong", wrong)], "results"))
    shown = capsys.readouterr().out
    assert "3.50×" in shown and "3.00–4.50" in shown
    assert "DeepSparse did not run: not installed: pip install deepsparse" in shown
    assert "5.0e-01" in shown


class FakeEngine:
    def __init__(self, name: str, seconds: float, log: list):
        self.name, self._seconds, self._log = name, seconds, log

    def run(self, iterations: int) -> list[float]:
        self._log.append((self.name, iterations))
        return [self._seconds] * iterations


def test_engines_take_turns_of_about_the_same_length():
    log: list = []
    rounds = racing.take_turns([FakeEngine("slow", 0.1, log), FakeEngine("fast", 0.01, log)], seconds=0.0)
    assert len(rounds) == 3
    assert log[4:] == [("slow", 3), ("fast", 30)] * 3


def test_peers_may_run_another_form_and_round_to_bytes_elsewhere(model, tmp_path):
    """Where the model computes with bytes, engines agree that are a step of its scale apart."""
    rounded = onnx.load(model)
    del rounded.graph.output[1]
    rounded.graph.node[3].CopyFrom(helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["bytes"]))
    rounded.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    rounded.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    rounded.graph.node[2].output[0] = rounded.graph.node[3].input[0] = "exact"
    rounded.graph.node.append(helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["y"]))
    plain = onnx.load(model)
    del plain.graph.output[1], plain.graph.node[3]
    paths = {"rounded": tmp_path / "rounded.onnx", "plain": tmp_path / "plain.onnx"}
    onnx.save(rounded, paths["rounded"])
    onnx.save(plain, paths["plain"])
    for name, agrees in ("rounded", True), ("plain", False):
        files = {"openvino": paths["plain" if name == "rounded" else "rounded"]}
        peer = race(paths[name], ("onnxruntime", "openvino"), seconds=0.1, files=files).lane("openvino")
        assert 1e-3 < peer.error < 0.1 and peer.agrees is agrees


def test_measure_times_every_run_but_the_first():
    calls: list = []
    assert len(measure(lambda: calls.append(None), 5)) == 5
    assert len(calls) == 6


def test_outputs_are_compared_by_their_scale():
    reference = [np.float32([100.0, 1.0]), np.float32([np.nan, np.inf])]
    compare = racing._compare
    assert compare(reference, reference) == (0.0, True)
    near = [np.float32([100.0, 1.005]), reference[1]]
    error, agrees = compare(near, reference)
    assert error == pytest.approx(5e-5, rel=1e-3) and agrees
    far = [np.float32([100.0, 1.02]), reference[1]]
    assert compare(far, reference)[1] is False
    nan = [np.float32([np.nan, 1.0]), reference[1]]
    assert compare(nan, reference) == (np.inf, False)
    assert compare([reference[0][:1], reference[1]], reference) == (np.inf, False)
    assert compare(reference[:1], reference) == (np.inf, False)
    assert compare(far, reference, STORAGE_TOLERANCE["float16"])[1] is True
    stored = (STORAGE_TOLERANCE["float16"], 0.39), (STORAGE_TOLERANCE["bfloat16"], 3.1)
    for tolerance, bound in *stored, (INT8_TOLERANCE, 10):
        for off, agrees in (0.95 * bound, True), (1.1 * bound, False):
            outputs = [np.float32([100.0, off]), reference[1]]
            assert compare(outputs, [np.float32([100.0, 0.0]), reference[1]], tolerance)[1] is agrees
    assert compare([np.uint8([3, 200])], [np.uint8([5, 200])]) == (0.01, False)


def test_machine_is_described():
    machine = this_machine()
    assert machine.cpu and machine.cores >= 1
    named = Machine("AMD EPYC (family 26, model 2)", 2, {"L1d": 49152, "L2": 1 << 20})
    assert named.slug == "amd-epyc-family-26-model-2-2-cores"
    assert str(named) == "AMD EPYC (family 26, model 2), 2 cores (L1d 48 KB, L2 1024 KB)"
