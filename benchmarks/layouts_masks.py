"""Masks whose zeros lie as each way of pruning leaves them, drawn at random.

What is kept is a boolean matrix [rows, depth], outputs first; the depth of a convolution is (channel, tap). `kept` is
the share that is meant to stay.
"""

from collections.abc import Callable

import numpy as np

Mask = np.ndarray
Make = Callable[[np.random.Generator, int, int, float], Mask]

TILE = 128  # rows of a tile, as tile-wise sparsity uses for BERT
PATTERNS = np.array(  # of 3 × 3 taps: the centre and three neighbours of it, as PatDNN keeps
    [[1, 3, 4, 5], [1, 4, 5, 7], [3, 4, 5, 7], [1, 3, 4, 7], [0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
)
CONNECTIVITY = 3.6  # kernels for each kernel that is kept


def unstructured(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep single weights."""
    return rng.random((rows, depth)) < kept


def blocks(r: int, c: int) -> Make:
    """Keep blocks of r × c weights."""

    def make(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
        whole = rng.random((-(-rows // r), -(-depth // c))) < kept
        return whole.repeat(r, axis=0).repeat(c, axis=1)[:rows, :depth]

    return make


def tile_wise(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep columns of each tile of rows (Guo et al., SC'20, one-sided)."""
    return blocks(min(TILE, rows), 1)(rng, rows, depth, kept)


def tile_wise_two_sided(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep some rows; tile by tile of those that are left, keep columns."""
    share = np.sqrt(kept)
    left = np.flatnonzero(rng.permutation(rows) < round(share * rows))
    mask = np.zeros((rows, depth), bool)
    mask[left] = tile_wise(rng, len(left), depth, share)
    return mask


def tile_element_wise(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep tile-wise, and one weight in a hundred anywhere."""
    return tile_wise(rng, rows, depth, kept - 0.01) | unstructured(rng, rows, depth, 0.01)


def some_of(n: int, m: int) -> Make:
    """Keep n of each m neighbours along the depth, whatever share is meant."""

    def make(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
        places = rng.random((rows, -(-depth // m), m)).argsort(axis=2)
        return (places < n).reshape(rows, -1)[:, :depth]

    return make


def tile_vector_wise(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep groups of 4 columns of each tile of rows, and 2 of the 4 in each row (arXiv 2402.10876)."""
    return blocks(min(TILE, rows), 4)(rng, rows, depth, 2 * kept) & some_of(2, 4)(rng, rows, depth, kept)


def vector_n_m(v: int, n: int, m: int, shared: int = 4) -> Make:
    """Keep n of `shared` of each m neighbours, the `shared` ones being the same for v rows (V:N:M)."""

    def make(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
        columns = some_of(shared, m)(rng, -(-rows // v), depth, kept).repeat(v, axis=0)[:rows]
        places = np.where(columns, rng.random((rows, depth)), 2.0)
        places = np.pad(places, ((0, 0), (0, -depth % m)), constant_values=2.0).reshape(rows, -1, m)
        return (places.argsort(axis=2).argsort(axis=2) < n).reshape(rows, -1)[:, :depth] & columns

    return make


def patterns(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep 4 taps of 9 in one of 8 shapes, in one kernel of 3.6 (PatDNN, ASPLOS'20), whatever share is meant."""
    kernels = rng.random((rows, depth // 9)) < 1 / CONNECTIVITY
    shapes = np.zeros((len(PATTERNS), 9), bool)
    np.put_along_axis(shapes, PATTERNS, True, axis=1)
    mask = shapes[rng.integers(len(PATTERNS), size=kernels.shape)] & kernels[..., None]
    return mask.reshape(rows, depth)


def diagonals(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep a permuted diagonal of each p × p block (PermDNN, MICRO'18), p being 1 / kept."""
    p = round(1 / kept)
    shift = rng.integers(p, size=(-(-rows // p), -(-depth // p))).repeat(p, axis=0).repeat(p, axis=1)[:rows, :depth]
    return (np.arange(rows)[:, None] + shift) % p == np.arange(depth) % p


def combined_columns(rng: np.random.Generator, rows: int, depth: int, kept: float) -> Mask:
    """Keep in each row one weight of some columns that stand anywhere, as column combining does (ASPLOS'19)."""
    return some_of(1, round(1 / kept))(rng, rows, depth, kept)[:, rng.permutation(depth)]


STRUCTURES: dict[str, tuple[Make, tuple[float, ...]]] = {
    "unstructured": (unstructured, (0.5, 0.2, 0.1, 0.05)),
    "4x1 blocks": (blocks(4, 1), (0.25, 0.1)),
    "8x1 blocks": (blocks(8, 1), (0.25,)),
    "4x4 blocks": (blocks(4, 4), (0.2,)),
    "tile-wise": (tile_wise, (0.25,)),
    "tile-wise two-sided": (tile_wise_two_sided, (0.25,)),
    "tile-element-wise": (tile_element_wise, (0.25,)),
    "tile-vector-wise": (tile_vector_wise, (0.25,)),
    "2:4": (some_of(2, 4), (0.5,)),
    "1:4": (some_of(1, 4), (0.25,)),
    "16:2:8": (vector_n_m(16, 2, 8), (0.25,)),
    "patterns": (patterns, (4 / 9 / CONNECTIVITY,)),
    "diagonals": (diagonals, (0.25, 0.125)),
    "combined columns": (combined_columns, (0.125,)),
}
"""Each way of pruning, and the shares that it is measured at."""
