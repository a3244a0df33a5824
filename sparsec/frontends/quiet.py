"""Keeps what TVM, onnxsim and torch print from the user, and makes sentences of what they raise."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator


def first_line(err: BaseException) -> str:
    """What an error of TVM or torch says, without its backtrace."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what the libraries print from the user, C++ included; what matters is raised."""
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
