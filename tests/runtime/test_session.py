import gc
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import Plan, Step, Storage, Symbol, Tensor
from sparsec.errors import ArtifactError, InputError
from sparsec.runtime.session import Session, load
from sparsec.targets import Target
from tests.codegen.small_plans import affine, only, sliced_plan, symbolic

BIAS = np.linspace(-1, 1, 16, dtype=np.float32)
X = np.random.default_rng(1).standard_normal((4, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def session(models: Path) -> Session:
    return load(models / "affine.so", threads=1)


class OnlyDlpack:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("wrap", [np.asarray, OnlyDlpack, OnlyArray, np.asfortranarray])
def test_inputs_may_be_any_array(session: Session, wrap) -> None:
    np.testing.assert_array_equal(session(wrap(X)), affine(X, BIAS))


def test_inputs_go_by_name_too(session: Session) -> None:
    np.testing.assert_array_equal(session(x=X), affine(X, BIAS))


@pytest.mark.parametrize("start", range(0, 64, 4))
def test_any_alignment_will_do(session: Session, start: int) -> None:
    """The kernels use aligned vectors, so tensors elsewhere are copied."""
    place = np.zeros(64 + 256 + 64, np.uint8)
    first = -place.ctypes.data % 64 + start
    x, out = (place.copy()[first : first + 256].view(np.float32).reshape(4, 16) for _ in range(2))
    x[:] = X
    session(x, out=out)
    np.testing.assert_array_equal(out, affine(X, BIAS))


def test_strided_and_read_only_inputs(session: Session) -> None:
    wide = np.repeat(X, 2, axis=1)
    wide.flags.writeable = False
    np.testing.assert_array_equal(session(wide[:, ::2]), affine(X, BIAS))


def test_outputs_are_new_arrays(session: Session) -> None:
    first = session(X)
    kept = first.copy()
    second = session(X + 1)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_nan_and_infinity_pass_through(session: Session) -> None:
    x = X.copy()
    x[0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(session(x), affine(x, BIAS))


def test_denormals_are_kept(session: Session, models: Path) -> None:
    x = np.full((4, 16), 1e-40, np.float32)
    np.testing.assert_array_equal(load(models / "affine.so", threads=1)(x)[:, 0], affine(x, BIAS)[:, 0])
    mask = np.full((1, 2), -1, np.float32) + np.float32(2**-24)
    z = load(models / "symbolic.so", threads=1)(np.zeros((1, 2, 3), np.float32), mask)[1]
    np.testing.assert_array_equal(z, mask + 1 + 1)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"missing x float32\[4, 16\]"),
        (({"x": X},), {}, r"inputs by name are keywords: session\(\*\*inputs\)"),
        ((X, X), {}, "2 inputs were given; expected 1: x"),
        ((X,), {"x": X}, "input 'x' was given by position and by name"),
        ((), {"y": X}, "there is no input 'y'; expected x"),
        ((X[:3],), {}, r"input 'x' expects x float32\[4, 16\], and got float32\[3, 16\]"),
        ((X[0],), {}, r"expects x float32\[4, 16\], and got float32\[16\]"),
        ((X.astype(np.float64),), {}, r"expects x float32\[4, 16\], and got float64\[4, 16\]"),
        (("text",), {}, r"expects x float32\[4, 16\], and got"),
        (([[1, 2], [3]],), {}, r"input 'x' expects x float32\[4, 16\]; list is no array"),
    ],
)
def test_wrong_inputs_are_told(session: Session, args, kwargs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        session(*args, **kwargs)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((4, 15), np.float32), r"out for 'y' is float32\[4, 15\]; expected float32\[4, 16\]"),
        (np.empty((16, 4), np.float32).T, "must be C-contiguous and writeable"),
        ([], "out has 0 arrays; the model has 1 outputs"),
        ([[1.0]], "out for 'y' is list; expected"),
    ],
)
def test_wrong_outputs_are_told(session: Session, out, message: str) -> None:
    with pytest.raises(InputError, match=message):
        session(X, out=out)


def test_an_output_over_an_input_is_refused(session: Session) -> None:
    room = np.zeros(2 * 64, np.float32)
    x, touching, beside = (room[start : start + 64].reshape(4, 16) for start in (0, 63, 64))
    for out in (x, touching):
        with pytest.raises(InputError, match="out for 'y' overlaps input 'x'"):
            session(x, out=out)
    assert not room.any()
    assert session(x, out=beside) is beside


def test_an_output_over_another_is_refused(models: Path) -> None:
    session = load(models / "symbolic.so", threads=1)
    x, mask, room = np.zeros((1, 2, 3), np.float32), np.zeros((1, 2), np.float32), np.zeros(8, np.float32)
    with pytest.raises(InputError, match="out for 'z' overlaps out for 'y'"):
        session(x, mask, out=[room[:6].reshape(2, 3), room[5:7].reshape(1, 2)])
    session(x, mask, out=[room[:6].reshape(2, 3), room[6:].reshape(1, 2)])


