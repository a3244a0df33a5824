"""What a run returned, in a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table


def summarize_tensor(name: str, array: np.ndarray) -> dict[str, Any]:
    """Return name, dtype, shape, and the range and mean of what is finite, as JSON values."""
    finite = array[np.isfinite(array)].astype(np.float64)
    low, mean, high = (float(f(finite)) if finite.size else None for f in (np.min, np.mean, np.max))
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "min": low,
        "mean": mean,
        "max": high,
        "not_finite": int(array.size - finite.size),
    }


def tensor_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """One row for each tensor."""
    table = Table()
    for column in ("output", "type", "shape"):
        table.add_column(column)
    for column in ("min", "mean", "max", "not finite"):
        table.add_column(column, justify="right")
    for summary in summaries:
        numbers = ("–" if summary[key] is None else f"{summary[key]:.4g}" for key in ("min", "mean", "max"))
        shape = "×".join(map(str, summary["shape"])) or "scalar"
        table.add_row(summary["name"], summary["dtype"], shape, *numbers, str(summary["not_finite"]))
    return table
