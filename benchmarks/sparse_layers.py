"""Race single pruned layers, on one thread, against dense ones: sparsec's own, PyTorch's and OpenVINO's.

The linear layers of BERT-base on 128 tokens and the 3×3 convolutions of VGG-16, fp32. Engines take turns, and medians
of the ratios within a round count. Times of sparsec are those of the kernels; PyTorch takes the better of two
orientations, or of two memory formats.

    python -m benchmarks.sparse_layers --only tile-wise
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import sparsec
from benchmarks.keep import keep
from benchmarks.layouts_cases import Case, Shape, layer_model
from benchmarks.layouts_masks import STRUCTURES
from sparsec.bench.machine import this_machine
from sparsec.bench.worker import openvino
from sparsec.report.units import seconds_text
from sparsec.schedules.rules.product import propose
from sparsec.search.measure import Candidates
from sparsec.targets import Target

RESULTS = Path(__file__).parent / "results" / "layers"
TURN = 0.05  # seconds of one engine in one round
BERT = (Shape(768, 768, 128), Shape(3072, 768, 128), Shape(768, 3072, 128))
VGG = (
    Shape(64, 64, 224, 3),
    Shape(128, 64, 112, 3),
    Shape(128, 128, 112, 3),
    Shape(256, 128, 56, 3),
    Shape(256, 256, 56, 3),
    Shape(512, 256, 28, 3),
    Shape(512, 512, 28, 3),
    Shape(512, 512, 14, 3),
)
RACES = {
    "tile-wise": (BERT, 0.25),
    "tile-wise two-sided": (BERT, 0.25),
    "4x1 blocks": (BERT, 0.1),
    "patterns": (VGG, STRUCTURES["patterns"][1][0]),
    "2:4": (BERT, 0.5),
    "1:4": (BERT, 0.25),
}
"""Layers by the structure of their zeros, and the share of weights that is kept."""

Turn = Callable[[], float]  # runs an engine for a while; median seconds of a run


@dataclass(frozen=True)
class Heat:
    """One layer's race.

    Parameters
    ----------
    family, layout : what was chosen for the weight
    times : seconds of each round by engine; ``sparsec`` has the sparse weight, ``sparsec dense`` the best dense layout
    """

    case: Case
    family: str
    layout: str
    times: dict[str, list[float]]

    def seconds(self, engine: str) -> float:
        """The median time of an engine."""
        return median(self.times[engine])

    @property
    def peer(self) -> str:
        """The fastest engine of others."""
        return min((engine for engine in self.times if not engine.startswith("sparsec")), key=self.seconds)

    def speedup(self, over: str) -> float:
        """How many times faster sparsec is than an engine, from the ratios within each round."""
        return median(slow / fast for slow, fast in zip(self.times[over], self.times["sparsec"], strict=True))

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        speedups = {engine: self.speedup(engine) for engine in self.times if engine != "sparsec"}
        return {**asdict(self), "speedup": speedups}


def race(case: Case, target: Target, rounds: int) -> Heat:
    """Race one layer, its result held against PyTorch's."""
    product, matrix = case.product(target)
    chosen, dense = (propose(product, matrix, target, only_dense) for only_dense in (False, True))
    kernels = Candidates([chosen, dense], matrix, target)
    engines = dict(_peers(case))
    times: dict[str, list[float]] = {name: [] for name in ("sparsec", "sparsec dense", *engines)}
    runs = max(5, round(2 * TURN / sum(kernels.time(3))))
    for _ in range(rounds):
        for name, seconds in zip(times, kernels.time(runs), strict=False):
            times[name].append(seconds)
        for name, turn in engines.items():
            times[name].append(turn())
    return Heat(case, chosen.name, str(chosen.product.layout), times)


def _peers(case: Case) -> Iterator[tuple[str, Turn]]:
    """Yield the dense engines on a layer, after holding sparsec's answer against theirs."""
    import torch

    torch.set_num_threads(1)
    weight = case.weight()
    shape, model = case.shape, layer_model(weight, case.shape.extent)
    dims = (1, shape.inputs, shape.extent, shape.extent) if shape.kernel else (shape.extent, shape.inputs)
    x = np.random.default_rng(1).standard_normal(dims, np.float32)
    w, given = torch.from_numpy(weight), torch.from_numpy(x)
    if shape.kernel:
        conv = torch.nn.functional.conv2d
        w_last, x_last = (t.to(memory_format=torch.channels_last) for t in (w, given))
        ways = [lambda: conv(given, w, padding="same"), lambda: conv(x_last, w_last, padding="same")]
    else:
        columns = given.T.contiguous()
        ways = [lambda: torch.nn.functional.linear(given, w), lambda: w @ columns]
    answer = sparsec.compile(model, threads=1).load(threads=1)(x)
    np.testing.assert_allclose(answer, ways[0]().numpy(), rtol=1e-3, atol=1e-4 * prod(weight.shape[1:]) ** 0.5)

    def torch_turn() -> float:
        with torch.inference_mode():
            return min(_turn(way) for way in ways)

    yield "PyTorch", torch_turn
    with tempfile.TemporaryDirectory(prefix="sparsec-layer-") as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(model, path)
        run, _ = openvino(str(path), 1, {"x": x})
    yield "OpenVINO", lambda: _turn(run)


def _turn(run: Callable[[], object]) -> float:
    """Run for a while, once for the caches first; return the median seconds."""
    run()
    times: list[float] = []
    while sum(times) < TURN or len(times) < 5:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


def heat_table(title: str, heats: list[Heat]) -> Table:
    """One row for each layer, and one for all of them one after the other."""
    engines = list(heats[0].times)
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("layer", "all")
    table.add_column("chosen")
    total = {engine: sum(heat.seconds(engine) for heat in heats) for engine in engines}
    for engine in engines:
        table.add_column(engine, seconds_text(total[engine]), justify="right", no_wrap=True)
    peer = min(engines[2:], key=total.__getitem__)
    over = total["sparsec dense"] / total["sparsec"], total[peer] / total["sparsec"]
    table.add_column("over dense", f"{over[0]:.2f}×", justify="right", no_wrap=True)
    table.add_column("over the best peer", f"{over[1]:.2f}× {peer}", justify="right", no_wrap=True)
    for heat in heats:
        times = [seconds_text(heat.seconds(engine)) for engine in engines]
        ratios = f"{heat.speedup('sparsec dense'):.2f}×", f"{heat.speedup(heat.peer):.2f}× {heat.peer}"
        table.add_row(str(heat.case.shape), heat.family, *times, *ratios)
    return table


@click.command()
@click.option("--only", default="", help="Races whose name holds this text.")
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/layers/<machine>.json.")
def main(only: str, rounds: int, output: Path | None) -> None:
    """Race pruned layers against dense ones."""
    console, target = Console(width=160), Target.parse("native").with_cores(1)
    results: dict[str, Any] = {}
    for structure, (shapes, kept) in RACES.items():
        if only not in structure:
            continue
        heats = []
        for shape in shapes:
            with console.status(f"{structure}: {shape}"):
                heats.append(race(Case(shape, structure, kept), target, rounds))
        console.print(heat_table(f"{structure}, {1 - kept:.1%} zeros, one thread, {this_machine()}", heats))
        results[structure] = [heat.to_json() for heat in heats]
    path = keep(results, RESULTS, output)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
