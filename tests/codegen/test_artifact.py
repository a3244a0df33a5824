import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import ir as I
from tvm.script import tirx as T

import sparsec.codegen.link
from sparsec.codegen.artifact import Artifact, build
from sparsec.codegen.link import Constants, write_constants
from sparsec.codegen.lower import lower
from sparsec.codegen.plan import Step, Storage, Tensor
from sparsec.codegen.zig import zig_cc
from sparsec.errors import ArtifactError, TargetError
from sparsec.runtime.elf import read_manifest
from sparsec.targets import Target
from sparsec.targets.features import PROBES, Probe, from_linux
from tests.codegen.small_plans import affine, affine_plan, only, parallel_plan, symbolic_plan

BIAS = np.linspace(-1, 1, 16, dtype=np.float32)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return build(affine_plan(BIAS))


def readelf(*args: str) -> str:
    return subprocess.run(["readelf", "-W", *args], capture_output=True, text=True, check=True).stdout


def test_saved_artifact_gives_the_right_numbers(artifact: Artifact, tmp_path: Path) -> None:
    from sparsec.runtime.session import load

    x = np.random.default_rng(0).standard_normal((4, 16), dtype=np.float32)
    np.testing.assert_array_equal(load(artifact.save(tmp_path / "model.so"))(x), affine(x, BIAS))


def test_it_needs_the_c_library_alone(artifact: Artifact, tmp_path: Path) -> None:
    library = artifact.save(tmp_path / "model.so")
    needed = {line.split("[")[1].rstrip("]") for line in readelf("-d", str(library)).splitlines() if "NEEDED" in line}
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}


def test_it_exports_the_interface_alone(artifact: Artifact, tmp_path: Path) -> None:
    library = artifact.save(tmp_path / "model.so")
    rows = [line.split() for line in readelf("--dyn-syms", str(library)).splitlines()[4:]]
    exported = {row[7] for row in rows if row[6] != "UND"}
    header = (tmp_path / "model.h").read_text()
    assert exported
    assert all(f"{name}(" in header for name in exported)


def test_the_header_tells_the_inputs_and_outputs(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "model.so")
    header = (tmp_path / "model.h").read_text()
    assert "input 0: x, float32[4, 16]" in header
    assert "output 0: y, float32[4, 16]" in header


def test_the_manifest_can_be_read_without_loading(artifact: Artifact, tmp_path: Path) -> None:
    with artifact.save(tmp_path / "model.so").open("rb") as file:
        manifest = read_manifest(file, "model.so")
    assert manifest == json.loads(json.dumps(artifact.manifest))
    assert manifest["model"] == "affine"
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "shape": [4, 16]}]
    assert (manifest["constant_bytes"], manifest["arena_bytes"], manifest["workspace_bytes"]) == (64, 512, 0)


def test_the_manifest_tells_what_each_thread_takes() -> None:
    assert build(parallel_plan()).manifest["workspace_bytes"] == 512 * 4


def test_names_need_not_be_ascii_or_plain(tmp_path: Path) -> None:
    plan = affine_plan(BIAS, manifest={"model": 'naïve "?\\ Σ'})
    plan.tensors[0] = replace(plan.tensors[0], name='/größe "0"\n*/')
    session = build(plan).load(threads=1)
    assert session.inputs[0].name == '/größe "0"\n*/'
    assert session.manifest["model"] == 'naïve "?\\ Σ'


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    a, b = np.arange(100, dtype=np.float32), np.arange(7, dtype=np.int8)
    constants = [a, b, a.copy(), np.asfortranarray(np.ones((3, 2)))]
    assert write_constants(constants, tmp_path / "blob") == Constants([0, 448, 0, 512], 0)
    blob = (tmp_path / "blob").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(blob, np.float32, 100), a)
    assert len(blob) == 512 + 48


def test_weights_come_first(tmp_path: Path) -> None:
    table, weight = np.arange(100, dtype=np.float32), np.arange(7, dtype=np.int8)
    found = write_constants([table, weight, table.copy()], tmp_path / "blob", {1})
    assert found == Constants([64, 0, 64], 7)
    # A constant that is both is streamed.
    assert write_constants([table, weight, table.copy()], tmp_path / "blob", {1, 2}) == Constants([64, 0, 64], 464)


