"""Layouts with a name: one line of notation each, after the system that they are from."""

from __future__ import annotations

from collections.abc import Callable

from sparsec.ir.layout import Layout
from sparsec.ir.notation import parse_layout
from sparsec.ir.sums import Sum

DENSE = parse_layout("(i, k) -> (i : dense, k : dense)")
MICRO = 8  # rows whose sums a tile holds in registers
UNROLLED = 16  # iterations of a loop over taps

CSR = parse_layout("(i, k) -> (i : dense, k : compressed)")
CSC = parse_layout("(i, k) -> (k : dense, i : compressed)")
COO = parse_layout("(i, k) -> (i : compressed(nonunique), k : singleton)")
BITMAP = parse_layout("(i, k) -> (i : dense, k : bitmap)")
BUCKETED = parse_layout("(i, k) -> (i : bucketed, k : compressed)")


def ell(n: int = 8) -> Layout:
    """Return ELLPACK: n entries in every row, or as many as there are columns (Rice and Boisvert, 1985)."""
    return parse_layout(f"(i, k) -> (i : dense, k : structured[{n}])")


def sell(c: int = 8, depth: int = 64, chunks: int = 1) -> Layout:
    """Return SELL: slices of c rows of alike length, their entries by turns (Kreutzer et al., SISC 2014)."""
    alike = f"alike[{c}, {chunks}]" if chunks > 1 else f"alike[{c}]"
    levels = f"i floordiv {c} : dense, k floordiv {depth} : slots, i mod {c} : dense, k mod {depth} : singleton"
    return parse_layout(f"(i : {alike}, k) -> ({levels})")


def bsr(r: int = 4, c: int = 4) -> Layout:
    """Return CSR of dense blocks of r rows and c columns; r×1 are vectors of rows, 1×c of columns."""
    (rows, row), (columns, column) = _block("i", r), _block("k", c)
    return parse_layout(f"(i, k) -> ({rows} : dense, {columns} : compressed{row}{column})")


def row_vectors(r: int = 4) -> Layout:
    """Return CSR of blocks of r rows and one column."""
    return bsr(r, 1)


def column_vectors(c: int = 4) -> Layout:
    """Return CSR of blocks of one row and c columns."""
    return bsr(1, c)


def n_of_m(n: int = 2, m: int = 4) -> Layout:
    """Return N:M: n of every m consecutive columns of a row (Mishra et al., "Accelerating Sparse DNNs", 2021)."""
    return parse_layout(f"(i, k) -> (i : dense, k floordiv {m} : dense, k mod {m} : structured[{n}])")


def tile_wise(width: int = 64) -> Layout:
    """Return one-sided tile-wise: tiles of `width` rows, each with whole columns left (Guo et al., SC 2020)."""
    rows, row = _tile("i", width)
    return parse_layout(f"(i, k) -> ({rows} : dense, k : compressed{row})")


def tile_wise_two_sided(width: int = 64) -> Layout:
    """Return two-sided tile-wise: as one-sided, over the rows that are left (Guo et al., SC 2020)."""
    rows, row = _tile("i", width)
    return parse_layout(f"(i : condense, k) -> ({rows} : dense, k : compressed{row})")


def tew(width: int = 64) -> Sum:
    """Return TEW: tile-wise, and the best entries elsewhere as CSR (Guo et al., SC 2020)."""
    return Sum((tile_wise(width), CSR))


def tvw(width: int = 64, n: int = 2, m: int = 4) -> Layout:
    """Return TVW: tiles of `width` rows and m columns, with n:m in each row (Guo et al., arXiv 2402.10876, 2024)."""
    rows, row = _block("i", width)
    return parse_layout(f"(i, k) -> ({rows} : dense, k floordiv {m} : compressed{row}, k mod {m} : structured[{n}])")


def v_n_m(v: int = 16, n: int = 2, m: int = 8) -> Layout:
    """Return V:N:M: 4 columns for each block of v rows and m columns, n of them in each row (VENOM, SC 2023)."""
    rows, row = _block("i", v)
    return parse_layout(f"(i, k) -> ({rows} : dense, k floordiv {m} : dense{row}, k mod {m} : vnm[{n}, 4, {v}])")


def two_level_bitmap(m: int = 64) -> Layout:
    """Return a bitmap of the groups of m columns that have an entry, and one of each (Wang et al., ISCA 2021)."""
    return parse_layout(f"(i, k) -> (i : dense, k floordiv {m} : bitmap, k mod {m} : bitmap)")


def fkw(n: int = 4, taps: int = 9, shapes: int = 8) -> Layout:
    """Return kernels of one of a few shapes of n taps, or dropped (PatDNN's FKW, ASPLOS 2020)."""
    return parse_layout(f"(i, k) -> (i : dense, k floordiv {taps} : pattern[{n}, {shapes}], k mod {taps} : taps)")


def fkw_by_channel(chunk: int = 64, n: int = 4, taps: int = 9, shapes: int = 8) -> Layout:
    """Return FKW with the filters of a chunk below the channels, so that those of one shape share what they read."""
    rows, row = f"i floordiv {chunk} : dense", f"i mod {chunk} : pattern[{n}, {shapes}]"
    return parse_layout(f"(i, k) -> ({rows}, k floordiv {taps} : dense, {row}, k mod {taps} : taps)")


