"""A folder of models and inputs, and what runs command lines."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import sparsec
from sparsec.cli import main
from tests.cli.command_lines import BATCH, DEPTH, HIDDEN, ROWS, Call, Result, perceptron, sparse


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> Result:
        with pytest.raises(SystemExit) as exit_:
            main([str(arg) for arg in args])
        status = exit_.value.code
        assert isinstance(status, int)
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [sparse(rng, DEPTH, HIDDEN), sparse(rng, HIDDEN, ROWS)]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, weights: list[np.ndarray]) -> Path:
    """A folder of good and bad models and inputs."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(perceptron(weights), folder / "model.onnx")
    onnx.save(perceptron(weights, "batch"), folder / "open.onnx")
    onnx.save(perceptron(weights, operator="RandomUniformLike"), folder / "random.onnx")
    onnx.save(perceptron(weights, 8), folder / "eight.onnx")
    other = perceptron(weights)
    other.graph.input[0].name = other.graph.node[0].input[0] = "z"
    onnx.save(other, folder / "other.onnx")
    (folder / "text.onnx").write_text("this is not a model\n")
    whole = (folder / "model.onnx").read_bytes()
    (folder / "short.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(
        perceptron(weights), folder / "split.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0
    )
    (folder / "gone.bin").unlink()
    artifact = sparsec.compile(folder / "model.onnx").save(folder / "model.so")
    library = artifact.read_bytes()
    (folder / "short.so").write_bytes(library[: len(library) // 2])
    rng = np.random.default_rng(1)
    np.save(folder / "x.npy", rng.standard_normal((BATCH, DEPTH), np.float32))
    np.save(folder / "narrow.npy", np.zeros((BATCH, DEPTH - 1), np.float32))
    np.save(folder / "double.npy", np.zeros((BATCH, DEPTH)))
    (folder / "text.npy").write_text("these are not numbers\n")
    return folder
