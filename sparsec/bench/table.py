"""Races as tables for people."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from sparsec.bench.result import Lane, Race
from sparsec.report.units import bytes_text, plural, seconds_text

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "deepsparse": "DeepSparse"}
"""Names of the engines as their makers write them."""


def display_name(engine: str) -> str:
    """An engine's name as its makers write it."""
    return NAMES.get(engine, engine)


def race_table(race: Race) -> Table:
    """One race in detail: a row for each engine."""
    caption = f"{race.machine}\n{race.date}; the speed-up is sparsec's over the engine"
    for engine, reason in race.absent.items():
        caption += f"\n{display_name(engine)} did not run: {reason}"
    table = Table(title=f"{race.model}, {plural(race.threads, 'thread')}", caption=caption, caption_justify="left")
    table.add_column("engine")
    for column in ("median", "fastest", "speed-up", "min–max", "error", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    compared = race.lanes[0].engine == "sparsec"
    for lane in race.lanes:
        speedup = spread = "–"
        if compared and lane is not race.lanes[0]:
            ratio = race.speedup(over=lane.engine)
            speedup, spread = f"{ratio.median:.2f}×", f"{ratio.min:.2f}–{ratio.max:.2f}"
        times = map(seconds_text, (lane.seconds, lane.fastest))
        name, memory = f"{display_name(lane.engine)} {lane.version}", bytes_text(lane.memory_bytes)
        table.add_row(name, *times, speedup, spread, _error(race, lane), memory)
    return table


def summary_table(races: Sequence[tuple[str, Race]], title: str) -> Table:
    """Several races side by side, each under a label: a row for each race, a column for each engine."""
    engines = list(dict.fromkeys(lane.engine for _, race in races for lane in race.lanes))
    caption = "median times; the speed-up is over the fastest peer"
    table = Table(title=title, caption=caption, caption_justify="left")
    table.add_column("model")
    for column in ("threads", *map(display_name, engines), "speed-up", "error"):
        table.add_column(column, justify="right")
    for label, race in races:
        ran = {lane.engine: lane for lane in race.lanes}
        times = [seconds_text(ran[engine].seconds) if engine in ran else "–" for engine in engines]
        speedup = f"{race.speedup(race.best_peer).median:.2f}×" if "sparsec" in ran and race.best_peer else "–"
        error = _error(race, ran["sparsec"]) if "sparsec" in ran else Text("–")
        table.add_row(label, str(race.threads), *times, speedup, error)
    return table


def _error(race: Race, lane: Lane) -> Text:
    if lane.engine == race.reference:
        return Text("(ref.)")
    return Text(f"{lane.error:.1e}", style="green" if lane.agrees else "bold red")
