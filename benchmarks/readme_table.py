"""Rewrite the tables of measured times in the README from the results that races kept."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import click

from benchmarks import int8, int8_blocks, peers, peers_table, unit_convolutions
from benchmarks.contest import TITLES
from sparsec.bench.machine import Machine
from sparsec.bench.table import display_name


def networks(results: dict[str, Any]) -> str:
    """One machine's races of int8 networks as a Markdown table with a line about the machine."""
    contests = results["contests"]
    engines = list(dict.fromkeys(lane["engine"] for contest in contests for lane in contest["lanes"]))
    header = ["model", "zeros", "threads", *(f"{display_name(engine)}, ms" for engine in engines), "speed-up"]
    lines = [_row(header), _row(["---"] * 2 + ["---:"] * (len(header) - 2))]
    for contest in contests:
        times = {lane["engine"]: median(lane["times"]) for lane in contest["lanes"]}
        best = min((engine for engine in times if engine != "sparsec"), key=times.__getitem__)
        cells = [f"{times[engine] * 1e3:.1f}" if engine in times else "–" for engine in engines]
        title, zeros = TITLES[contest["network"]], f"{contest['sparsity'] * 100:g} %"
        if contest["sparsity"] and "structure" in contest:
            zeros += f", {contest['structure']}"
        ratio = contest["speedup"][best]["median"]
        lines.append(_row([title, zeros, str(contest["threads"]), *cells, f"**{ratio:.2f}×**"]))
    versions = {lane["engine"]: lane["version"] for contest in contests for lane in contest["lanes"]}
    named = ", ".join(f"{display_name(engine)} {version}" for engine, version in versions.items())
    machine = Machine(**results["machine"])
    note = f"int8, batch 1, {contests[0]['date'][:10]}, {machine}. {named}. Speed-up: over the faster peer."
    return "\n".join([*lines, "", note])


def convolutions(results: dict[str, Any]) -> str:
    """One machine's races of single convolutions as a sentence."""
    layers = results["layers"]
    shares = {
        display_name(engine): geometric_mean(layer["share_of_peak"][engine] for layer in layers)
        for engine in layers[0]["times"]
    }
    reached = ", ".join(f"{engine} {share:.0%}" for engine, share in shares.items())
    machine = Machine(**results["machine"])
    return (
        f"{len(layers)} convolutions that UNIT (CGO 2021) was measured on reach so much of the rate at which a core can"
        f" multiply bytes, in geometric means on {machine.cpu}: {reached}."
    )


TABLES: tuple[tuple[str, Path, Callable[[dict[str, Any]], str]], ...] = (
    ("headline table", peers.RESULTS, peers_table.headline),
    ("int8 table", int8.RESULTS, networks),
    ("int8 convolutions", unit_convolutions.RESULTS, convolutions),
    ("int8 blocks", int8_blocks.RESULTS, int8_blocks.sentence),
    ("peers table", peers.RESULTS, peers_table.tables),
)
"""Marker of each place in the README, the folder of its results, and what they are written as."""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rewrite(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the two markers of a name."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the page has no place for the {name}: it needs the lines {first} and {last}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _written(folder: Path, write: Callable[[dict[str, Any]], str]) -> str:
    """What is written for each machine, that of the most and the latest results first and the others folded."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found.sort(key=lambda results: (len(results.get("rows", ())), results.get("date", "")), reverse=True)
    folded = (
        f"<details><summary>On {Machine(**results['machine'])}</summary>\n\n{write(results)}\n\n</details>"
        for results in found[1:]
    )
    return "\n\n".join([*map(write, found[:1]), *folded])


@click.command()
@click.argument("readme", default="README.md", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def main(readme: Path) -> None:
    """Rewrite the tables in README for which benchmarks/results has results."""
    found = {name: _written(folder, write) for name, folder, write in TABLES}
    if not any(found.values()):
        raise click.ClickException(f"{peers.RESULTS.parent} holds no results: run `make bench-peers` first")
    page = readme.read_text()
    try:
        for name, text in found.items():
            if text:
                page = rewrite(page, name, text)
    except ValueError as error:
        raise click.ClickException(f"{readme}: {error}") from error
    readme.write_text(page)


if __name__ == "__main__":
    main()
