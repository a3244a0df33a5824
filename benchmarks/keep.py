"""Results of races, kept as JSON beside the machine that they were measured on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparsec.bench.machine import this_machine


def keep(results: dict[str, Any], folder: Path, output: Path | None = None, indent: int | None = 1) -> Path:
    """Write results to ``folder``, in a file named after this machine, or to ``output``; return where they are."""
    path = output or folder / f"{this_machine().slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    separators = (",", ":") if indent is None else None
    text = json.dumps({"machine": asdict(this_machine()), **results}, indent=indent, separators=separators)
    path.write_text(text + "\n")
    return path
