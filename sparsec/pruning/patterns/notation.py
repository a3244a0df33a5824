"""Patterns as text."""

from __future__ import annotations

import re
from typing import Any

from sparsec.errors import PruningError
from sparsec.pruning.patterns.base import Pattern
from sparsec.pruning.patterns.blocks import Block, Channels, Unstructured
from sparsec.pruning.patterns.groups import NM, VNM
from sparsec.pruning.patterns.kernels import KernelPattern
from sparsec.pruning.patterns.permuted import ColumnCombining, PermutedDiagonal
from sparsec.pruning.patterns.tiles import TEW, TVW, TileWise

PATTERNS: tuple[type[Pattern], ...] = (
    Unstructured,
    NM,
    VNM,
    Block,
    TileWise,
    TEW,
    TVW,
    KernelPattern,
    PermutedDiagonal,
    ColumnCombining,
    Channels,
)
"""All that `parse_pattern` knows."""


def parse_pattern(text: str) -> Pattern:
    """Read a pattern, such as ``tile-wise:128`` or ``2:4``; ``str`` of a pattern is the text again.

    Raises
    ------
    PruningError
        The text is no pattern, or its numbers do not fit together.
    """
    for kind in PATTERNS:
        if match := re.fullmatch(kind.syntax, text.strip()):
            return kind(**{name: _option(value) for name, value in match.groupdict().items() if value is not None})
    examples = ", ".join(kind.example for kind in PATTERNS)
    raise PruningError(f"cannot read the pattern {text!r}; write it like one of {examples}")


def _option(text: str) -> Any:
    """An option from its text: a number, or a word that stands there or does not."""
    if text.isdecimal():
        return int(text)
    return float(text) if re.fullmatch(r"\d*\.\d+|\d+\.", text) else True
