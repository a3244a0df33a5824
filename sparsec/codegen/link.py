"""Link an artifact for any target."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sparsec import runtime
from sparsec.codegen.plan import ALIGNMENT
from sparsec.codegen.zig import zig_cc
from sparsec.errors import ArtifactError
from sparsec.targets import Target

RUNTIME = Path(runtime.__file__).parent
CONSTANTS_SECTION = ".sparsec.constants"
CODE_SECTION = ".sparsec.code"

# Kernels are not hidden by themselves, so the linker is told what to export.
_EXPORTS = "{ global: sparsec_*; local: *; };\n"
_COMPILE = [
    "-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-Wall", "-Wextra", "-Werror",
    f"-I{RUNTIME}",
]  # fmt: skip
_LINK = ["-shared", "-s", "-Wl,--gc-sections", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-lm", "-lpthread"]
_LARGEST = 2**31 - 2**24  # what code can reach from where it is, less room for the code


@dataclass(frozen=True)
class Constants:
    """Where each constant starts in the file of all, and how many bytes those take that are streamed, at its start."""

    offsets: list[int]
    streamed_bytes: int


def write_constants(
    constants: Sequence[np.ndarray], blob: Path, streamed: Set[int] = frozenset(), what: str = "constants"
) -> Constants:
    """Write each different constant once, aligned to 64 bytes, and first those whose numbers are the streamed ones.

    Raises
    ------
    ArtifactError : for more bytes of `what` they are than code can reach
    """
    offsets = [0] * len(constants)
    known: dict[bytes, int] = {}
    streamed_bytes = 0
    with blob.open("wb") as file:
        for index in sorted(range(len(constants)), key=lambda index: index not in streamed):
            data = np.ascontiguousarray(constants[index]).reshape(-1).view(np.uint8).data
            digest = blake2b(data, digest_size=16).digest()
            if digest not in known:
                file.write(bytes(-file.tell() % ALIGNMENT))
                known[digest] = file.tell()
                file.write(data)
            offsets[index] = known[digest]
            streamed_bytes = file.tell() if index in streamed else streamed_bytes
        size = file.tell()
    if size > _LARGEST:
        raise ArtifactError(f"the model has {size} bytes of {what}; an artifact holds at most {_LARGEST}")
    return Constants(offsets, streamed_bytes)


def link(target: Target, objects: Sequence[Path], tables: str, constants: Path, code: Path, library: Path) -> None:
    """Link kernels, tables, constants, code and the runtime into `library`, working in its folder.

    Raises
    ------
    ArtifactError
        If a kernel needs a function that neither the runtime nor the C library has, or the linker fails.
    """
    folder, triple = library.parent, target.machine.zig_triple()
    (folder / "runtime.o").write_bytes(compiled_runtime(triple))
    (folder / "tables.c").write_text(tables)
    (folder / "constants.S").write_text(
        _included("sparsec_constants", f'{CONSTANTS_SECTION},"a"', constants)
        + _included("sparsec_code", f'{CODE_SECTION},"ax"' if code.stat().st_size else f'{CONSTANTS_SECTION},"a"', code)
        + '.section .note.GNU-stack,"",%progbits\n'
    )
    (folder / "exports.map").write_text(_EXPORTS)
    script = f"-Wl,--version-script={folder / 'exports.map'}"
    sources = [folder / "runtime.o", folder / "tables.c", folder / "constants.S", *objects]
    _zig(triple, [*_COMPILE, *_LINK, script, "-o", str(library), *map(str, sources)], folder)


@cache
def compiled_runtime(triple: str) -> bytes:
    """Return the runtime as an object file, which is the same for every artifact.

    It is compiled for the oldest processor of the architecture, so that it can say what a newer one lacks.
    """
    with tempfile.TemporaryDirectory(prefix="sparsec-") as name:
        found = Path(name, "runtime.o")
        sources = map(str, sorted(RUNTIME.glob("*.c")))
        _zig(triple, [*_COMPILE, "-r", "-o", str(found), *sources], found.parent, keep=True)
        return found.read_bytes()


def _zig(triple: str, arguments: Sequence[str], folder: Path, keep: bool = False) -> None:
    done = zig_cc(triple, arguments, folder, keep)
    if done.returncode:
        raise ArtifactError(_explain(done.returncode, done.stderr))


def _included(symbol: str, section: str, blob: Path) -> str:
    """Return assembly that puts a file into a section."""
    return (
        f".section {section},%progbits\n.balign {ALIGNMENT}\n.globl {symbol}\n.hidden {symbol}\n"
        f'{symbol}:\n.incbin "{blob.name}"\n.byte 0\n'
    )


def _explain(status: int, stderr: str) -> str:
    if missing := re.findall(r"undefined symbol: (\S+)", stderr):
        return f"kernels call {', '.join(sorted(set(missing)))}, which the runtime of an artifact does not have"
    if "NoSpaceLeft" in stderr or "No space left" in stderr:
        return "the disk is full; free some space, or set TMPDIR to a folder on another disk"
    if status < 0:  # the linker writes through mapped memory, so a full disk may come as a signal
        name = signal.Signals(-status).name
        return f"the linker was killed by {name}: free some disk space or memory, or set TMPDIR to another disk"
    lines = stderr.splitlines() or [f"Zig stopped with status {status}"]
    first = next((line for line in lines if "error" in line.lower()), lines[-1])
    return f"the artifact does not link: {first.strip()}"
