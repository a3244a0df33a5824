"""sparsec compiles pruned neural networks into native libraries that are faster because of their zeros.

Names load on first use, so that ``import sparsec`` is quick and ``sparsec.load`` never imports the compiler.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Artifact": "sparsec.codegen.artifact",
    "Session": "sparsec.runtime.session",
    "compile": "sparsec.compiler",
    "inspect": "sparsec.compiler",
    "load": "sparsec.runtime.session",
    "op": "sparsec.compiler",
    "prune": "sparsec.pruning.pruned",
}

__all__ = ["Artifact", "Session", "__version__", "compile", "inspect", "load", "op", "prune"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "operators":  # whose functions say what `op` takes
        return import_module("sparsec.operators")
    raise AttributeError(f"module 'sparsec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "operators"])
