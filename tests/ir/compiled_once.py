"""Kernels as machine code, each compiled once, however many cases it runs."""

from __future__ import annotations

from sparsec.schedules.trace import Scheduled
from tests.ir.libraries import Library
from tests.ir.product_cases import NATIVE, Compiled

_KNOWN: dict[str, Compiled] = {}  # by text


def compiled_once(scheduled: Scheduled) -> Compiled:
    """Compile a kernel, or find it if another case has the same."""
    text = str(scheduled.func)
    if text not in _KNOWN:
        _KNOWN[text] = Compiled(scheduled.lowered, scheduled.func, library=Library([scheduled.func], NATIVE))
    return _KNOWN[text]
