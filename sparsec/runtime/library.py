"""The C interface of an artifact, through ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import itertools
import os
import weakref
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from sparsec.errors import ArtifactError, InputError
from sparsec.runtime.bfloat16 import dtype_of
from sparsec.runtime.elf import check_machine, read_manifest


class _CTensor(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("dtype", c_char_p),
        ("itemsize", c_size_t),
        ("rank", c_int32),
        ("min_shape", POINTER(c_int64)),
        ("max_shape", POINTER(c_int64)),
    )


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "sparsec_last_error": (c_char_p, []),
    "sparsec_num_inputs": (c_int, []),
    "sparsec_num_outputs": (c_int, []),
    "sparsec_input": (POINTER(_CTensor), [c_int]),
    "sparsec_output": (POINTER(_CTensor), [c_int]),
    "sparsec_create": (c_void_p, [c_int]),
    "sparsec_destroy": (None, [c_void_p]),
    "sparsec_num_threads": (c_int, [c_void_p]),
    "sparsec_set_shapes": (c_int, [c_void_p, POINTER(POINTER(c_int64))]),
    "sparsec_output_shape": (POINTER(c_int64), [c_void_p, c_int]),
    "sparsec_run": (c_int, [c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sparsec_set_profiling": (None, [c_void_p, c_int]),
    "sparsec_num_steps": (c_int, []),
    "sparsec_step_label": (c_char_p, [c_int]),
    "sparsec_step_kernel": (c_char_p, [c_int]),
    "sparsec_step_nanoseconds": (c_uint64, [c_void_p, c_int]),
}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output; an axis is fixed where `min_shape` and `max_shape` agree."""

    name: str
    dtype: np.dtype
    min_shape: tuple[int, ...]
    max_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The extent of each axis, None where it is not fixed."""
        return tuple(a if a == b else None for a, b in zip(self.min_shape, self.max_shape, strict=True))

    def __str__(self) -> str:
        axes = (str(a) if a == b else f"{a}..{b}" for a, b in zip(self.min_shape, self.max_shape, strict=True))
        return f"{self.name} {self.dtype}[{', '.join(axes)}]"


class Library:
    """A loaded artifact. It is unloaded when the last reference to it goes away."""

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        file, name = _open(source)
        with file:
            self.manifest = read_manifest(file, name)
            check_machine(file, name)
            try:
                self.c = ctypes.CDLL(_new_path(file))
            except OSError as error:
                raise ArtifactError(f"{name} cannot be loaded: {error}") from None
        self._finalizer = weakref.finalize(self, _ctypes.dlclose, self.c._handle)
        for function, (result, arguments) in _FUNCTIONS.items():
            getattr(self.c, function).restype = result
            getattr(self.c, function).argtypes = arguments
        self.inputs = [_info(self.c.sparsec_input(i)) for i in range(self.c.sparsec_num_inputs())]
        self.outputs = [_info(self.c.sparsec_output(i)) for i in range(self.c.sparsec_num_outputs())]

    def last_error(self) -> str:
        """What the last call in this thread that failed said."""
        return self.c.sparsec_last_error().decode()


def _open(source: str | os.PathLike[str] | bytes) -> tuple[BinaryIO, str]:
    if isinstance(source, bytes):
        file = os.fdopen(os.memfd_create("sparsec"), "w+b")
        file.write(source)
        file.flush()
        return file, "the artifact"
    try:
        return open(source, "rb"), os.fspath(source)
    except OSError as error:
        raise ArtifactError(f"cannot open {os.fspath(source)}: {error.strerror}") from None
    except TypeError:
        raise InputError(
            f"load takes the path of a compiled library or its bytes, not {source!r}; what compile returns has a "
            "method load of its own"
        ) from None


_loads = itertools.count()


def _new_path(file: BinaryIO) -> str:
    """A path to an open file that was never used before.

    The system takes a path that it has seen for the library that it found there then, even if the file was replaced. So
    the number of this load is written into the path, a `.` for each binary one and nothing for each zero.
    """
    digits = "".join("/." if digit == "1" else "//" for digit in f"{next(_loads):b}")
    return f"/proc/self/fd{digits}/{file.fileno()}"


def _info(pointer: Any) -> TensorInfo:
    tensor = pointer.contents
    return TensorInfo(
        tensor.name.decode(),
        dtype_of(tensor.dtype.decode()),
        tuple(tensor.min_shape[: tensor.rank]),
        tuple(tensor.max_shape[: tensor.rank]),
    )
