"""Silence is for a while, also where several threads want it at once."""

import os
import threading

import pytest

from sparsec.frontends.quiet import silence


def streams() -> list[tuple[int, int]]:
    return [(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in (1, 2)]


def test_the_streams_come_back_after_a_failure() -> None:
    before = streams()
    with pytest.raises(ValueError, match="no"), silence():
        assert streams() != before
        raise ValueError("no")
    assert streams() == before


def test_two_threads_take_turns() -> None:
    before, inside = streams(), threading.Event()

    def other() -> None:
        with silence():
            inside.set()

    with silence():
        thread = threading.Thread(target=other)
        thread.start()
        assert not inside.wait(0.1)
    thread.join()
    assert inside.is_set()
    assert streams() == before
