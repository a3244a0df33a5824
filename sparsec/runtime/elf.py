"""Read a shared library's headers, to refuse what cannot be loaded before the system maps it.

A library cut short is mapped without complaint, and kills the process with SIGBUS when the missing part is touched.
Layouts are those of the System V ABI, chapters 4 and 5 (64-bit, little-endian).
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from sparsec.errors import ArtifactError

ABI_VERSION = 2
MANIFEST_SECTION = b".sparsec.manifest"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_SHARED, _NOBITS = 3, 8


def read_manifest(file: BinaryIO, name: str) -> dict[str, Any]:
    """The manifest of an artifact, which may be for another machine.

    Raises
    ------
    ArtifactError
        Saying whether the file is no shared library, cut short, not made by sparsec, or of another version.
    """
    size = os.fstat(file.fileno()).st_size
    if size < _HEADER.size:
        raise ArtifactError(f"{name} is not a sparsec artifact: it has {size} bytes")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        ident, kind = _HEADER.unpack_from(data)[:2]
        if ident[:6] != b"\x7fELF\x02\x01" or kind != _SHARED:
            hint = "; if it is a model, compile it first: sparsec compile" if not ident.startswith(b"\x7fELF") else ""
            raise ArtifactError(f"{name} is not a sparsec artifact: it is not a 64-bit shared library{hint}")
        try:
            sections = dict(_sections(data))
        except (IndexError, OverflowError, ValueError, struct.error):
            raise ArtifactError(
                f"{name} is cut short or damaged: its {size} bytes do not hold what its headers tell; copy it again"
            ) from None
        if MANIFEST_SECTION not in sections:
            raise ArtifactError(f"{name} is not a sparsec artifact: it is a shared library that sparsec did not make")
        return _decode(sections[MANIFEST_SECTION], name)


def check_machine(file: BinaryIO, name: str) -> None:
    """Raise `ArtifactError` if the library is for another kind of processor than this machine's."""
    file.seek(0)
    machine = _HEADER.unpack(file.read(_HEADER.size))[2]
    theirs = _MACHINES.get(machine, f"machine {machine}")
    ours = _ALIASES.get(platform.machine().lower(), platform.machine().lower())
    if theirs != ours:
        raise ArtifactError(f"{name} was compiled for {theirs}, and this machine is {ours}; compile it for this one")


def _sections(data: mmap.mmap) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the sections; ValueError if they or a segment lie outside the file."""
    header = _HEADER.unpack_from(data)
    segments, sections = header[5], header[6]
    num_segments, num_sections, names = header[10], header[12], header[13]
    if header[9] != _SEGMENT.size or header[11] != _SECTION.size or not num_sections:
        raise ValueError("no section table")
    for index in range(num_segments):
        _, _, offset, _, _, length, *_ = _SEGMENT.unpack_from(data, segments + index * _SEGMENT.size)
        _slice_end(data, offset, length)
    table = [_SECTION.unpack_from(data, sections + index * _SECTION.size) for index in range(num_sections)]
    for name, kind, _, _, offset, length, *_ in table:
        if kind != _NOBITS:
            end = _slice_end(data, offset, length)
            start = table[names][4] + name
            text = data[start : data.find(b"\0", start)]
            # Only small contents are copied; the constants stay where they are.
            yield text, data[offset:end] if text == MANIFEST_SECTION else b""


def _slice_end(data: mmap.mmap, offset: int, length: int) -> int:
    if offset + length > len(data):
        raise ValueError("outside the file")
    return offset + length


def _decode(section: bytes, name: str) -> dict[str, Any]:
    try:
        manifest = json.loads(section.rstrip(b"\0"))
        version = manifest["abi"]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{name} is damaged: its manifest cannot be read; copy or compile it again") from None
    if version != ABI_VERSION:
        raise ArtifactError(
            f"{name} has version {version} of the artifact interface, and this sparsec reads version {ABI_VERSION}; "
            "compile the model again"
        )
    return manifest
