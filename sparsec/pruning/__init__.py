"""Pruning: patterns of zeros, scores of weights, and `prune`, which brings both to a model."""

from importlib import import_module
from typing import Any

_HOME = {
    "NM": "sparsec.pruning.patterns",
    "TEW": "sparsec.pruning.patterns",
    "TVW": "sparsec.pruning.patterns",
    "VNM": "sparsec.pruning.patterns",
    "Activations": "sparsec.pruning.scores",
    "Block": "sparsec.pruning.patterns",
    "Channels": "sparsec.pruning.patterns",
    "ColumnCombining": "sparsec.pruning.patterns",
    "KernelPattern": "sparsec.pruning.patterns",
    "Magnitude": "sparsec.pruning.scores",
    "Pattern": "sparsec.pruning.patterns",
    "PermutedDiagonal": "sparsec.pruning.patterns",
    "Pruned": "sparsec.pruning.pruned",
    "PrunedLayer": "sparsec.pruning.pruned",
    "Scores": "sparsec.pruning.patterns",
    "Taylor": "sparsec.pruning.scores",
    "TileWise": "sparsec.pruning.patterns",
    "Unstructured": "sparsec.pruning.patterns",
    "parse_pattern": "sparsec.pruning.patterns",
    "prune": "sparsec.pruning.pruned",
}

__all__ = [
    "NM",
    "TEW",
    "TVW",
    "VNM",
    "Activations",
    "Block",
    "Channels",
    "ColumnCombining",
    "KernelPattern",
    "Magnitude",
    "Pattern",
    "PermutedDiagonal",
    "Pruned",
    "PrunedLayer",
    "Scores",
    "Taylor",
    "TileWise",
    "Unstructured",
    "parse_pattern",
    "prune",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sparsec.pruning' has no attribute {name!r}")
