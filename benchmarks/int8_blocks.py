"""Hold int8 kernels for weights of blocks against the rate at which a core can multiply bytes, on one thread.

The linear layers of BERT-base on 128 tokens. Times are those of the kernels, whose sums stay int32, with warm caches;
the peak is measured between them, by a loop on registers.

    python -m benchmarks.int8_blocks
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.keep import keep
from benchmarks.layouts_cases import Shape
from benchmarks.low_bit import int8_product
from benchmarks.sparse_layers import BERT
from benchmarks.unit_convolutions import peak_of_bytes
from sparsec.bench.machine import Machine, this_machine
from sparsec.report.units import seconds_text
from sparsec.schedules.rules.product import propose
from sparsec.search.measure import Candidates
from sparsec.targets import Target

RESULTS = Path(__file__).parent / "results" / "int8-blocks"
BLOCKS = ((16, 4), (4, 4), (4, 1))
SPARSITIES = (0.8, 0.9, 0.95)
RUNS = 20


@dataclass(frozen=True)
class Heat:
    """One layer: rows and columns of its blocks, its zeros, the layout that was chosen, and seconds of each round."""

    layer: str
    block: tuple[int, int]
    sparsity: float
    layout: str
    times: list[float]
    limits: list[float]

    @property
    def share(self) -> float:
        """Of the peak that was reached, by multiplications of what is stored."""
        return median(limit / time for limit, time in zip(self.limits, self.times, strict=True))


def weight_of(shape: Shape, block: tuple[int, int], sparsity: float) -> np.ndarray:
    """An int8 matrix [outputs, inputs] of which so many blocks are zero, from a seed."""
    rng = np.random.default_rng(0)
    grid = shape.outputs // block[0], shape.inputs // block[1]
    kept = rng.permutation(prod(grid)) < round(prod(grid) * (1 - sparsity))
    values = rng.integers(1, 128, (shape.outputs, shape.inputs), np.int8)
    return values * np.kron(kept.reshape(grid), np.ones(block, np.int8))


def heat(shape: Shape, block: tuple[int, int], sparsity: float, rounds: int, peak: Callable[[], float]) -> Heat:
    """Time one layer, the peak between its rounds."""
    matrix, target = weight_of(shape, block, sparsity), Target.parse("native").with_cores(1)
    proposal = propose(int8_product(shape, target), matrix.astype(np.float32), target)
    candidate = Candidates([proposal], matrix, target)
    operations = 2 * np.count_nonzero(matrix) * shape.extent
    times, limits = [], []
    for _ in range(rounds):
        times.extend(candidate.time(RUNS))
        limits.append(operations / peak())
    return Heat(str(shape), block, sparsity, proposal.name, times, limits)


def heat_table(heats: list[Heat]) -> Table:
    """One row for each layer."""
    table = Table(title=f"int8 blocks, one thread, {this_machine()}", caption_justify="left")
    for column in ("layer", "blocks", "zeros", "layout", "time", "of the peak"):
        table.add_column(column, justify="right" if column in ("time", "of the peak") else "left", no_wrap=True)
    for one in heats:
        block = "×".join(map(str, one.block))
        table.add_row(
            one.layer, block, f"{one.sparsity:.0%}", one.layout, seconds_text(median(one.times)), f"{one.share:.0%}"
        )
    return table


def sentence(results: dict[str, Any]) -> str:
    """One machine's shares of the peak, in geometric means over the layers."""
    shares: dict[str, dict[float, list[float]]] = {}
    for layer in results["layers"]:
        shares.setdefault("×".join(map(str, layer["block"])), {}).setdefault(layer["sparsity"], []).append(
            layer["share"]
        )
    found = (
        f"{block} {', '.join(f'{geometric_mean(of):.0%} ({zeros:.0%} zeros)' for zeros, of in by_zeros.items())}"
        for block, by_zeros in shares.items()
    )
    return (
        "Linear layers of BERT-base whose int8 weights are zero by blocks reach so much of the rate at which a core "
        f"can multiply bytes, in geometric means on {Machine(**results['machine']).cpu}: {'; '.join(found)}."
    )


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/int8-blocks/<machine>.json.")
def main(rounds: int, output: Path | None) -> None:
    """Time int8 layers whose zeros are blocks."""
    console, heats, peak = Console(width=140), [], peak_of_bytes()
    for block in BLOCKS:
        for sparsity in SPARSITIES:
            for shape in BERT:
                with console.status(f"{block}, {sparsity:.0%}: {shape}"):
                    heats.append(heat(shape, block, sparsity, rounds, peak))
    console.print(heat_table(heats))
    layers = [asdict(one) | {"share": one.share} for one in heats]
    path = keep({"layers": layers}, RESULTS, output)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
