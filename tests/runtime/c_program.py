"""Run artifacts as a program in C does, here or for another kind of processor under an emulator."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sparsec.codegen.artifact import Artifact
from sparsec.codegen.zig import zig_cache

PROGRAM = Path(__file__).with_name("run_model.c")
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror")


def system_compiler() -> list[str]:
    """The system's C compiler, or Zig's, which takes a minute to build its start-up files the first time."""
    return ["cc"] if shutil.which("cc") else zig_compiler()


def zig_compiler(*flags: str) -> list[str]:
    """Zig's C compiler, for the target that the flags name."""
    return [sys.executable, "-m", "ziglang", "cc", *flags]


def run_program(
    artifact: Artifact, inputs: Sequence[np.ndarray], compiler: Sequence[str] = (), launcher: Sequence[str] = ()
) -> list[np.ndarray]:
    """Return the outputs of a model that a program in C ran; what it is compiled with, and what starts it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        library = artifact.save(folder / "model.so")
        np.concatenate([np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in inputs]).tofile(folder / "inputs")
        program = folder / "run_model"
        command = [*(compiler or system_compiler()), *FLAGS, f"-I{folder}", str(PROGRAM), str(library)]
        environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": zig_cache(folder)}
        command += [f"-Wl,-rpath,{folder}", "-o", str(program)]
        subprocess.run(command, env=environment, check=True)
        done = subprocess.run(
            [*launcher, program, folder / "inputs", folder / "outputs"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        written = (folder / "outputs").read_bytes()
    return _split(written, artifact)


def _split(written: bytes, artifact: Artifact) -> list[np.ndarray]:
    """The outputs, one after another in what was written."""
    outputs, start = [], 0
    for port in artifact.manifest["outputs"]:
        dtype = np.dtype(port["dtype"])
        end = start + int(np.prod(port["shape"])) * dtype.itemsize
        outputs.append(np.frombuffer(written[start:end], dtype).reshape(port["shape"]))
        start = end
    assert start == len(written)
    return outputs
