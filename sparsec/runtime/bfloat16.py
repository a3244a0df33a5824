"""Arrays of bfloat16, which NumPy has only where `ml_dtypes` gives it the type."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from sparsec.errors import ArtifactError

_UINT, _BFLOAT = 1, 4  # DLDataTypeCode of DLPack


def dtype_of(name: str) -> np.dtype:
    """Return the NumPy type of this name.

    Raises
    ------
    ArtifactError : for bfloat16, if there is no `ml_dtypes`
    """
    if name == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  it registers the type
        except ImportError:
            raise ArtifactError("the model has tensors of bfloat16, a type of ml_dtypes; install that") from None
    return np.dtype(name)


def from_dlpack(value: Any) -> np.ndarray:
    """Take a tensor of another library, of bfloat16 too, without a copy.

    NumPy's DLPack does not know the type, so such a tensor is taken as the uint16 that it is made of.
    """
    bits = _Bits(value)
    array = np.from_dlpack(bits)
    return array.view(dtype_of("bfloat16")) if bits.found else array


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """The head of DLPack's DLTensor, with which its DLManagedTensor begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
    )


class _Bits:
    """A tensor that exports bfloat16, if that is `found` in it, as uint16."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.found = False

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.value.__dlpack_device__()
        return device

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self.value.__dlpack__()  # unversioned, which every exporter gives
        tensor = _Tensor.from_address(_pointer(capsule, b"dltensor"))
        if tensor.dtype.code == _BFLOAT:
            tensor.dtype.code = _UINT
            self.found = True
        return capsule


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
