"""Fragments in this process: the runtime's function that calls them, and memory that they can be run in."""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from sparsec.codegen.link import RUNTIME
from sparsec.codegen.zig import zig_cc
from sparsec.targets import Target


@cache
def load_caller() -> None:
    """Let what TVM compiles here find the function."""
    with tempfile.TemporaryDirectory() as name:
        library = Path(name) / "fragments.so"
        flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-o", str(library), str(RUNTIME / "sparsec_fragments.c")]
        done = zig_cc(Target.parse("native").machine.zig_triple(), flags, Path(name))
        assert not done.returncode, done.stderr
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def executable(code: np.ndarray) -> np.ndarray:
    """Copy code to memory that can be executed."""
    memory = mmap.mmap(-1, max(code.nbytes, 1), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    copy = np.frombuffer(memory, np.uint8, code.nbytes)
    copy[:] = code
    return copy
