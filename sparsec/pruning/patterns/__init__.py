"""Patterns of zeros: each a frozen dataclass that chooses what to keep of a matrix from the scores of its weights."""

from sparsec.pruning.patterns.base import Mask, Pattern, Scores
from sparsec.pruning.patterns.blocks import Block, Channels, Unstructured
from sparsec.pruning.patterns.groups import NM, VNM
from sparsec.pruning.patterns.kernels import KernelPattern
from sparsec.pruning.patterns.notation import PATTERNS, parse_pattern
from sparsec.pruning.patterns.permuted import ColumnCombining, PermutedDiagonal
from sparsec.pruning.patterns.tiles import TEW, TVW, TileWise

__all__ = [
    "NM",
    "PATTERNS",
    "TEW",
    "TVW",
    "VNM",
    "Block",
    "Channels",
    "ColumnCombining",
    "KernelPattern",
    "Mask",
    "Pattern",
    "PermutedDiagonal",
    "Scores",
    "TileWise",
    "Unstructured",
    "parse_pattern",
]
