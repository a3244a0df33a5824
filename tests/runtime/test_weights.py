"""Weights on huge pages: the same numbers, memory once, and given back."""

import gc
import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import sparsec
from sparsec.bench import run_memory
from sparsec.runtime.library import Library
from sparsec.runtime.session import Session
from tests.test_compiler import Builder, normal

HUGE = 2 << 20
ROWS, DEPTH, COLUMNS = 8192, 1024, 2500
TABLE, WEIGHT = 4 * ROWS * DEPTH, 4 * DEPTH * COLUMNS
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

x = np.arange(16, dtype=np.float32) * 500
table, weight = normal(ROWS, DEPTH), normal(DEPTH, COLUMNS)
expected = table[x.astype(int)] @ weight

on_huge_pages = pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="there are no huge pages here"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a table, times a weight of almost five huge pages."""
    b = Builder()
    rows = b.Gather(table, b.Cast("x", to=onnx.TensorProto.INT64))
    b.MatMul(rows, weight, name="y")
    artifact = sparsec.compile(b.model({"x": [16]}, {"y": [16, COLUMNS]}), layouts="dense")
    return artifact.save(tmp_path_factory.mktemp("weights") / "model.so")


@pytest.fixture(autouse=True)
def _collect() -> None:
    gc.collect()  # sessions of other tests, whose memory is counted here


def smaps() -> list[tuple[str, dict[str, str]]]:
    """The name of each mapping of this process, and what the system says of it."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-[0-9a-f]+ (?:\S+ +){4}(.*)", line):
            found.append((match[2], {"start": match[1]}))
        else:
            name, _, value = line.partition(":")
            found[-1][1][name] = value.strip()
    return found


def copied(fact: str = "Rss") -> int:
    """Bytes, in use if nothing else is asked for, where huge pages are wanted that can only be read, as weights are."""
    flags = [(facts, set(facts["VmFlags"].split())) for _, facts in smaps()]
    return sum(int(facts[fact].split()[0]) << 10 for facts, has in flags if "hg" in has and "wr" not in has)


def check(session: Session) -> None:
    np.testing.assert_allclose(session(x), expected, rtol=1e-3, atol=1e-3)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@on_huge_pages
def test_weights_alone_are_on_huge_pages(library: Path) -> None:
    session = sparsec.load(library, threads=1)
    check(session)
    assert WEIGHT <= copied() < WEIGHT + HUGE
    del session
    assert copied() == 0


@on_huge_pages
def test_huge_pages_are_huge(library: Path) -> None:
    session = sparsec.load(library, threads=1)
    check(session)
    assert copied("AnonHugePages") >= HUGE


@pytest.mark.parametrize("copy", ["0", "1"])
def test_a_process_holds_its_weights_once(library: Path, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEC_COPY_WEIGHTS", copy)
    assert WEIGHT < run_memory(library, 1, {"x": x}) < WEIGHT + 8e6 < TABLE


def test_weights_may_stay_in_the_file(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEC_COPY_WEIGHTS", "0")
    session = sparsec.load(library, threads=1)
    check(session)
    assert copied() == 0


@on_huge_pages
def test_sessions_of_a_library_share_their_weights(library: Path) -> None:
    opened = Library(library)
    sessions = [Session(opened, 1) for _ in range(3)]
    while sessions:
        check(sessions[-1])
        assert WEIGHT <= copied() < WEIGHT + HUGE
        sessions.pop()
    check(Session(opened, 1))
    assert copied() == 0


def test_sessions_are_made_in_many_threads(library: Path) -> None:
    opened = Library(library)

    def work(_: int) -> bool:
        session = Session(opened, 1)
        return all(np.allclose(session(x), expected, rtol=1e-3, atol=1e-3) for _ in range(3))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(16)))


def test_weights_are_given_back(library: Path) -> None:
    sparsec.load(library, threads=1)(x)
    before = resident()
    for _ in range(20):
        sparsec.load(library, threads=1)(x)
    assert resident() - before < WEIGHT / 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_weights_outlive_a_fork(library: Path) -> None:
    opened = Library(library)
    session = Session(opened, 1)
    answer = session(x)
    child = os.fork()
    if child == 0:
        try:
            same = np.array_equal(session(x), answer) and np.array_equal(Session(opened, 1)(x), answer)
            del session
            os._exit(0 if same and np.array_equal(Session(opened, 2)(x), answer) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(session(x), answer)


@on_huge_pages
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_beside_a_copy_leaves_the_lock_free(library: Path) -> None:
    """A child that is forked while another thread makes a copy can make contexts, and free them."""
    opened, stop = Library(library), threading.Event()

    def copy() -> None:
        while not stop.is_set():
            Session(opened, 1)

    worker = threading.Thread(target=copy)
    worker.start()
    try:
        for _ in range(6):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    os._exit(0 if np.allclose(Session(opened, 1)(x), expected, rtol=1e-3, atol=1e-3) else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        worker.join()
