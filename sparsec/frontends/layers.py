"""Keeps the user's names of layers through TVM's importers, and keeps the importers quiet."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any


def trace_layers(module: Any, named: dict[str, str]) -> dict[str, str]:
    """Extend the named results to all bindings of ``main``: those in between belong to the next named one."""
    layers: dict[str, str] = {}
    pending: list[str] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            pending.append(binding.var.name)
            if pending[-1] in named:
                layers.update(dict.fromkeys(pending, named[pending[-1]]))
                pending.clear()
    return layers


def first_line(err: BaseException) -> str:
    """What an error of TVM or torch says, without its backtrace."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what the libraries print and warn about from the user; what matters is raised."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