def test_bound_arrays_are_read_and_written_where_they_lie(models: Path) -> None:
    x, out = X.copy(), np.zeros_like(X)
    run = load(models / "affine.so", threads=1).bind(x, out=out)  # which keeps the session
    for _ in range(2):
        assert run() is out
        np.testing.assert_array_equal(out, affine(x, BIAS))
        x += 1
    with pytest.raises(InputError, match="overlaps input 'x'"):
        load(models / "affine.so", threads=1).bind(x, out=x)


def test_bound_shapes_hold_between_calls_of_others(models: Path) -> None:
    session, rng = load(models / "symbolic.so", threads=1), np.random.default_rng(0)
    small, large = ([rng.standard_normal(s, np.float32) for s in ((n, 2, 3), (n, 2))] for n in (1, 4))
    run = session.bind(*small)
    session(*large)
    y, z = run()
    np.testing.assert_array_equal(y, symbolic(*small)[0])
    np.testing.assert_allclose(z, symbolic(*small)[1], rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("seq", [2, 3, 17, 64])
def test_symbolic_shapes(models: Path, batch: int, seq: int) -> None:
    rng = np.random.default_rng(batch * 100 + seq)
    x = rng.standard_normal((batch, seq, 3), dtype=np.float32)
    mask = rng.standard_normal((batch, seq), dtype=np.float32)
    session = load(models / "symbolic.so", threads=1)
    for _ in range(2):
        y, z = session(x, mask)
        np.testing.assert_array_equal(y, symbolic(x, mask)[0])
        np.testing.assert_allclose(z, symbolic(x, mask)[1], rtol=1e-6)


def test_symbolic_shapes_have_bounds_and_agree(models: Path) -> None:
    session = load(models / "symbolic.so", threads=1)
    assert str(session.inputs[0]) == "x float32[1..4, 2..64, 3]"
    with pytest.raises(InputError, match=r"input 'x' expects x float32\[1..4, 2..64, 3\], and got float32\[5, 2, 3\]"):
        session(np.zeros((5, 2, 3), np.float32), np.zeros((5, 2), np.float32))
    with pytest.raises(InputError, match="axis 1 of input 'mask' is 4; expected 3"):
        session(np.zeros((2, 3, 3), np.float32), np.zeros((2, 4), np.float32))
    assert session._output_shape(0) == (4 * 64, 3), "a refused shape changes nothing"
    session(np.zeros((2, 3, 3), np.float32), np.zeros((2, 3), np.float32))


def test_kernels_may_take_symbols_as_scalars() -> None:
    plan = Plan(
        symbols=[Symbol("seq", 1, 9)],
        tensors=[
            Tensor("x", ("seq",), "uint8", Storage("input", 0)),
            Tensor("y", ("(seq + 3) / 4 * 4", 16), "int32", Storage("output", 0)),
        ],
        inputs=[0],
        outputs=[1],
        steps=[Step("fill", (1,), "fill")],
        constants=[],
        arena_bytes=0,
        module=only("fill"),
        target=Target.parse("native"),
    )
    session = build(plan).load(threads=1)
    for seq in (1, 5, 9, 4):
        rows = -(-seq // 4) * 4
        expected = np.repeat(seq * 100 + np.arange(rows)[:, None], 16, axis=1)
        np.testing.assert_array_equal(session(np.zeros(seq, np.uint8)), expected)


def test_a_model_may_have_no_inputs() -> None:
    weight = np.arange(64, dtype=np.float32).reshape(4, 16)
    plan = Plan(
        tensors=[
            Tensor("w", (4, 16), "float32", Storage("constant", 0)),
            Tensor("y", (4, 16), "float32", Storage("output", 0)),
        ],
        inputs=[],
        outputs=[1],
        steps=[Step("double", (0, 1), "double")],
        constants=[weight.view(np.uint8)],
        arena_bytes=0,
        module=only("double"),
        target=Target.parse("native"),
    )
    np.testing.assert_array_equal(build(plan).load(threads=1)(), weight * 2)


HUGE = 2 << 20


def arena_plan(nbytes: int) -> Plan:
    """y = 4 x, what lies between at the end of an arena of so many bytes."""
    tensors = [
        Tensor("x", (4, 16), "float32", Storage("input", 0)),
        Tensor("between", (4, 16), "float32", Storage("arena", offset=nbytes - 256)),
        Tensor("y", (4, 16), "float32", Storage("output", 0)),
    ]
    steps = [Step("double", (0, 1), "double"), Step("double", (1, 2), "double")]
    return Plan(tensors, [0], [2], steps, [], nbytes, module=only("double"), target=Target.parse("native"))


def advised() -> set[tuple[int, int]]:
    """Where this process has asked for huge pages."""
    found, place = set(), (0, 0)
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            start, _, end = line.split()[0].partition("-")
            place = int(start, 16), int(end, 16)
        elif line.startswith("VmFlags:") and "hg" in line.split():
            found.add(place)
    return found


def size(places: set[tuple[int, int]]) -> int:
    return sum(end - start for start, end in places)


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="there are no huge pages here")
@pytest.mark.parametrize("nbytes, pages", [(HUGE // 2 - 64, 0), (HUGE // 2, 1), (HUGE, 1), (2 * HUGE - 64, 2)])
def test_arenas_lie_on_the_huge_pages_that_they_mostly_fill(nbytes: int, pages: int, tmp_path: Path) -> None:
    build(arena_plan(nbytes)).save(tmp_path / "model.so")
    gc.collect()  # of sessions of other tests, whose arenas would go meanwhile
    before = advised()
    session = load(tmp_path / "model.so", threads=1)
    np.testing.assert_array_equal(session(np.ones((4, 16), np.float32)), np.full((4, 16), 4, np.float32))
    assert size(advised()) - size(before) == pages * HUGE
    assert all(start % HUGE == 0 for start, _ in advised() - before)
    del session
    gc.collect()
    assert advised() == before


def test_profile_names_every_step(session: Session) -> None:
    steps = session.profile(X, runs=3)
    assert [(step.label, step.kernel) for step in steps] == [
        ("layer 1 bias", "add"),
        ("layer 1 scale", "double"),
        ("layer 2 bias", "add"),
        ("layer 2 scale", "double"),
    ]
    assert all(0 <= step.seconds < 1 for step in steps)
    assert any(step.seconds > 0 for step in steps)


def test_profile_counts_operations_for_the_sizes_of_the_run(models: Path) -> None:
    session = load(models / "symbolic.so", threads=1)
    for batch, seq in ((1, 2), (4, 17)):
        steps = session.profile(np.zeros((batch, seq, 3), np.float32), np.zeros((batch, seq), np.float32), runs=1)
        assert [(step.flops, step.instruction) for step in steps] == [(6 * batch * seq, "fma.8"), (0, ""), (0, "")]


@pytest.mark.parametrize("rows", [4, 16])  # 48 bytes, three slices of four unaligned, and 192
@pytest.mark.parametrize("start", [0, 4])
def test_slices_run_one_after_the_other(rows: int, start: int) -> None:
    session = build(sliced_plan(5, rows)).load(threads=1)
    assert [info.max_shape for info in (*session.inputs, *session.outputs)] == [(5 * rows, 3)] * 3
    x, y, z = (
        np.ndarray((5 * rows, 3), np.float32, raw, -raw.ctypes.data % 64 + start)
        for raw in (np.zeros(60 * rows + 128, np.uint8) for _ in range(3))
    )
    x[:] = np.random.default_rng(2).standard_normal(x.shape)
    session(x, out=(y, z))
    np.testing.assert_array_equal(y, (x + 1).reshape(5, rows, 3)[:, ::-1].reshape(x.shape))
    np.testing.assert_array_equal(z, x + 1 + 1)


def test_times_of_steps_are_those_of_all_slices() -> None:
    session = build(sliced_plan(2000)).load(threads=1)
    x = np.zeros((8000, 3), np.float32)
    one = build(sliced_plan(1)).load(threads=1)
    whole = sum(step.seconds for step in session.profile(x, runs=5))
    assert whole > 100 * sum(step.seconds for step in one.profile(x[:4], runs=5))


def test_one_thread_is_timed_by_what_it_takes_of_a_processor(models: Path) -> None:
    session = load(models / "parallel.so", threads=1)
    x = np.zeros((61, 512), np.float32)
    for _ in range(20):
        start = time.thread_time()
        steps = session.profile(x, runs=1)
        assert 0 < sum(step.seconds for step in steps) <= time.thread_time() - start


def test_a_profile_that_fails_leaves_no_timing_on(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    c, timed = session._library.c, []
    session.profile(X, runs=1)

    def fail(*args) -> int:
        timed.append(True)
        return -1

    with monkeypatch.context() as patch:
        patch.setattr(c, "sparsec_run", fail)
        with pytest.raises(ArtifactError):
            session.profile(X)
    assert timed
    before = [c.sparsec_step_nanoseconds(session._context, step) for step in range(4)]
    for _ in range(5):
        session(X)
    assert [c.sparsec_step_nanoseconds(session._context, step) for step in range(4)] == before


def test_running_needs_neither_tvm_nor_the_compiler(models: Path) -> None:
    program = f"""
import sys
import numpy as np
import sparsec
session = sparsec.load({str(models / "affine.so")!r}, threads=1)
session(np.zeros((4, 16), np.float32))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("tvm", "tvm_ffi", "onnx", "torch", "scipy")
             or name.startswith(("sparsec.codegen", "sparsec.ir", "sparsec.graph", "sparsec.targets"))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_session_introduces_itself(session: Session) -> None:
    (info,), (output,) = session.inputs, session.outputs
    assert repr(session) == f"<Session of {info} -> {output}, threads=1>"
