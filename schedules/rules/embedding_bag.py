"""The schedule of embedding bags, and which layout a table takes."""

from __future__ import annotations

import numpy as np

from sparsec.ir.embedding_bag import EmbeddingBag, build_embedding_bag
from sparsec.ir.layout import Layout
from sparsec.ir.named import CSR, DENSE
from sparsec.ir.notation import parse_layout
from sparsec.ir.types import sums
from sparsec.schedules.steps import Accumulate
from sparsec.schedules.trace import Scheduled, schedule_kernel
from sparsec.targets import Target

VECTOR = 2.0  # cycles to add a vector of a row
ENTRY = 3.0  # cycles to add a single entry, or to find a block
ROW = 700.0  # cycles until it is known where a row that is not in cache starts, and how long it is
BYTE = 0.15  # cycles to bring a byte of a row, which is not in cache, from memory


def schedule_embedding_bag(op: EmbeddingBag, target: Target) -> Scheduled:
    """Lower embedding bags, the dense columns of a row as vectors."""
    lanes = target.lanes(sums(op.y.dtype))
    return schedule_kernel(build_embedding_bag(op), [Accumulate("init|update|finish", lanes)])


def choose_table(table: np.ndarray, target: Target) -> Layout:
    """Return the layout in which a row of a table is read and added soonest.

    Parameters
    ----------
    table : float32 [rows, columns]
    """
    mask = table != 0
    rows, columns = mask.shape
    lanes = target.lanes("float32")
    entries = int(mask.sum()) / rows
    prices = {DENSE: columns / lanes * VECTOR + columns * 4 * BYTE, CSR: ROW + entries * (ENTRY + 6 * BYTE)}
    if columns > lanes:
        blocks = np.pad(mask, ((0, 0), (0, -columns % lanes))).reshape(rows, -1, lanes).any(axis=2).sum() / rows
        name = f"(i, k) -> (i : dense, k floordiv {lanes} : compressed, k mod {lanes} : dense)"
        prices[parse_layout(name)] = ROW + blocks * (ENTRY + VECTOR + (lanes * 4 + 2) * BYTE)
    return min(prices, key=lambda layout: prices[layout])
