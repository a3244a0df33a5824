"""Rewrite the table of measured times in the README from the results that ``benchmarks.run`` kept."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.contest import TITLES
from benchmarks.run import RESULTS
from sparsec.bench.machine import Machine
from sparsec.bench.table import display_name

BEGIN, END = "<!-- benchmark table -->", "<!-- end of benchmark table -->"


def render(results: dict[str, Any]) -> str:
    """One machine's results as a Markdown table with a line about the machine."""
    contests = results["contests"]
    engines = list(dict.fromkeys(lane["engine"] for contest in contests for lane in contest["lanes"]))
    header = ["model", "zeros", "threads", *(f"{display_name(engine)}, ms" for engine in engines), "speed-up"]
    lines = [_row(header), _row(["---"] * 2 + ["---:"] * (len(header) - 2))]
    for contest in contests:
        times = {lane["engine"]: median(lane["times"]) for lane in contest["lanes"]}
        best = min((engine for engine in times if engine != "sparsec"), key=times.__getitem__)
        cells = [f"{times[engine] * 1e3:.1f}" if engine in times else "–" for engine in engines]
        title, zeros = TITLES[contest["network"]], f"{contest['sparsity'] * 100:g} %"
        ratio = contest["speedup"][best]["median"]
        lines.append(_row([title, zeros, str(contest["threads"]), *cells, f"**{ratio:.2f}×**"]))
    versions = {lane["engine"]: lane["version"] for contest in contests for lane in contest["lanes"]}
    named = ", ".join(f"{display_name(engine)} {version}" for engine, version in versions.items())
    machine = Machine(**results["machine"])
    note = f"fp32, batch 1, {contests[0]['date'][:10]}, {machine}. {named}. Speed-up: over the faster peer."
    return "\n".join([*lines, "", note])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rewrite(page: str, tables: str) -> str:
    """The page with ``tables`` between its two markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page holds no table: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


@click.command()
@click.argument("readme", default="README.md", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def main(readme: Path) -> None:
    """Rewrite the table in README from benchmarks/results/*.json."""
    tables = [render(json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
    if not tables:
        raise click.ClickException(f"{RESULTS} holds no results: run `make bench` first")
    try:
        page = rewrite(readme.read_text(), "\n\n".join(tables))
    except ValueError as error:
        raise click.ClickException(f"{readme}: {error}") from error
    readme.write_text(page)


if __name__ == "__main__":
    main()
