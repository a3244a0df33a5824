"""Where the time of a model goes, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparsec.report.units import plural, rate_text, seconds_text, some

Step = Mapping[str, Any]
"""The fields of `sparsec.bench.profile.ProfiledStep`."""


def step_table(steps: Sequence[Step], peaks: Mapping[str, float]) -> RenderableType:
    """One row for each step, the slowest first, and what it comes to.

    Parameters
    ----------
    steps : of a profile
    peaks : operations a second that the core does at most, by instruction
    """
    whole = sum(step["seconds"] for step in steps) or 1.0
    compared = any(step["speedup"] is not None for step in steps)
    table = Table(title="time of each step", title_justify="left", show_footer=True)
    table.add_column("layer", plural(len(steps), "step"), overflow="fold")
    table.add_column("kernel", overflow="fold")
    footers = {"time": seconds_text(whole), "share": "", "useful": "", "of peak": f"{_share(steps, whole):.0%}"}
    for name, footer in (footers | ({"dense": "", "speed-up": ""} if compared else {})).items():
        table.add_column(name, footer, justify="right", no_wrap=True)
    for step in sorted(steps, key=lambda step: -step["seconds"]):
        cells = [step["label"], step["kernel"], seconds_text(step["seconds"]), f"{step['seconds'] / whole:.1%}"]
        table.add_row(*cells, *_work(step), *(_beside_dense(step) if compared else ()))
    return Group(table, *_notes(steps, peaks, compared))


def _share(steps: Sequence[Step], whole: float) -> float:
    """The part of the whole time that the products would take at the peak."""
    return sum(step["seconds"] * (step["share_of_peak"] or 0.0) for step in steps) / whole


def _work(step: Step) -> tuple[str, str]:
    if not step["flops"] or not step["seconds"]:
        return "", ""
    rate, share = step["flops"] / step["seconds"], step["share_of_peak"]
    return rate_text(rate, unit(step["instruction"])), "" if share is None else f"{share:.0%}"


def unit(instruction: str) -> str:
    """What operations of an instruction are counted in.

    >>> unit("fma.8"), unit("x86.vpdpbusd.512")
    ('FLOP/s', 'OP/s')
    """
    return "FLOP/s" if instruction.startswith("fma.") or "bf" in instruction else "OP/s"


def _beside_dense(step: Step) -> tuple[Text, Text]:
    if step["speedup"] is None:
        return Text(""), Text("")
    style = "bold red" if is_slower(step) else ""
    return Text(seconds_text(step["dense_seconds"]), style), Text(f"{step['speedup']:.2f}×", style)


def is_slower(step: Step) -> bool:
    """Whether a layer takes longer than in the best dense layout, by more than rounds to nothing."""
    return step["speedup"] is not None and round(step["speedup"], 2) < 1


def _notes(steps: Sequence[Step], peaks: Mapping[str, float], compared: bool) -> list[Text]:
    """What the columns are of, and which layers are slower than dense."""
    known = ", ".join(f"{name} {rate_text(peak, unit(name))}" for name, peak in peaks.items())
    notes = [Text(f"useful: operations on what pruning left; peak of a core: {known}")] if known else []
    if slower := [f"{step['label']} ({step['speedup']:.2f}×)" for step in steps if is_slower(step)]:
        verb = "is slower than its dense self" if len(slower) == 1 else "are slower than their dense selves"
        notes.append(Text(f"{plural(len(slower), 'layer')} {verb}: {some(slower, 10)}", "bold red"))
    elif compared:
        notes.append(Text("no layer is slower than its dense self; those without a time are dense"))
    return notes
