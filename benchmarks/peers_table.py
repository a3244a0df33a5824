"""What `make bench-peers` kept, as tables for the README."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.peers_course import DENSE
from benchmarks.peers_rows import SECTIONS, TWO_THREADS_AIM, Row
from sparsec.bench.machine import Machine
from sparsec.bench.table import display_name

ENGINES = ("sparsec", *DENSE, "deepsparse")
HEADINGS = {
    "fp32": "fp32, one thread, batch 1",
    "int8": "int8, one thread, batch 1; each peer runs the form of the network that it is fastest on",
    "threads": "Two threads; in brackets how much faster than one thread",
    "batch": "Batch 32, times for one item; in brackets how much faster than an item in batch 1",
    "tokens": "Other numbers of tokens",
    "networks": "Other networks and other sizes",
    "avx2": "Compiled for AVX2; peers use all that the processor has",
}
"""What stands above each section's table."""

UPFRONT = ("fp32", "int8")
"""Sections that are shown unfolded."""

FLOAT_TOLERANCE = 0.1
"""How far from the float network's the answers of bytes may be, in root mean squares, and count as right."""

LIMITS = (
    " The limit is the time of the operations that pruning left at the measured peak of the core, and beside it stands "
    "what of this peak the pruned layers reach."
)

WRONG = (
    " Behind ≠ stands the error of answers that are not right: those in bytes may lie "
    f"{FLOAT_TOLERANCE:.0%} (root mean square) from the float network's, and the form that a peer is fastest on may "
    "round more than that. Its time counts all the same."
)
"""What a mark in the tables means, where there is one."""

FOLDED = "Two threads, batches, other sizes and networks, AVX2"


def tables(results: dict[str, Any]) -> str:
    """One machine's races as Markdown: a table for each section that was raced, and a line about the machine."""
    rows = results["rows"]
    parts = {
        section: _table(HEADINGS[section], [(row, rows[row.key]) for row in raced])
        for section in SECTIONS
        if (raced := [row for row in SECTIONS[section] if row.key in rows])
    }
    folded = "\n\n".join(text for section, text in parts.items() if section not in UPFRONT)
    shown = [text for section, text in parts.items() if section in UPFRONT]
    if folded:
        shown.append(f"<details><summary>{FOLDED}</summary>\n\n{folded}\n\n</details>")
    note = _note(Machine(**results["machine"]), list(rows.values()))
    return "\n\n".join([*shown, note + (WRONG if any("≠" in text for text in shown) else "")])


def headline(results: dict[str, Any]) -> str:
    """One machine's races that say most, on one thread: sparsec beside the faster dense runtime and DeepSparse."""
    header = ["model", "zeros", "type", "sparsec", "fastest dense", "DeepSparse", "over dense", "over DeepSparse"]
    lines, found = [header, ["---"] * 3 + ["---:"] * (len(header) - 3)], []
    for row in (row for section in UPFRONT for row in SECTIONS[section] if row.key in results["rows"]):
        race = results["rows"][row.key]
        times = {lane["engine"]: median(lane["times"]) for lane in race["lanes"]}
        dense = min(times.keys() & set(DENSE), key=times.__getitem__, default="")
        cells = [f"{times[name] * 1e3:.1f} ms" if name in times else "–" for name in ("sparsec", dense, "deepsparse")]
        ratios = [f"**{race['speedup'][n]['median']:.2f}×**" if n in times else "–" for n in (dense, "deepsparse")]
        lines.append([row.model, row.zeros, row.precision, *cells, *ratios])
        found.append(race)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\nOne thread, batch 1, {_when_and_where(Machine(**results['machine']), found)}"


def _table(heading: str, raced: Sequence[tuple[Row, dict[str, Any]]]) -> str:
    ratios = ["over dense", "over DeepSparse"]
    times = [f"{display_name(engine)}, ms" for engine in ENGINES]
    header = ["model", "zeros", *times, *ratios, "error", "limit, ms", "of peak"]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *(_cells(row, found) for row, found in raced)]
    return "\n".join([f"{heading}:", "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def _cells(row: Row, found: dict[str, Any]) -> list[str]:
    lanes = {lane["engine"]: lane for lane in found["lanes"]}
    dense = min(lanes.keys() & set(DENSE), key=lambda engine: median(lanes[engine]["times"]), default="")
    over_dense, over_deepsparse = (
        f"**{_reached(found['speedup'][engine]['median'], aim)}**" if engine in lanes else "–"
        for engine, aim in zip((dense, "deepsparse"), row.aims, strict=True)
    )
    times = [_time(row, lanes[engine], found) if engine in lanes else "–" for engine in ENGINES]
    limit = f"{found['limit_seconds'] / row.batch * 1e3:.2f}" if "limit_seconds" in found else "–"
    reached = f"{found['share_of_peak']:.0%}" if "share_of_peak" in found else "–"
    return [row.model, row.zeros, *times, over_dense, over_deepsparse, _error(lanes["sparsec"], found), limit, reached]


def _time(row: Row, lane: dict[str, Any], found: dict[str, Any]) -> str:
    """Milliseconds for one item, remarks on them, and a mark with the error where the answers are not right."""
    engine, milliseconds = lane["engine"], median(lane["times"]) / row.batch * 1e3
    remarks = ["in fp32"] if row.precision == "int8" and found["forms"].get(engine) == "fp32" else []
    if engine in found["gain"]:
        aim = TWO_THREADS_AIM if row.threads == 2 and engine == "sparsec" else None
        remarks.append(_reached(found["gain"][engine]["median"], aim))
    text = f"{milliseconds:.1f}" if milliseconds >= 10 else f"{milliseconds:.2f}"
    right = found["float_error"][engine] <= FLOAT_TOLERANCE if "float_error" in found else lane["agrees"]
    return text + (f" ({', '.join(remarks)})" if remarks else "") + ("" if right else f" ≠ {_error(lane, found)}")


def _error(lane: dict[str, Any], found: dict[str, Any]) -> str:
    return f"{found['float_error'][lane['engine']]:.1%}" if "float_error" in found else f"{lane['error']:.0e}"


def _reached(ratio: float, aim: float | None) -> str:
    """A ratio, and the aim with a mark that says whether it is reached."""
    if aim is None:
        return f"{ratio:.2f}×"
    return f"{ratio:.2f}× {'✓' if ratio >= aim else '✗'} {aim:g}×"


def _note(machine: Machine, found: Sequence[dict[str, Any]]) -> str:
    return f"{_when_and_where(machine, found)} Behind ✓ or ✗ stands the aim; the error is sparsec's.{LIMITS}"


def _when_and_where(machine: Machine, found: Sequence[dict[str, Any]]) -> str:
    versions: dict[str, list[str]] = {engine: [] for engine in ENGINES}
    for lane in (lane for race in found for lane in race["lanes"]):
        if lane["version"] not in versions[lane["engine"]]:
            versions[lane["engine"]].append(lane["version"])
    named = ", ".join(f"{display_name(engine)} {' and '.join(seen)}" for engine, seen in versions.items() if seen)
    days = sorted({race["date"][:10] for race in found})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{span}, {machine}. {named}."
