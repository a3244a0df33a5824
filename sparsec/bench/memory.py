"""What memory a compiled model takes when it runs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from sparsec.bench.engine import Absent, Engine
from sparsec.errors import SparsecError


def run_memory(artifact: str | PathLike[str], threads: int, inputs: Mapping[str, np.ndarray]) -> int:
    """Return the bytes that a process of its own takes to load a model and run it once, at most.

    The interpreter, sparsec's own code and the inputs are left out; the outputs are not.

    Raises
    ------
    SparsecError
        The model does not run.
    """
    with tempfile.TemporaryDirectory(prefix="sparsec-memory-") as folder:
        np.savez(f"{folder}/inputs.npz", **inputs)  # type: ignore[arg-type]
        try:
            engine = Engine("sparsec", fspath(artifact), threads, Path(folder), None)
        except Absent as reason:
            raise SparsecError(f"sparsec could not run {fspath(artifact)}: {reason}") from None
        engine.close()
        return engine.memory_bytes
