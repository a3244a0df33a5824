"""Where the time of a model goes, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from sparsec.report.units import plural, seconds_text

if TYPE_CHECKING:
    from sparsec.runtime.session import StepTime


def step_table(steps: Sequence[StepTime]) -> Table:
    """One row for each step, the slowest first."""
    whole = sum(step.seconds for step in steps) or 1.0
    table = Table(title="time of each step", title_justify="left", show_footer=True)
    table.add_column("layer", plural(len(steps), "step"), overflow="fold")
    table.add_column("kernel", overflow="fold")
    table.add_column("time", seconds_text(whole), justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for step in sorted(steps, key=lambda step: -step.seconds):
        table.add_row(step.label, step.kernel, seconds_text(step.seconds), f"{step.seconds / whole:.1%}")
    return table