def test_a_failed_save_leaves_nothing(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparsec.codegen.artifact.shutil.copyfile", full)
    with pytest.raises(ArtifactError, match=r"cannot write .*model.so: No space left on device"):
        artifact.save(tmp_path / "model.so")
    assert list(tmp_path.iterdir()) == []


def test_saving_onto_a_folder_is_refused(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"cannot write \.: it is a folder"):
        artifact.save(".")
    assert not list(tmp_path.iterdir())


def test_an_artifact_introduces_itself(artifact: Artifact) -> None:
    assert repr(artifact) == f"<Artifact for {artifact.manifest['target']['name']}, {artifact.nbytes} bytes>"


def test_saving_into_no_folder_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot write .*/absent/model.so: No such file or directory"):
        artifact.save(tmp_path / "absent" / "model.so")
    with pytest.raises(ArtifactError, match=r"try model\.so"):
        artifact.save(tmp_path / "model.h")


def test_a_saved_library_replaces_one_that_is_loaded(artifact: Artifact, tmp_path: Path) -> None:
    from sparsec.runtime.session import load

    x = np.ones((4, 16), np.float32)
    first = load(artifact.save(tmp_path / "model.so"), threads=1)
    second = load(build(affine_plan(BIAS * 10)).save(tmp_path / "model.so"), threads=1)
    np.testing.assert_array_equal(first(x), affine(x, BIAS))
    np.testing.assert_array_equal(second(x), affine(x, BIAS * 10))


def test_umask_is_kept(artifact: Artifact, tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        library = artifact.save(tmp_path / "model.so")
    finally:
        os.umask(mask)
    assert library.stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "model.h").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("target", "machine"), [("aarch64-linux-gnu", "AArch64"), ("x86-64-v3", "X86-64")])
def test_it_links_for_another_machine(target: str, machine: str, tmp_path: Path) -> None:
    library = build(affine_plan(BIAS, target=target)).save(tmp_path / "model.so")
    assert machine in readelf("-h", str(library))


def test_an_artifact_for_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="was compiled for aarch64, and this machine is x86_64"):
        build(affine_plan(BIAS, target="aarch64")).load()


