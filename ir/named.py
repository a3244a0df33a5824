"""Layouts with a name: one line of notation each."""

from __future__ import annotations

from sparsec.ir.layout import Layout
from sparsec.ir.notation import parse_layout

DENSE = parse_layout("(i, k) -> (i : dense, k : dense)")
CSR = parse_layout("(i, k) -> (i : dense, k : compressed)")
CSC = parse_layout("(i, k) -> (k : dense, i : compressed)")
COO = parse_layout("(i, k) -> (i : compressed(nonunique), k : singleton)")


def bsr(r: int, c: int) -> Layout:
    """Return CSR of dense blocks of r rows and c columns (both at least 2)."""
    blocks = f"i floordiv {r} : dense, k floordiv {c} : compressed"
    return parse_layout(f"(i, k) -> ({blocks}, i mod {r} : dense, k mod {c} : dense)")


def row_vectors(r: int) -> Layout:
    """Return CSR of blocks of r rows (at least 2) and one column."""
    return parse_layout(f"(i, k) -> (i floordiv {r} : dense, k : compressed, i mod {r} : dense)")


def csr_kblocked(kb: int) -> Layout:
    """Return a CSR matrix for each block of kb columns, so that kb rows of the other operand can stay in L1."""
    return parse_layout(f"(i, k) -> (k floordiv {kb} : dense, i : dense, k mod {kb} : compressed)")


def bucketed(kb: int) -> Layout:
    """Return `csr_kblocked`, with the rows of each block sorted by their number of entries."""
    return parse_layout(f"(i, k) -> (k floordiv {kb} : dense, i : bucketed, k mod {kb} : compressed)")
