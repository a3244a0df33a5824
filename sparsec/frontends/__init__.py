"""Reads models into Relax: ONNX files and protobufs, PyTorch modules and exported programs."""

from importlib import import_module
from typing import Any

_HOME = {
    "Imported": "sparsec.frontends.model",
    "load_model": "sparsec.frontends.model",
    "parse_shape": "sparsec.frontends.shapes",
}

__all__ = ["Imported", "load_model", "parse_shape"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sparsec.frontends' has no attribute {name!r}")