def test_a_processor_without_an_extension_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processor has this one; its CPUID leaf is far beyond any."""
    monkeypatch.setitem(PROBES["x86_64"], "telepathy", Probe(0x7FFFFFFF, 0, 0, 0))
    plan = affine_plan(BIAS, target="x86-64-v2")
    plan.target = replace(plan.target, isa=plan.target.isa | {"telepathy"})
    with pytest.raises(TargetError, match="this processor lacks telepathy, which the model was compiled for"):
        build(plan).load()


def test_the_processor_is_checked_as_linux_sees_it() -> None:
    """An artifact for exactly this machine loads; one for each known extension that Linux does not list does not."""
    native = Target.parse("native")
    build(affine_plan(BIAS)).load(threads=1)
    absent = sorted(PROBES[native.arch].keys() - from_linux(linux_flags(), native.arch))
    if not absent:
        pytest.skip("this processor has every extension that is known")
    for feature in absent[:3]:
        plan = affine_plan(BIAS, target="x86-64-v2")
        plan.target = replace(plan.target, isa=frozenset({feature}))
        with pytest.raises(TargetError, match=f"this processor lacks {feature}, which"):
            build(plan).load()


def linux_flags() -> list[str]:
    return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()


def test_a_kernel_named_like_a_c_function_does_not_replace_it() -> None:
    plan = affine_plan(BIAS, module=tvm.IRModule({"memcpy": only("double")["double"]}))
    plan.steps[:] = [Step("memcpy", (0, 1), "double")]
    x = np.ones((4, 16), np.float32)
    np.testing.assert_array_equal(build(plan).load(threads=1)(x), x * 2)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("triple", (0, 1), "s"), "its module holds no kernel 'triple'"),
        (Step("double", (0, 2, 1), "s"), "has 3 arguments, but its kernel takes 2 buffers"),
        (Step("double", (0, 2), "s"), "expects the shape \\[4, 16\\] for 'bias' float32\\[16\\]"),
        (Step("double", (0, 6), "s"), "expects 'y' in float32, but gets 'ids' int32\\[4, 16\\]"),
    ],
)
def test_steps_must_fit_their_kernels(step: Step, message: str) -> None:
    plan = affine_plan(BIAS, steps=[step])
    plan.tensors.append(Tensor("ids", (4, 16), "int32", Storage("arena")))
    with pytest.raises(ArtifactError, match=message):
        build(plan)


def test_a_function_that_nobody_has_is_named() -> None:
    @I.ir_module
    class Foreign:
        @T.prim_func(s_tir=True)
        def double(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
            for i, j in T.grid(4, 16):
                with T.sblock("call"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = T.call_pure_extern("float32", "fancy_function", x[vi, vj])

    with pytest.raises(ArtifactError, match="kernels call fancy_function, which"):
        build(affine_plan(BIAS, module=Foreign, steps=[Step("double", (0, 1), "s")]))


def test_a_failed_assertion_in_a_kernel_is_told() -> None:
    @I.ir_module
    class Asserting:
        @T.prim_func(s_tir=True)
        def double(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
            assert x[0, 0] > T.float32(0), "the first element must be positive"
            for i, j in T.grid(4, 16):
                with T.sblock("double"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi, vj] * T.float32(2)

    session = build(affine_plan(BIAS, module=Asserting, steps=[Step("double", (0, 1), "layer")])).load(threads=1)
    x = np.ones((4, 16), np.float32)
    np.testing.assert_array_equal(session(x), x * 2)
    with pytest.raises(
        ArtifactError, match=r"step 'layer' \(kernel double\) failed: .*the first element must be positive"
    ):
        session(-x)
    np.testing.assert_array_equal(session(x), x * 2)


@pytest.mark.parametrize(
    ("status", "stderr", "message"),
    [
        (
            1,
            "lld: error: undefined symbol: f\n>>> x\nlld: error: undefined symbol: g\n",
            "kernels call f, g, which",
        ),
        (1, "error: unable to write: NoSpaceLeft", "the disk is full; .* TMPDIR"),
        (-signal.SIGKILL, "", "the linker was killed by SIGKILL: free some disk space or memory"),
        (1, "note: x\ntables.c:1: error: what\n", "the artifact does not link: tables.c:1: error: what"),
        (3, "", "the artifact does not link: Zig stopped with status 3"),
    ],
)
def test_a_failing_linker_is_explained(status: int, stderr: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], status, "", stderr)
    monkeypatch.setattr("sparsec.codegen.zig.subprocess.run", lambda *args, **kwargs: done)
    with pytest.raises(ArtifactError, match=message):
        build(affine_plan(BIAS))


def test_the_runtime_is_compiled_for_the_first_artifact_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def run(triple: str, arguments: list[str], folder: Path, keep: bool) -> subprocess.CompletedProcess[str]:
        kept.append(keep)
        return zig_cc(triple, arguments, folder, keep)

    monkeypatch.setattr(sparsec.codegen.link, "zig_cc", run)
    sparsec.codegen.link.compiled_runtime.cache_clear()
    for _ in range(2):
        build(affine_plan(BIAS)).load(threads=1)
    assert kept == [True, False, False]


def test_constants_beyond_reach_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsec.codegen.link, "_LARGEST", 63)
    with pytest.raises(ArtifactError, match="64 bytes of constants; an artifact holds at most 63"):
        build(affine_plan(BIAS))


def test_workspaces_are_sized_when_the_plan_is_built() -> None:
    plan = parallel_plan()
    assert lower(plan.module, plan.target)[0]["exp_reversed"].workspace_bytes([[(61, 61), (512, 512)]] * 2, {}) == 2048
    plan = symbolic_plan()
    assert lower(plan.module, plan.target)[0]["reverse_rows"].workspace_bytes([[(10, 10), (3, 3)]] * 2, {}) == 128
    assert lower(plan.module, plan.target)[0]["reverse_rows"].workspace_bytes([[(2, 10), (3, 3)]] * 2, {}) >= 128


def test_a_kernel_that_tvm_refuses_is_named() -> None:
    fill = only("fill")["fill"]
    broken = tirx.PrimFunc(fill.params[:1], fill.body, fill.ret_type, fill.attrs)
    plan = affine_plan(BIAS, module=tvm.IRModule({"fill": broken}), steps=[Step("fill", (0,), "layer")])
    plan.tensors[0] = replace(plan.tensors[0], dtype="int32")
    with pytest.raises(ArtifactError, match=r"kernel 'fill' does not compile: .*seq.*; this is a bug in sparsec"):
        build(plan)


def test_building_twice_gives_the_same_bytes(artifact: Artifact, tmp_path: Path) -> None:
    again = build(affine_plan(BIAS)).save(tmp_path / "again.so")
    assert again.read_bytes() == artifact.save(tmp_path / "model.so").read_bytes()
