"""Build a plan into one shared library, and write it with its C header."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm

import sparsec
from sparsec.codegen.check import check_calls
from sparsec.codegen.link import RUNTIME, link, write_constants
from sparsec.codegen.lower import lower, write_objects
from sparsec.codegen.plan import Plan
from sparsec.codegen.tables import workspace_bytes, write_tables
from sparsec.errors import ArtifactError
from sparsec.runtime.dims import Dim
from sparsec.runtime.elf import ABI_VERSION

if TYPE_CHECKING:
    from sparsec.runtime.session import Session


class Artifact:
    """A compiled model: a shared library that needs neither TVM nor Python, and a header for it.

    >>> artifact = build(plan)                     # doctest: +SKIP
    >>> artifact.save("model.so")                  # doctest: +SKIP
    >>> artifact.load(threads=1)(x)                # doctest: +SKIP
    """

    def __init__(self, library: Path, header: str, manifest: dict[str, Any], folder: Any = None) -> None:
        self._library = library
        self._header = header
        self._folder = folder  # a TemporaryDirectory, which goes away with this object
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"<Artifact for {self.manifest['target']['name']}, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        """Size of the library."""
        return self._library.stat().st_size

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the library to `path` and its header beside it, as ``model.so`` and ``model.h``.

        Both are written under another name and then renamed, so that no half of them is ever seen.

        Raises
        ------
        ArtifactError
            If the folder does not exist or is not writable, the path is a folder's, or the disk is full.
        """
        library = Path(path)
        if library.is_dir():
            raise ArtifactError(f"cannot write {library}: it is a folder, and a file in it is wanted; try model.so")
        header = library.with_suffix(".h")
        if header == library:
            raise ArtifactError(f"cannot write the library to {library}: that is where its header goes; try model.so")
        # The header first: whoever waits for the library then finds both.
        new = {header: _beside(header), library: _beside(library)}
        try:
            new[header].write_text(self._header)
            shutil.copyfile(self._library, new[library])
            mode = new[library].stat().st_mode
            new[library].chmod(mode | (mode & 0o444) >> 2)  # executable for whom it is readable
            for final, written in new.items():
                written.replace(final)
        except OSError as error:
            raise ArtifactError(f"cannot write {library}: {error.strerror or error}") from None
        finally:
            for written in new.values():
                written.unlink(missing_ok=True)
        return library

    def load(self, threads: int | None = None) -> Session:
        """Run it here and now; see `sparsec.load`."""
        from sparsec.runtime.session import load

        return load(self._library, threads=threads)


def _beside(path: Path) -> Path:
    """A name that nothing has yet, in the same folder, so that a rename is all or nothing."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def build(plan: Plan) -> Artifact:
    """Compile a plan's kernels and link them with its constants, its tables and the runtime.

    Raises
    ------
    ArtifactError
        If the plan is inconsistent, a kernel does not compile, or the linker or the disk fails.
    """
    plan.validate()
    folder = tempfile.TemporaryDirectory(prefix="sparsec-", ignore_cleanup_errors=True)
    root = Path(folder.name)
    try:
        with tempfile.TemporaryDirectory(dir=root) as name:
            work = Path(name)
            kernels, module = lower(_used_kernels(plan), plan.target)
            check_calls(plan, kernels)
            objects = write_objects(module, plan.target, work)
            constants = write_constants(plan.constants, work / "constants.bin", plan.streamed)
            code = write_constants(plan.code, work / "code.bin", what="code")
            manifest = _manifest(plan) | {
                "constant_bytes": sum((work / name).stat().st_size for name in ("constants.bin", "code.bin")),
                "arena_bytes": plan.arena_bytes,
                "workspace_bytes": workspace_bytes(plan, kernels),
            }
            tables = write_tables(plan, kernels, constants, code, json.dumps(manifest))
            link(plan.target, objects, tables, work / "constants.bin", work / "code.bin", work / "model.so")
            (work / "model.so").rename(root / "model.so")
    except OSError as error:
        raise ArtifactError(f"cannot build the artifact in {root}: {error.strerror or error}") from None
    return Artifact(root / "model.so", _header(plan), manifest, folder)


def _used_kernels(plan: Plan) -> tvm.IRModule:
    used = {step.kernel for step in plan.steps}
    functions = {name: function for name, function in plan.module.functions.items() if name.name_hint in used}
    if missing := used - {name.name_hint for name in functions}:
        raise ArtifactError(f"the plan is inconsistent: its module holds no kernel {min(missing)!r}")
    return tvm.IRModule(functions)


def _manifest(plan: Plan) -> dict[str, Any]:
    """What the planner says, and what the runtime and tools need to know without the compiler."""
    return plan.manifest | {
        "abi": ABI_VERSION,
        "sparsec": sparsec.__version__,
        "target": plan.target.as_dict(),
        "symbols": {symbol.name: [symbol.lower, symbol.upper] for symbol in plan.symbols},
        "inputs": [_describe(plan, index) for index in plan.inputs],
        "outputs": [_describe(plan, index) for index in plan.outputs],
        "steps": [{"flops": step.flops, "instruction": step.instruction} for step in plan.steps],
    }


def _describe(plan: Plan, index: int) -> dict[str, Any]:
    tensor = plan.port(index)
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _header(plan: Plan) -> str:
    """The runtime's header, with this model's inputs and outputs on top."""

    def line(kind: str, position: int, index: int) -> str:
        tensor = plan.port(index)
        name = tensor.name.replace("*/", "* /")
        return f" * {kind} {position}: {name}, {tensor.dtype}[{', '.join(map(_text, tensor.shape))}]"

    ports = [line("input", position, index) for position, index in enumerate(plan.inputs)]
    ports += [line("output", position, index) for position, index in enumerate(plan.outputs)]
    bounds = [f" * {symbol.name}: {symbol.lower} to {symbol.upper}" for symbol in plan.symbols]
    title = f"/* A model compiled by sparsec {sparsec.__version__} for {plan.target.name}."
    return "\n".join([title, " *", *ports, *bounds, " */", ""]) + (RUNTIME / "sparsec.h").read_text()


def _text(dim: Dim) -> str:
    return str(dim)
