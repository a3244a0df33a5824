"""Race int8 networks, on one thread, beside dense int8 runtimes: dense, with 4×1 blocks, and without structure.

Peers skip no zeros, so that their times are those of a dense network. A rounding that falls the other way changes all
layers behind it, so engines are not held against one another, but each against the float network.

    python -m benchmarks.int8 -n resnet50
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import sparsec
from benchmarks.contest import TITLES
from benchmarks.int8_models import RECIPES, quantized
from benchmarks.keep import keep
from benchmarks.models import cached
from sparsec.bench import Race, race, seeded_inputs, worker
from sparsec.bench.machine import this_machine
from sparsec.bench.table import display_name
from sparsec.errors import SparsecError
from sparsec.report.units import seconds_text

RESULTS = Path(__file__).parent / "results" / "int8"
PEERS = ("openvino", "onnxruntime")  # the first is the reference, since it runs the file that sparsec compiles
ZEROS: dict[str, dict[str, Any]] = {
    "dense": {"sparsity": 0.0},
    "4×1 blocks": {"sparsity": 0.9, "prune": "block:4x1"},
    "unstructured": {"sparsity": 0.9},
}
"""How networks are pruned, as `benchmarks.models.cached` takes it."""


@dataclass(frozen=True)
class Entry:
    """A network, the structure of its zeros, its files by engine, and its float original."""

    network: str
    structure: str
    original: Path
    files: dict[str, Path]
    compile_seconds: float = field(default=0.0)

    @property
    def label(self) -> str:
        """A name for tables."""
        sparsity = ZEROS[self.structure]["sparsity"]
        return f"{TITLES[self.network]}, {self.structure}" + (f", {sparsity * 100:g} %" if sparsity else "")

    def errors(self) -> dict[str, float]:
        """How far each engine's first output is from the float network's: a share of its root mean square."""
        inputs = seeded_inputs(self.original)
        truth = _answer("onnxruntime", self.original, inputs)
        scale = np.sqrt(np.mean(truth**2))
        answers = {engine: _answer(engine, path, inputs) for engine, path in self.files.items()}
        return {engine: float(np.sqrt(np.mean((y - truth) ** 2)) / scale) for engine, y in answers.items()}


def _answer(engine: str, path: Path, inputs: dict[str, Any]) -> np.ndarray:
    run, fetch = worker.ENGINES[engine](str(path), 1, inputs)
    run()
    return fetch()[0].astype(np.float64)


def prepare(network: str, structure: str, folder: Path) -> Entry:
    """Write a network's files to ``folder`` (once) and compile it (always, since the compiler may have changed)."""
    options = ZEROS[structure]
    model = quantized(folder, network, **options)
    files = {"sparsec": model.with_suffix(".so")}
    files |= {peer: quantized(folder, network, engine=peer, **options) for peer in PEERS}
    start = time.perf_counter()
    sparsec.compile(model, threads=1).save(files["sparsec"])
    return Entry(network, structure, cached(folder, network, **options), files, time.perf_counter() - start)


def compete(entry: Entry, seconds: float) -> Race:
    """Race the library against the peers, each on its own file."""
    return race(entry.files[PEERS[0]], PEERS, 1, entry.files["sparsec"], seconds, files=entry.files)


def table_of(races: list[tuple[Entry, Race, dict[str, float]]]) -> Table:
    """A row for each network, a time and an error for each engine."""
    engines = [lane.engine for lane in races[0][1].lanes]
    caption = "median times, with the error against the float network; the speed-up is over the fastest peer"
    table = Table(title=f"int8, one thread, {this_machine()}", caption=caption, caption_justify="left")
    table.add_column("model")
    for column in (*map(display_name, engines), "speed-up"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry, result, errors in races:
        cells = [f"{seconds_text(result.lane(engine).seconds)} ({errors[engine]:.1%})" for engine in engines]
        best = result.best_peer
        assert best is not None, "a race needs a peer"
        table.add_row(entry.label, *cells, f"{result.speedup(best).median:.2f}×")
    return table


@click.command()
@click.option("-n", "--network", "networks", multiple=True, type=click.Choice(sorted(RECIPES)),
              default=tuple(RECIPES), show_default=True)  # fmt: skip
@click.option("-z", "--zeros", "structures", multiple=True, type=click.Choice(list(ZEROS)),
              default=tuple(ZEROS), show_default=True)  # fmt: skip
@click.option("--seconds", default=30.0, show_default=True, help="Budget of one race.")
@click.option("--cache", default=".cache/models", show_default=True, type=click.Path(path_type=Path),
              help="Where models are kept.")  # fmt: skip
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/int8/<machine>.json.")
def main(
    networks: tuple[str, ...], structures: tuple[str, ...], seconds: float, cache: Path, output: Path | None
) -> None:
    """Race int8 networks against ONNX Runtime and OpenVINO."""
    console = Console(width=160)
    races = []
    try:
        for network in networks:
            for structure in structures:
                with console.status(f"compiling {network}, {structure}"):
                    entry = prepare(network, structure, cache)
                console.print(f"{entry.label}: compiled in {entry.compile_seconds:.1f} s")
                with console.status(f"racing {network}, {structure}"):
                    races.append((entry, compete(entry, seconds), entry.errors()))
    except SparsecError as error:
        raise click.ClickException(str(error)) from error
    console.print(table_of(races))
    contests = [
        {
            "network": entry.network,
            "structure": entry.structure,
            "sparsity": ZEROS[entry.structure]["sparsity"],
            "compile_seconds": entry.compile_seconds,
            "artifact_bytes": entry.files["sparsec"].stat().st_size,
            "float_error": errors,
            **result.to_json(),
        }
        for entry, result, errors in races
    ]
    path = keep({"contests": contests}, RESULTS, output)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
