"""Sessions whose inputs and outputs are bfloat16."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from sparsec.cli.inputs import read_inputs
from sparsec.codegen.artifact import Artifact, build
from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.errors import InputError
from sparsec.runtime.session import Session
from sparsec.targets import Target

X = np.random.default_rng(0).standard_normal((4, 16), np.float32).astype(ml_dtypes.bfloat16)


@I.ir_module
class Kernels:
    @T.prim_func(s_tir=True)
    def double(x: T.Buffer((4, 16), "bfloat16"), y: T.Buffer((4, 16), "bfloat16")):
        T.func_attr({"tirx.noalias": True})
        for i, j in T.grid(4, 16):
            with T.sblock("double"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = T.Cast("bfloat16", T.Cast("float32", x[vi, vj]) * T.float32(2))


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    tensors = [Tensor(name, (4, 16), "bfloat16", Storage(kind)) for name, kind in (("x", "input"), ("y", "output"))]
    module = tvm.IRModule({"double": Kernels["double"]})
    return build(Plan(tensors, [0], [1], [Step("double", (0, 1), "double")], [], 0, module, Target.parse("native")))


@pytest.fixture(scope="module")
def session(artifact: Artifact) -> Session:
    return artifact.load(1)


def test_arrays_of_ml_dtypes_go_in_and_come_out(session: Session):
    found = session(X)
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), X.astype(np.float32) * 2)


def test_tensors_of_torch_go_in_without_a_copy(session: Session):
    x = torch.from_numpy(X.view(np.int16)).view(torch.bfloat16)
    np.testing.assert_array_equal(session(x), session(X))
    np.testing.assert_array_equal(session(x.t().contiguous().t()), session(X))
    assert x.dtype == torch.bfloat16 and float(x[0, 0]) == float(X[0, 0])


def test_what_is_given_may_be_written_to(session: Session):
    out = np.zeros((4, 16), ml_dtypes.bfloat16)
    assert session(X, out=out) is out
    np.testing.assert_array_equal(out, session(X))


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (X.astype(np.float32), r"float32\[4, 16\]"),
        (X.view(np.uint16), r"uint16\[4, 16\]"),
        (torch.zeros(4, 16), r"float32\[4, 16\]"),
        (torch.zeros(4, 15, dtype=torch.bfloat16), r"bfloat16\[4, 15\]"),
    ],
    ids=["float32", "bits", "torch float32", "shape"],
)
def test_wrong_inputs_are_told(session: Session, x, got: str):
    with pytest.raises(InputError, match=rf"input 'x' expects x bfloat16\[4, 16\], and got {got}"):
        session(x)


def test_the_header_names_the_type(artifact: Artifact, tmp_path: Path):
    header = artifact.save(tmp_path / "model.so").with_suffix(".h").read_text()
    assert " * input 0: x, bfloat16[4, 16]" in header
    assert artifact.manifest["outputs"][0]["dtype"] == "bfloat16"


def test_files_of_numpy_lose_the_name_of_the_type_alone(session: Session, tmp_path: Path):
    np.save(tmp_path / "x.npy", X)
    (found,) = read_inputs([("x", tmp_path / "x.npy")], session.inputs).values()
    np.testing.assert_array_equal(session(found), session(X))