def permuted_diagonal(p: int = 8) -> Layout:
    """Return blocks of p rows and p columns, with a shifted diagonal each (PermDNN, MICRO 2018)."""
    (rows, row), (columns, _) = _block("i", p), _block("k", p)
    return parse_layout(f"(i, k) -> ({rows} : dense, {columns} : dense{row}, k mod {p} : diagonal)")


def combined_columns(group: int = 8) -> Layout:
    """Return columns combined `group` to one, so that no two have an entry in a row (Kung et al., ASPLOS 2019)."""
    return parse_layout(
        f"(i, k : combine[{group}]) -> (i : dense, k floordiv {group} : dense, k mod {group} : structured[1])"
    )


def dense_blocks(r: int, taps: int = 1, together: int = 1) -> Layout:
    """Return a dense matrix stored as panels of r rows, each panel column by column.

    `taps` splits the columns, so that a loop over a few of them has constant offsets, as do the rows of a large filter,
    and `together` splits these once more, so that a block of so many of them is decoded at once.

    >>> str(dense_blocks(8, together=64))
    '(i, k) -> (i floordiv 8 : dense, k floordiv 64 : dense, k mod 64 : dense, i mod 8 : dense)'
    """
    (rows, row), (columns, tap) = _block("i", r), _block("k", taps)
    if together > 1:
        inner = f"{columns} mod {together}" if taps > 1 else f"k mod {together}"
        columns, tap = f"k floordiv {taps * together}", f", {inner} : dense{tap}"
    elif 1 < (run := _unrolled(taps)) < taps:
        tap = f", k floordiv {run} mod {taps // run} : dense, k mod {run} : dense"
    return parse_layout(f"(i, k) -> ({rows} : dense, {columns} : dense{tap}{row})")


def grouped_blocks(rows: int, depth: int, r: int, part: int, taps: int = 1) -> Layout:
    """Return dense blocks along a diagonal, each of `rows` × `depth`, stored as panels of r rows of parts of its depth.

    >>> str(grouped_blocks(1, 9, 1, 9, taps=9))
    '(i, k) -> (i : dense, k floordiv 9 : diagonal, k mod 9 : dense)'
    """
    levels = [_digit("i", rows, None), _digit("k", depth, None).replace("dense", "diagonal")]
    levels += [_digit("k", part, depth), _digit("i", r, rows), _digit("k", taps, part), _digit("k", 1, taps)]
    levels.append(_digit("i", 1, r))
    return parse_layout(f"(i, k) -> ({', '.join(filter(None, levels))})")


def _digit(dim: str, size: int, whole: int | None) -> str:
    """Return a dense level that tells apart parts of so many coordinates in a whole of them; none for one part."""
    if size == whole:
        return ""
    quotient = f"{dim} floordiv {size}" if size > 1 else dim
    return f"{quotient} mod {whole // size} : dense" if whole else f"{quotient} : dense"


def spelled_out(r: int = 30) -> Layout:
    """Return blocks of r rows of which each column that has entries stores these, as code can be written of."""
    return parse_layout(f"(i, k) -> (i floordiv {r} : dense, k : compressed, i mod {r} : compressed)")


def _unrolled(taps: int) -> int:
    """Return how many taps, which divide all of them, a loop has whose iterations LLVM writes out."""
    return max(run for run in range(1, UNROLLED + 1) if taps % run == 0)


def _block(dim: str, size: int) -> tuple[str, str]:
    """Return the digit of `dim` outside a block, and the level inside it, which one coordinate does not need."""
    return (f"{dim} floordiv {size}", f", {dim} mod {size} : dense") if size > 1 else (dim, "")


def _tile(dim: str, size: int) -> tuple[str, str]:
    """Return the digits of a block, in groups of `MICRO` where it has more: the sums of one fill the registers."""
    if size <= MICRO or size % MICRO:
        return _block(dim, size)
    return f"{dim} floordiv {size}", f", {dim} floordiv {MICRO} mod {size // MICRO} : dense, {dim} mod {MICRO} : dense"


NAMED: dict[str, Callable[..., Layout | Sum]] = {
    "dense": lambda: DENSE,
    "CSR": lambda: CSR,
    "CSC": lambda: CSC,
    "COO": lambda: COO,
    "ELL": ell,
    "SELL": sell,
    "BSR": bsr,
    "row vectors": row_vectors,
    "column vectors": column_vectors,
    "N:M": n_of_m,
    "tile-wise": tile_wise,
    "tile-wise, two-sided": tile_wise_two_sided,
    "TEW": tew,
    "TVW": tvw,
    "V:N:M": v_n_m,
    "bitmap": lambda: BITMAP,
    "two-level bitmap": two_level_bitmap,
    "FKW": fkw,
    "FKW by channel": fkw_by_channel,
    "permuted diagonal": permuted_diagonal,
    "combined columns": combined_columns,
    "bucketed rows": lambda: BUCKETED,
    "spelled out": spelled_out,
}
"""How to make the layout of each name; the parameters have defaults."""
