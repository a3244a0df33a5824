"""Layouts with a name: one line of notation each."""

from __future__ import annotations

from sparsec.ir.layout import Layout
from sparsec.ir.notation import parse_layout

CSR = parse_layout("(i, k) -> (i : dense, k : compressed)")
COO = parse_layout("(i, k) -> (i : compressed(nonunique), k : singleton)")


def bsr(r: int, c: int) -> Layout:
    """Return CSR of dense blocks of r rows and c columns (both at least 2)."""
    blocks = f"i floordiv {r} : dense, k floordiv {c} : compressed"
    return parse_layout(f"(i, k) -> ({blocks}, i mod {r} : dense, k mod {c} : dense)")


def dense_blocks(r: int, taps: int = 1) -> Layout:
    """Return a dense matrix stored as panels of r rows, each panel column by column.

    `taps` splits the columns, so that a loop over a few of them has constant offsets.
    """
    rows, within = (f"i floordiv {r} : dense", f", i mod {r} : dense") if r > 1 else ("i : dense", "")
    columns = f"k floordiv {taps} : dense, k mod {taps} : dense" if taps > 1 else "k : dense"
    return parse_layout(f"(i, k) -> ({rows}, {columns}{within})")


def depth_blocked(part: int, r: int = 1, chunk: int = 0, parts: int = 1) -> Layout:
    """Return the layout of the sparse kernels: chunks of rows, parts of the depth, and rows bucketed by length.

    Parameters
    ----------
    part, parts : columns in a part, and how many parts there are
    r : rows of a dense block
    chunk : rows of a chunk, a multiple of r; 0 for one chunk
    """
    levels = [f"i floordiv {chunk} : dense"] if chunk else []
    if parts > 1:
        levels.append(f"k floordiv {part} : dense")
    block = f" floordiv {r}" if r > 1 else ""
    levels.append(f"i{block}" + (f" mod {chunk // r}" if chunk else "") + " : bucketed")
    levels.append("k" + (f" mod {part}" if parts > 1 else "") + " : compressed")
    if r > 1:
        levels.append(f"i mod {r} : dense")
    return parse_layout(f"(i, k) -> ({', '.join(levels)})")
