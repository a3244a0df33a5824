"""`sparsec prune`: what it writes and shows, and that every failure is one sentence and exit code 2."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.cli import main

ROWS, DEPTH = 32, 64


class Result(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `sparsec prune` in a folder with a model, its calibration inputs, and files that are none of these."""
    monkeypatch.chdir(tmp_path)
    onnx.save(perceptron(), "model.onnx")
    onnx.save(perceptron(), "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)
    onnx.save(perceptron(), "lost.onnx", save_as_external_data=True, location="lost.bin", size_threshold=0)
    Path("lost.bin").unlink()
    Path("text.onnx").write_text("this is not a model\n")
    rng = np.random.default_rng(1)
    np.savez("x.npz", x=rng.standard_normal((4, DEPTH), np.float32))
    np.savez("z.npz", z=np.zeros(3))
    Path("short.npz").write_bytes(Path("x.npz").read_bytes()[:-40])
    np.save("x.npy", np.zeros((4, DEPTH), np.float32))

    def call(*args: object) -> Result:
        with pytest.raises(SystemExit) as exit_:
            main(["prune", *map(str, args)])
        status = exit_.value.code
        assert isinstance(status, int)
        return Result(status, *capsys.readouterr())

    return call


def perceptron() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"], name="fc1"),
        helper.make_node("Relu", ["hidden"], ["active"], name="act"),
        helper.make_node("MatMul", ["active", "second"], ["y"], name="fc2"),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [
            numpy_helper.from_array(rng.standard_normal((DEPTH, ROWS), np.float32), "first"),
            numpy_helper.from_array(rng.standard_normal((ROWS, 8), np.float32), "second"),
        ],
        doc_string="kept as it is",
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def weights(path: str) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_a_model_is_pruned_and_shown(cli: Call) -> None:
    result = cli("model.onnx", "--pattern", "tile-wise:8", "--sparsity", "0.75", "-o", "out.onnx")
    assert (result.status, result.err) == (0, "")
    for word in (
        "pruned to tile-wise:8",
        "fc1",
        "fc2",
        "2 layers, 2 pruned",
        "75.0%",
        "Next: sparsec inspect out.onnx",
    ):
        assert word in result.out
    expected = sparsec.prune("model.onnx", "tile-wise:8", 0.75)
    for name, array in weights("out.onnx").items():
        np.testing.assert_array_equal(array != 0, expected.masks[name])
    assert onnx.load("out.onnx").graph.doc_string == "kept as it is"
    assert not list(Path().glob(".*.new"))


def test_the_output_has_the_models_name_if_it_has_none(cli: Call) -> None:
    assert cli("model.onnx", "--pattern", "2:4", "--quiet") == (0, "", "")
    assert all(np.count_nonzero(array) * 2 == array.size for array in weights("model.pruned.onnx").values())


def test_json_says_what_became_of_each_layer(cli: Call) -> None:
    result = cli("model.onnx", "--sparsity", "0.5", "--skip", "fc2", "--json")
    report = json.loads(result.out)
    assert (result.status, result.err) == (0, "")
    assert (report["model"], report["pattern"], report["sparsity"]) == ("model.pruned.onnx", "unstructured", 0.5)
    assert [(layer["name"], layer["sparsity"], layer["kept"]) for layer in report["layers"]] == [
        ("fc1", 0.5, ""),
        ("fc2", 0.0, "is skipped"),
    ]


def test_what_was_not_pruned_is_shown_with_the_reason(cli: Call) -> None:
    out = cli("model.onnx", "--pattern", "channels", "--sparsity", "0.5").out
    assert "not pruned: computes outputs of the model" in out


def test_a_layer_of_which_nothing_is_left_is_pointed_at(cli: Call) -> None:
    model = perceptron()
    tensor = model.graph.initializer[1]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e-3), tensor.name))
    onnx.save(model, "faint.onnx")
    out = cli("faint.onnx", "--sparsity", "0.5").out
    assert "Warning: nothing is left of 1 layer (fc2); try --scope layer" in out and out.count("nothing is left") == 2
    assert json.loads(cli("faint.onnx", "--sparsity", "0.5", "--json").out)["emptied"] == ["fc2"]
    assert "nothing is left" not in cli("faint.onnx", "--sparsity", "0.5", "--scope", "layer").out


