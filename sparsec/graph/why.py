"""Why a layout was chosen for a layer, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.schedules.rules.options import Option

CLEARLY = 0.9
"""A layout that stores at most this part of the chosen one's bytes is worth a word."""


def why(options: Sequence[Option], dense_seconds: float) -> str:
    """Return what speaks for the chosen option and what for another; empty where nothing was chosen.

    >>> rows = Option("CSR", "CSR", "", None, 60, 1.0, False)
    >>> blocks = Option("8x1 blocks", "8x1 blocks", "", None, 80, 0.5, True)
    >>> why([blocks, rows, Option("dense", "dense", "", None, 320, 1.6, False)], dense_seconds=1.6)
    '8x1 blocks: 3.2× as fast as dense by the model; CSR would store 75% of the bytes, but take 2.0× as long'
    """
    able = sorted((option for option in options if option.refusal is None), key=lambda option: option.seconds)
    chosen = next((option for option in able if option.chosen), None)
    if chosen is None:
        return ""
    others = [option for option in able if option is not chosen and option.name != "dense"]
    passed_over = [option for option in others if option.seconds < chosen.seconds]
    if any(option.weighed for option in passed_over):  # given, or dense for too small a gain
        passed_over = []
    others = [option for option in others if option not in passed_over]
    faster = dense_seconds / chosen.seconds
    parts = [] if chosen.name == "dense" else [f"{_times(faster)}as fast as dense by the model"]
    smaller = [option for option in others if option.nbytes <= CLEARLY * chosen.nbytes]
    if smaller:
        small = min(smaller, key=lambda option: option.nbytes)
        share = f"{small.name} would store {small.nbytes / chosen.nbytes:.0%} of the bytes"
        parts.append(f"{share}, but take {_times(small.seconds / chosen.seconds)}as long")
    elif others:
        parts.append(f"the next, {others[0].name}, would take {_times(others[0].seconds / chosen.seconds)}as long")
    if passed_over:
        first = passed_over[0].name
        parts.append(f"{first} is priced lower, but is no candidate for such zeros")
    return f"{chosen.name}: {'; '.join(parts) or 'nothing else can hold the weight'}"


def _times(ratio: float) -> str:
    """A ratio before ``as long``; nothing where the two are equal."""
    return "" if 0.995 <= ratio < 1.005 else f"{ratio:.{1 if ratio >= 1.95 else 2}f}× "
