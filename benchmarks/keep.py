"""Results of races, kept as JSON beside the machine that they were measured on."""

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sparsec.bench.machine import Machine, this_machine
from sparsec.errors import InputError


def place(folder: Path, output: Path | None = None) -> Path:
    """Where results are kept: in ``folder``, in a file named after this machine, or in ``output``."""
    return output or folder / f"{this_machine().slug}.json"


def keep(results: dict[str, Any], folder: Path, output: Path | None = None, indent: int | None = 1) -> Path:
    """Write results to their `place`, with the date, and return it."""
    path, date = place(folder, output), datetime.now(timezone.utc).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        {"machine": asdict(this_machine()), **results, "date": date}, indent=indent, separators=separators
    )
    path.write_text(text + "\n")
    return path


def kept(folder: Path, output: Path | None = None) -> dict[str, Any]:
    """What was kept before, to be added to; empty if nothing was.

    Raises
    ------
    InputError
        It was measured on another machine.
    """
    path = place(folder, output)
    if not path.exists():
        return {}
    results = json.loads(path.read_text())
    machine = Machine(**results.pop("machine"))
    if machine.slug != this_machine().slug:
        raise InputError(f"{path} was measured on another machine, {machine}: name another file with --json")
    results.pop("date", None)
    return results
