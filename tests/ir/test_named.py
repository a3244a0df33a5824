"""Every layout with a name stores what it is for, and says what it cannot."""

import re
from pathlib import Path

import numpy as np
import pytest

from sparsec.ir.named import (
    NAMED,
    bsr,
    column_vectors,
    combined_columns,
    ell,
    fkw,
    fkw_by_channel,
    n_of_m,
    permuted_diagonal,
    row_vectors,
    sell,
    tew,
    tile_wise,
    tile_wise_two_sided,
    tvw,
    two_level_bitmap,
    v_n_m,
)
from sparsec.ir.notation import parse_storage

SMALL = {
    "ELL": ell(3),
    "SELL": sell(2, 5, 2),
    "BSR": bsr(2, 3),
    "row vectors": row_vectors(2),
    "column vectors": column_vectors(3),
    "N:M": n_of_m(3, 16),
    "tile-wise": tile_wise(4),
    "tile-wise, two-sided": tile_wise_two_sided(4),
    "TEW": tew(4),
    "TVW": tvw(4, 1, 3),
    "V:N:M": v_n_m(2, 1, 5),
    "two-level bitmap": two_level_bitmap(5),
    "FKW": fkw(2, 3, 2),
    "FKW by channel": fkw_by_channel(4, 2, 3, 2),
    "permuted diagonal": permuted_diagonal(3),
    "combined columns": combined_columns(3),
}
LAYOUTS = {name: make() for name, make in NAMED.items()} | {f"{name}, small": made for name, made in SMALL.items()}
SHAPES = [(1, 1), (1, 9), (9, 1), (7, 13), (13, 27), (33, 72), (5, 130)]
KINDS = ("zero", "one", "random", "tiles", "full")


def tensor(kind, shape):
    """Zeros, one entry in the last corner, entries anywhere, full and empty tiles, or entries everywhere."""
    random = np.random.default_rng(0)
    mask = {
        "zero": np.zeros(shape, dtype=bool),
        "one": np.pad([[True]], [(extent - 1, 0) for extent in shape]),
        "random": random.random(shape) < 0.2,
        "tiles": np.kron(random.random([-(-extent // 4) for extent in shape]) < 0.4, np.ones((4, 4), dtype=bool)),
        "full": np.ones(shape, dtype=bool),
    }[kind]
    return np.where(mask[: shape[0], : shape[1]], random.standard_normal(shape), 0).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_named_layouts_store_what_they_hold(layout, shape):
    for kind in KINDS:
        array = tensor(kind, shape)
        held, refusal = layout.holds(array), layout.refusal(array)
        assert (refusal is None) == np.array_equal(held, array != 0)
        pruned = np.where(held, array, 0)
        stored = layout.pack(pruned)
        np.testing.assert_array_equal(stored.unpack(), pruned)
        assert stored.nbytes == layout.nbytes(pruned, np.float32)
        if kind == "one":
            assert refusal is None


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_named_layouts_print_and_parse(layout):
    assert parse_storage(str(layout)) == layout


@pytest.mark.parametrize("n", range(1, 17))
def test_n_of_m_up_to_sixteen(n):
    for m in range(max(n, 2), 17):
        layout = n_of_m(n, m)
        array = np.zeros((3, 2 * m), dtype=np.int8)
        array[1, m : m + n] = 1
        stored = layout.pack(array)
        assert stored.arrays["data"].size == 3 * 2 * n
        np.testing.assert_array_equal(stored.unpack(), array)
        if n < m:
            array[1, m + n] = 1
            assert layout.refusal(array) == (
                f"structured[{n}, {m}] holds {n} in each fiber, and at i 1 there are {n + 1}, at k "
                + ", ".join(map(str, range(m, min(m + n, m + 7) + 1)))
                + (", …" if n + 1 > 8 else "")
            )


def test_the_documentation_lists_every_name():
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| `(.+)` \| .*\|$", page, re.MULTILINE)
    assert dict(rows) == {name: str(make()) for name, make in NAMED.items()}
