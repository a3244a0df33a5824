"""Keeps what TVM, onnxsim and torch print from the user."""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator

_lock = threading.RLock()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what the libraries print from the user, C++ included; what matters is raised.

    The standard streams belong to the whole process, so other threads are silent too, and those that want silence
    themselves take turns: else one of them would save, and later restore, the silence of another.
    """
    with _lock:
        yield from _redirect()


def _redirect() -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            for target, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, target)
                os.close(copy)
