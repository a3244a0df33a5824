"""Layouts that tests take for examples, beside those that have a name in sparsec.ir.named."""

from __future__ import annotations

from sparsec.ir.layout import Layout
from sparsec.ir.named import CSC, DENSE, row_vectors
from sparsec.ir.notation import parse_layout
from sparsec.schedules.rules.cuts import Cut, in_rows

__all__ = ["CSC", "DENSE", "bucketed", "csr_kblocked", "depth_blocked", "row_vectors"]


def csr_kblocked(kb: int) -> Layout:
    """Return a CSR matrix for each block of kb columns, so that kb rows of the other operand can stay in L1."""
    return parse_layout(f"(i, k) -> (k floordiv {kb} : dense, i : dense, k mod {kb} : compressed)")


def bucketed(kb: int) -> Layout:
    """Return `csr_kblocked`, with the rows of each block sorted by their number of entries."""
    return parse_layout(f"(i, k) -> (k floordiv {kb} : dense, i : bucketed, k mod {kb} : compressed)")


def depth_blocked(part: int, r: int = 1, chunk: int = 0, parts: int = 1) -> Layout:
    """Return what families write for sparse weights: chunks of rows, parts of the depth, blocks of r rows by length."""
    return in_rows(Cut(0, 0, r, chunk, parts, part), "bucketed", "compressed")
