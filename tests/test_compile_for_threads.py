"""Layouts that are chosen for the threads that a model will run on."""

import numpy as np
import onnx
import pytest

import sparsec
from sparsec.errors import InputError
from tests.test_compiler import Builder, normal, sparse


def layer(tokens: int) -> onnx.ModelProto:
    b = Builder()
    b.MatMul("x", sparse(768, 768, density=0.1), name="y")
    return b.model({"x": [tokens, 768]}, {"y": [tokens, 768]})


@pytest.mark.parametrize("tokens, rows", [(16, "i floordiv 384"), (1, "alike[32, 2]")])
def test_rows_are_shared_out_among_threads(tokens: int, rows: str) -> None:
    model = layer(tokens)
    one, two = (sparsec.inspect(model, "znver4", threads=threads).layers[0].layout for threads in (1, 2))
    assert rows in two and rows not in one


@pytest.mark.parametrize("compiled", [1, 2, 3])
def test_any_number_of_threads_runs_what_is_compiled_for_another(compiled: int) -> None:
    model, x = layer(64), normal(64, 768)
    artifact = sparsec.compile(model, threads=compiled)
    assert artifact.manifest["target"]["cores"] == compiled
    expected = x @ onnx.numpy_helper.to_array(model.graph.initializer[0])
    for threads in (1, 2):
        np.testing.assert_allclose(artifact.load(threads)(x), expected, rtol=1e-4, atol=1e-4)


def test_an_operator_is_compiled_for_the_threads_that_it_runs_on() -> None:
    session = sparsec.op("matmul", sparse(64, 32), 8, threads=3)
    assert session.threads == session.manifest["target"]["cores"] == 3


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("face", [sparsec.compile, sparsec.inspect])
def test_a_wrong_thread_count_is_told(face, threads) -> None:
    with pytest.raises(InputError, match=r"threads=.* was given; expected from 1 to 1024, or None for the default"):
        face(layer(1), threads=threads)
