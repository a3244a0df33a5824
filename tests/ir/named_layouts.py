"""Layouts that tests take for examples, beside those that have a name in sparsec.ir.named."""

from __future__ import annotations

from sparsec.ir.layout import Layout
from sparsec.ir.notation import parse_layout

DENSE = parse_layout("(i, k) -> (i : dense, k : dense)")
CSC = parse_layout("(i, k) -> (k : dense, i : compressed)")


def row_vectors(r: int) -> Layout:
    """Return CSR of blocks of r rows (at least 2) and one column."""
    return parse_layout(f"(i, k) -> (i floordiv {r} : dense, k : compressed, i mod {r} : dense)")


def csr_kblocked(kb: int) -> Layout:
    """Return a CSR matrix for each block of kb columns, so that kb rows of the other operand can stay in L1."""
    return parse_layout(f"(i, k) -> (k floordiv {kb} : dense, i : dense, k mod {kb} : compressed)")


def bucketed(kb: int) -> Layout:
    """Return `csr_kblocked`, with the rows of each block sorted by their number of entries."""
    return parse_layout(f"(i, k) -> (k floordiv {kb} : dense, i : bucketed, k mod {kb} : compressed)")
