"""What memory a compiled model takes when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsec.report.units import bytes_text

PARTS = {"constant_bytes": "weights", "arena_bytes": "activations", "workspace_bytes": "for each thread"}
"""Fields of a manifest, and what people call them."""


def planned_memory(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes of constants, of the arena and of the workspace of each thread, as far as a manifest tells."""
    return {name: manifest[name] for name in PARTS if name in manifest}


def memory_text(planned: Mapping[str, int], measured: int | None = None) -> str:
    """Say what a model takes by plan, and what a run took.

    >>> memory_text({"constant_bytes": 51_000_000, "arena_bytes": 2_400_000}, 53_200_000)
    'memory: 51.0 MB weights, 2.4 MB activations; a run took 53.2 MB'
    """
    parts = ", ".join(f"{bytes_text(planned[name])} {text}" for name, text in PARTS.items() if planned.get(name))
    return f"memory: {parts or 'none'}" + ("" if measured is None else f"; a run took {bytes_text(measured)}")
