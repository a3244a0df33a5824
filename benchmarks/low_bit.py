"""Race linear layers of few bits against sparsec's own dense int8 kernel, on one thread.

The linear layers of BERT-base on 128 tokens, by the encodings of weights and activations. Kernels take turns, and
medians of the ratios within a round count. The time of a layer of few bits has that of taking its activations apart in
it. The limit is what one core can do on registers alone: an AND, a POPCOUNT and an addition for each 512 pairs of bits.

    python -m benchmarks.low_bit --only "binary × uint2"
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import sparsec
from benchmarks.keep import keep
from benchmarks.layouts_cases import Shape
from benchmarks.sparse_layers import BERT
from sparsec.bench.machine import this_machine
from sparsec.bench.peak import find_peak
from sparsec.ir.bit_planes import Encoding
from sparsec.ir.kernel import Buffer
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, Product
from sparsec.report.units import seconds_text
from sparsec.schedules.rules.product import propose
from sparsec.search.measure import Candidates
from sparsec.targets import Target

RESULTS = Path(__file__).parent / "results" / "low-bit"
PAIRS = (("binary", "binary"), ("uint1", "uint2"), ("binary", "uint2"), ("binary", "uint4"), ("int2", "uint2"))
RUNS = 20


@dataclass(frozen=True)
class Heat:
    """One layer's race: seconds of each round, and those that the operations on registers alone take."""

    layer: str
    encodings: str
    times: list[float]
    int8: list[float]
    limits: list[float]

    @property
    def speedup(self) -> float:
        """How many times faster than int8 it is, from the ratios within each round."""
        return median(slow / fast for slow, fast in zip(self.int8, self.times, strict=True))

    @property
    def share(self) -> float:
        """Of the limit that was reached."""
        return median(limit / time for limit, time in zip(self.limits, self.times, strict=True))


def race(shape: Shape, names: tuple[str, str], target: Target, rounds: int, peak: Callable[[], float]) -> Heat:
    """Race one layer, its result held against NumPy's."""
    left, right = (Encoding.parse(name) for name in names)
    assert left is not None and right is not None
    weight, x = (
        _numbers(*pair) for pair in ((left, (shape.outputs, shape.inputs)), (right, (shape.inputs, shape.extent)))
    )
    layer = sparsec.op(
        "low_bit_matmul", weight, shape.extent, weights=names[0], activations=names[1], threads=1, target=target
    )
    np.testing.assert_array_equal(layer(x), weight @ x.astype(np.int64))
    int8 = _int8(shape, target)
    operations = 2 * weight.size * shape.extent * left.bits * right.bits
    times, slow, limits = [], [], []
    for _ in range(rounds):
        times.append(sum(step.seconds for step in layer.profile(x, runs=RUNS)))
        slow.extend(int8.time(RUNS))
        limits.append(operations / peak())
    return Heat(str(shape), " × ".join(names), times, slow, limits)


def _numbers(encoding: Encoding, shape: tuple[int, int]) -> np.ndarray:
    found = np.arange(encoding.low, encoding.high + 1, abs(encoding.weights[0]))
    return np.random.default_rng(0).choice(found, shape).astype("uint8" if encoding.low >= 0 else "int8")


def int8_product(shape: Shape, target: Target) -> Product:
    """A linear layer of int8 weights on activations of 8 bits, whose sums stay int32."""
    rows, depth, columns = shape.outputs, shape.inputs, shape.extent
    buffers = (
        ("W", "int8", (rows, depth)),
        ("X", target.activations, (1, depth * columns)),
        ("Y", "int32", (1, rows * columns)),
    )
    places = ((BATCH, DEPTH * columns + COLUMN), (BATCH, ROW * columns + COLUMN))
    return Product("int8", *(Buffer(*buffer) for buffer in buffers), *places, 1, rows, depth, columns)


def _int8(shape: Shape, target: Target) -> Candidates:
    """Return the dense int8 kernel of a layer, whose sums stay int32 as those of few bits do."""
    matrix = np.random.default_rng(0).integers(-127, 128, (shape.outputs, shape.inputs), np.int8)
    dense = propose(int8_product(shape, target), matrix.astype(np.float32), target, only_dense=True)
    return Candidates([dense], matrix, target)


def heat_table(heats: list[Heat]) -> Table:
    """One row for each layer."""
    caption = "sums in int32; the limit is an AND, a POPCOUNT and an addition on registers for each 512 pairs of bits"
    table = Table(title=f"few bits, one thread, {this_machine()}", caption=caption, caption_justify="left")
    for column in ("layer", "weights × activations", "few bits", "int8", "speed-up", "of the limit"):
        table.add_column(column, justify="left" if column.startswith(("layer", "weights")) else "right", no_wrap=True)
    for heat in heats:
        times = (seconds_text(median(seconds)) for seconds in (heat.times, heat.int8))
        table.add_row(heat.layer, heat.encodings, *times, f"{heat.speedup:.2f}×", f"{heat.share:.0%}")
    return table


@click.command()
@click.option("--only", default="", help="Encodings whose names hold this text.")
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/low-bit/<machine>.json.")
def main(only: str, rounds: int, output: Path | None) -> None:
    """Race linear layers of few bits against int8."""
    console, target = Console(width=140), Target.parse("native").with_cores(1)
    peak = find_peak("x86.vpopcntd_and.512")
    if peak is None or not target.has("avx512vnni"):
        raise click.ClickException(f"{target.name} has no AVX512-VPOPCNTDQ and AVX512-VNNI, which the race is between")
    heats = []
    for names in PAIRS:
        if only in " × ".join(names):
            for shape in BERT:
                with console.status(f"{' × '.join(names)}: {shape}"):
                    heats.append(race(shape, names, target, rounds, peak))
    console.print(heat_table(heats))
    layers = [asdict(heat) | {"speedup": heat.speedup, "of limit": heat.share} for heat in heats]
    path = keep({"layers": layers}, RESULTS, output)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
