import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ctypes import POINTER, c_int64, cast
from pathlib import Path

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import tirx as T

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import Step
from sparsec.errors import ArtifactError, InputError
from sparsec.runtime.library import Library
from sparsec.runtime.session import load
from tests.codegen.small_plans import affine, affine_plan

X = np.random.default_rng(2).standard_normal((61, 512), dtype=np.float32)


def exp_reversed(x: np.ndarray) -> np.ndarray:
    return np.exp(x)[:, ::-1]


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64, 100])
def test_every_thread_count_gives_the_same(models: Path, threads: int) -> None:
    """More threads than rows, too."""
    session = load(models / "parallel.so", threads=threads)
    assert session.threads == threads
    reference = load(models / "parallel.so", threads=1)(X)
    np.testing.assert_allclose(reference, exp_reversed(X), rtol=1e-6)
    for _ in range(3):
        np.testing.assert_array_equal(session(X), reference)


@pytest.mark.parametrize("processors", [0, 1], ids=["all", "one"])
def test_threads_keep_the_processors_that_they_may_use(models: Path, processors: int) -> None:
    """They may move to another one, but are not pinned."""
    allowed = os.sched_getaffinity(0)
    wanted = set(sorted(allowed)[:processors]) or allowed
    os.sched_setaffinity(0, wanted)
    try:
        before = {task.name for task in Path("/proc/self/task").iterdir()}
        session = load(models / "parallel.so", threads=3)
        for _ in range(100):
            session(X)
        mine = {task.name for task in Path("/proc/self/task").iterdir()} - before
        assert len(mine) == 2
        assert all(os.sched_getaffinity(int(task)) == wanted for task in mine)
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_context_that_runs_refuses_other_shapes(models: Path) -> None:
    session = load(models / "parallel.so", threads=1)
    c, shape = session._library.c, (c_int64 * 2)(61, 512)
    shapes = (POINTER(c_int64) * 1)(cast(shape, POINTER(c_int64)))
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with suppress(ArtifactError):  # where it is this thread that comes second
                session(X)

    assert c.sparsec_set_shapes(session._context, shapes) == 0
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run)
        deadline = time.monotonic() + 30
        while not (refused := c.sparsec_set_shapes(session._context, shapes)) and time.monotonic() < deadline:
            pass
        message = session._library.last_error()
        stop.set()
    assert refused and "the context is running in another thread" in message
    assert c.sparsec_set_shapes(session._context, shapes) == 0


def test_a_failure_in_any_thread_is_told_and_leaves_no_trace() -> None:
    @I.ir_module
    class Asserting:
        @T.prim_func(s_tir=True)
        def double(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
            for i in T.parallel(4):
                with T.sblock("row"):
                    vi = T.axis.spatial(4, i)
                    row = T.sblock_alloc_buffer((512,), "float32")
                    for j in range(16):
                        row[j] = x[vi, j] * T.float32(2)
                    assert x[vi, 0] > T.float32(0), "rows must start with a positive number"
                    for j in range(16):
                        y[vi, j] = row[j]

    plan = affine_plan(np.ones(16, np.float32), module=Asserting, steps=[Step("double", (0, 1), "layer")])
    x = np.ones((4, 16), np.float32)
    wrong = x.copy()
    wrong[2, 0] = -1
    for threads in (1, 2, 3):
        session = build(plan).load(threads=threads)
        for _ in range(20):
            with pytest.raises(ArtifactError, match=r"failed: .*rows must start with a positive number"):
                session(wrong)
            np.testing.assert_array_equal(session(x), x * 2)


def test_many_contexts_in_many_python_threads(models: Path) -> None:
    def work(seed: int) -> bool:
        x = np.random.default_rng(seed).standard_normal((61, 512), dtype=np.float32)
        session = load(models / "parallel.so", threads=1 + seed % 3)
        expected = session(x)
        np.testing.assert_allclose(expected, exp_reversed(x), rtol=1e-6)
        return all(np.array_equal(session(x), expected) for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(24)))


def test_one_session_serves_several_python_threads(models: Path) -> None:
    session = load(models / "affine.so", threads=2)
    bias = np.linspace(-1, 1, 16, dtype=np.float32)

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((4, 16), dtype=np.float32)
        for _ in range(50):
            np.testing.assert_array_equal(session(x), affine(x, bias))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_one_thread_is_the_callers_own_and_others_end_with_the_session(models: Path) -> None:
    gc.collect()  # sessions that failures of other tests hold on to
    before = count_threads()
    session = load(models / "parallel.so", threads=1)
    session(X)
    assert count_threads() == before
    session = load(models / "parallel.so", threads=4)
    session(X)
    assert count_threads() == before + 3
    del session
    assert count_threads() == before


def test_sessions_give_back_their_memory_and_files(models: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def use() -> None:
        load(models / "parallel.so", threads=3)(X)

    use()
    files, pages = len(os.listdir("/proc/self/fd")), resident()
    for _ in range(50):
        use()
    assert len(os.listdir("/proc/self/fd")) == files
    assert resident() - pages < 1000


def test_sleeping_workers_wake_up(models: Path) -> None:
    session = load(models / "parallel.so", threads=3)
    expected = session(X)
    for _ in range(5):
        threading.Event().wait(0.01)  # far longer than they spin
        np.testing.assert_array_equal(session(X), expected)


def run(models: Path, environment: dict[str, str], *, threads: str = "None") -> subprocess.CompletedProcess[str]:
    program = f"import sparsec; print(sparsec.load({str(models / 'affine.so')!r}, threads={threads}).threads)"
    environment = {k: v for k, v in os.environ.items() if k != "SPARSEC_NUM_THREADS"} | environment
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)


def test_the_environment_sets_the_default(models: Path) -> None:
    assert run(models, {"SPARSEC_NUM_THREADS": "3"}).stdout == "3\n"
    assert run(models, {"SPARSEC_NUM_THREADS": "3"}, threads="2").stdout == "2\n"


def test_without_it_there_is_a_thread_for_each_core(models: Path) -> None:
    from sparsec.targets.native import physical_cores

    assert run(models, {}).stdout == f"{physical_cores()}\n"


@pytest.mark.parametrize("value", ["0", "-1", "two", "4x", "100000"])
def test_a_wrong_environment_is_told(models: Path, value: str) -> None:
    done = run(models, {"SPARSEC_NUM_THREADS": value})
    assert f"SPARSEC_NUM_THREADS is '{value}'; set it to a number from 1 to 1024" in done.stderr


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 5000])
def test_a_wrong_thread_count_is_told(models: Path, threads) -> None:
    with pytest.raises(InputError, match=r"threads=.* was given; expected from 1 to 1024"):
        load(models / "affine.so", threads=threads)


def test_a_c_program_is_told_of_too_many_threads(models: Path) -> None:
    library = Library(models / "affine.so")
    assert not library.c.sparsec_create(5000)
    assert library.last_error() == "5000 threads were asked for; the number must be from 1 to 1024"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own(models: Path) -> None:
    session = load(models / "parallel.so", threads=2)
    expected = session(X)
    child = os.fork()
    if child == 0:
        try:
            session(X)
            os._exit(1)
        except ArtifactError as error:
            fresh = load(models / "parallel.so", threads=2)(X)
            os._exit(0 if "before a fork" in str(error) and np.array_equal(fresh, expected) else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
