"""Why a layout was chosen for a layer, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.schedules.rules.options import Option

CLEARLY = 0.9
"""Bytes or seconds are worth a word from this part of the chosen layout's on."""


def why(options: Sequence[Option]) -> str:
    """Return what speaks for the chosen option and what for another; empty where nothing was chosen.

    >>> rows = Option("CSR", "", None, 60, 1.0, False)
    >>> blocks = Option("8x1 blocks", "", None, 80, 0.5, True)
    >>> why([blocks, rows, Option("dense", "", None, 320, 1.6, False)])
    '8x1 blocks: 3.2× as fast as dense by the model; CSR would store 75 % of the bytes, but take 2.0× as long'
    """
    able = sorted((option for option in options if option.refusal is None), key=lambda option: option.seconds)
    chosen = next((option for option in able if option.chosen), None)
    if chosen is None:
        return ""
    others = [option for option in able if option is not chosen]
    dense = next((option for option in others if option.name == "dense"), None)
    parts = [f"{dense.seconds / chosen.seconds:.1f}× as fast as dense by the model"] if dense else []
    smaller = [option for option in others if option.nbytes < CLEARLY * chosen.nbytes]
    rivals = [option for option in others if option is not dense]
    if smaller:
        small = min(smaller, key=lambda option: option.nbytes)
        share = f"{small.name} would store {small.nbytes / chosen.nbytes:.0%} of the bytes".replace("%", " %")
        parts.append(f"{share}, but take {_as_long(small, chosen)}")
    elif rivals:
        parts.append(f"the next, {rivals[0].name}, would take {_as_long(rivals[0], chosen)}")
    return f"{chosen.name}: {'; '.join(parts) or 'nothing else can hold the weight'}"


def _as_long(option: Option, chosen: Option) -> str:
    """How an option's time compares, such as ``1.8× as long``."""
    ratio = option.seconds / chosen.seconds
    return "as long" if 0.995 <= ratio < 1.005 else f"{ratio:.{1 if ratio >= 1.95 else 2}f}× as long"