def test_calibration_changes_what_is_kept(cli: Call) -> None:
    scale = np.linspace(0, 10, DEPTH, dtype=np.float32)
    np.savez("scaled.npz", x=np.ones((4, DEPTH), np.float32) * scale)
    options = ("--sparsity", "0.5", "--skip", "fc2", "-q", "-o", "out.onnx")
    assert cli("model.onnx", "--score", "activations", "--calibration", "scaled.npz", *options).status == 0
    first = weights("out.onnx")["first"]
    assert np.count_nonzero(first[: DEPTH // 2]) < np.count_nonzero(first[DEPTH // 2 :])
    assert not first[0].any()


def test_external_data_ends_inside(cli: Call) -> None:
    assert cli("split.onnx", "--pattern", "2:4", "-q", "-o", "whole.onnx").status == 0
    Path("split.bin").unlink()
    assert np.count_nonzero(weights("whole.onnx")["first"]) == ROWS * DEPTH // 2


def test_a_pruned_model_is_one_that_inspect_reads(cli: Call) -> None:
    assert cli("model.onnx", "--pattern", "block:4x1", "--sparsity", "0.9", "-q", "--skip", "fc2").status == 0
    layers = sparsec.inspect("model.pruned.onnx").layers
    assert "4x1 blocks" in layers[0].structure
    assert layers[0].sparsity == pytest.approx(0.9, abs=1e-2)


FAILURES = [
    (["model.onnx"], "the pattern unstructured leaves the sparsity open; state it, as in 0.75"),
    (["model.onnx", "--sparsity", "75"], "a sparsity is between 0 and 1, as in 0.75, and not 75"),
    (["model.onnx", "--sparsity", "much"], "'much' is not a valid float"),
    (["model.onnx", "--pattern", "waffle"], "cannot read the pattern 'waffle'; write it like one of unstructured, 2:4"),
    (["model.onnx", "--pattern", "5:4"], "is no pattern: n of m weights"),
    (["model.onnx", "--pattern", "2:4", "--sparsity", "0.75"], r"2:4 is 50\.0% sparse, and cannot be 75\.0%"),
    (["model.onnx", "--pattern", "fkw"], "nothing to prune: 'fc1' has kernels of 1 tap"),
    (
        ["model.onnx", "--pattern", "2:4", "--skip", "fc3"],
        "no layer with weights is named 'fc3'; the model has fc1, fc2",
    ),
    (["model.onnx", "--pattern", "2:4", "-o", "model.onnx"], "it is the model itself"),
    (["model.onnx", "--pattern", "2:4", "-o", "no/where.onnx"], "cannot write no/where.onnx: there is no folder"),
    (["nothing.onnx", "--pattern", "2:4"], "cannot read nothing.onnx: No such file"),
    (["text.onnx", "--pattern", "2:4"], "text.onnx is not an ONNX file"),
    (["lost.onnx", "--pattern", "2:4"], "keeps the weight 'first' in 'lost.bin', which cannot be read"),
    (["model.so", "--pattern", "2:4"], "model.so is a compiled library; prune the ONNX file"),
    (["model.onnx", "--pattern", "2:4", "--score", "activations"], "need one another"),
    (["model.onnx", "--pattern", "2:4", "--calibration", "x.npz"], "need one another"),
    (["model.onnx", "--pattern", "2:4", "--score", "activations", "--calibration", "no.npz"], "cannot read no.npz: No"),
    (["model.onnx", "--pattern", "2:4", "--score", "activations", "--calibration", "x.npy"], "is not a .npz file"),
    (["model.onnx", "--pattern", "2:4", "--score", "activations", "--calibration", "text.onnx"], "is not a .npz file"),
    (["model.onnx", "--pattern", "2:4", "--score", "activations", "--calibration", "short.npz"], "is not a .npz file"),
    (["model.onnx", "--pattern", "2:4", "--score", "activations", "--calibration", "z.npz"], "has no input 'z'"),
]


@pytest.mark.parametrize(
    ("arguments", "why"), FAILURES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_failures_are_one_sentence(cli: Call, arguments: list[str], why: str) -> None:
    result = cli(*arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert re.search(why, result.err), result.err
    assert not Path("model.pruned.onnx").exists()
