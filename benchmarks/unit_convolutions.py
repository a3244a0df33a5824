"""Race single convolutions in int8, on one thread, beside ONNX Runtime, OpenVINO and the most that a core can do.

The layers are those that UNIT was measured on (Weng et al., CGO 2021, table 1). Each model holds the layer eight times,
with other weights on one image, so that what a call costs beside its kernels is shared out. Bytes go in and come out,
with channels last for the engines that keep them last, so that they have nothing to turn around. What sparsec takes to
move images into its own form and back is part of its time, and left out where its kernels are named alone. Engines take
turns, and medians of the ratios within a round count.

    python -m benchmarks.unit_convolutions
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import sparsec
from benchmarks.keep import keep
from sparsec.bench import worker
from sparsec.bench.machine import this_machine
from sparsec.bench.peak import find_peak
from sparsec.bench.table import display_name
from sparsec.errors import SparsecError
from sparsec.report.units import seconds_text

RESULTS = Path(__file__).parent / "results" / "convolutions"
PEERS = ("onnxruntime", "openvino")
COPIES = 8
TURN = 0.05  # seconds of one engine in one round
FASTEST = (
    "x86.vpdpbusd.512",
    "x86.vpdpbusd.256",
    "x86.vpmaddwd.512",
    "x86.vpmaddwd.256",
    "arm.smmla.128",
    "arm.sdot.128",
)
"""Instructions that add up products of bytes; the first one that the machine has is its peak."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of uint8 images with int8 weights, to which ReLU and a quantisation to uint8 belong.

    Parameters
    ----------
    inputs, outputs : channels
    size : pixels of a side of the image; borders are part of it, and nothing is added to them
    kernel, stride : of the square filter
    """

    inputs: int
    size: int
    outputs: int
    kernel: int
    stride: int

    def __str__(self) -> str:
        filters = f"{self.inputs} → {self.outputs}, {self.kernel}×{self.kernel}"
        return f"{filters}{f' / {self.stride}' if self.stride > 1 else ''}, {self.size}²"

    @property
    def extent(self) -> int:
        """Pixels of a side of the result."""
        return (self.size - self.kernel) // self.stride + 1

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.inputs * self.outputs * self.kernel**2 * self.extent**2

    def image(self) -> NDArray[np.uint8]:
        """What the layers are run on, [1, inputs, size, size]."""
        return np.random.default_rng(1).integers(0, 256, (1, self.inputs, self.size, self.size)).astype(np.uint8)

    def model(self, channels_last: bool) -> onnx.ModelProto:
        """`COPIES` such layers on one image, as a QDQ graph."""
        rng = np.random.default_rng(0)
        depth = self.inputs * self.kernel**2
        nodes, arrays = [], {"x_scale": np.float32(0.02), "x_zero": np.uint8(0), "y_zero": np.uint8(0)}
        # ReLU leaves half of a sum that is spread around zero; three standard deviations of it fit a byte.
        arrays["y_scale"] = np.float32(3 * 0.02 * 0.01 * 73 * 147 * depth**0.5 / 255)
        image, result = "x", "{}"
        if channels_last:
            nodes.append(helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]))
            image, result = "planes", "{} planes"
        nodes.append(helper.make_node("DequantizeLinear", [image, "x_scale", "x_zero"], ["x float"]))
        for y in self.results:
            weight = rng.integers(-127, 128, (self.outputs, self.inputs, self.kernel, self.kernel))
            scales = rng.uniform(0.008, 0.012, self.outputs).astype(np.float32)
            bias = rng.integers(-1000, 1001, self.outputs)
            for name, values, scale in (
                ("weight", weight.astype(np.int8), scales),
                ("bias", bias.astype(np.int32), scales * arrays["x_scale"]),
            ):
                names = [f"{y} {name}", f"{y} {name} scale", f"{y} {name} zero"]
                arrays |= dict(zip(names, (values, scale, np.zeros(self.outputs, values.dtype)), strict=True))
                nodes.append(helper.make_node("DequantizeLinear", names, [f"{y} {name} float"], axis=0))
            operands = ["x float", f"{y} weight float", f"{y} bias float"]
            strides = [self.stride] * 2
            nodes.append(helper.make_node("Conv", operands, [f"{y} sum"], strides=strides))
            nodes.append(helper.make_node("Relu", [f"{y} sum"], [f"{y} float"]))
            quantize = [f"{y} float", "y_scale", "y_zero"]
            nodes.append(helper.make_node("QuantizeLinear", quantize, [result.format(y)]))
            if channels_last:
                nodes.append(helper.make_node("Transpose", [result.format(y)], [y], perm=[0, 2, 3, 1]))
        initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
        outputs = [_image(y, self.outputs, self.extent, channels_last) for y in self.results]
        graph = helper.make_graph(
            nodes, "convolution", [_image("x", self.inputs, self.size, channels_last)], outputs, initializers
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    @property
    def results(self) -> list[str]:
        """Names of the outputs of the model."""
        return [f"y{index}" for index in range(COPIES)]


def _image(name: str, channels: int, size: int, channels_last: bool) -> onnx.ValueInfoProto:
    shape = [1, size, size, channels] if channels_last else [1, channels, size, size]
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)


CONVOLUTIONS = (
    Convolution(288, 35, 384, 3, 2),
    Convolution(160, 9, 224, 3, 1),
    Convolution(1056, 7, 192, 1, 1),
    Convolution(80, 73, 192, 3, 1),
    Convolution(128, 16, 128, 3, 1),
    Convolution(192, 16, 192, 3, 1),
    Convolution(256, 16, 256, 3, 1),
    Convolution(1024, 14, 512, 1, 1),
    Convolution(128, 16, 160, 3, 1),
    Convolution(576, 14, 192, 1, 1),
    Convolution(96, 16, 128, 3, 1),
    Convolution(1024, 14, 256, 1, 1),
    Convolution(576, 14, 128, 1, 1),
    Convolution(64, 29, 96, 3, 1),
    Convolution(64, 56, 128, 1, 2),
    Convolution(608, 14, 192, 1, 1),
)


@dataclass(frozen=True)
class Heat:
    """One layer's race.

    Parameters
    ----------
    times : seconds of the layer in each round by engine; ``sparsec kernels`` is what its convolutions take of that
    peak : operations a second of a loop of nothing but products of bytes, in each round
    """

    layer: Convolution
    times: dict[str, list[float]]
    peak: list[float]

    def seconds(self, engine: str) -> float:
        """The median time of an engine."""
        return median(self.times[engine])

    @property
    def peer(self) -> str:
        """The fastest engine of others."""
        return min((engine for engine in self.times if engine in PEERS), key=self.seconds)

    def share_of_peak(self, engine: str) -> float:
        """How much of what the core can do an engine gets done, from the ratios within each round."""
        rounds = zip(self.times[engine], self.peak, strict=True)
        return median(self.layer.operations / seconds / peak for seconds, peak in rounds)

    def speedup(self) -> float:
        """How many times faster sparsec is than the fastest peer, from the ratios within each round."""
        return median(p / s for p, s in zip(self.times[self.peer], self.times["sparsec"], strict=True))

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        shares = {engine: self.share_of_peak(engine) for engine in self.times}
        return {**asdict(self), "share_of_peak": shares, "speedup": self.speedup()}


def race(layer: Convolution, folder: Path, rounds: int, peak: Callable[[], float]) -> Heat:
    """Race one layer, sparsec's answer held against ONNX Runtime's."""
    files = {"sparsec": folder / "layer.so"} | dict.fromkeys(PEERS, folder / "last.onnx")
    onnx.save(layer.model(channels_last=True), folder / "last.onnx")
    onnx.save(layer.model(channels_last=False), folder / "first.onnx")
    sparsec.compile(folder / "first.onnx", threads=1).save(files["sparsec"])
    image = layer.image()
    last = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    given = {name: {"x": image if name == "sparsec" else last} for name in files}  # held while engines use it
    engines = {name: worker.ENGINES[name](str(path), 1, given[name]) for name, path in files.items()}
    iterations = {}
    for name, (run, _) in engines.items():
        iterations[name] = ceil(TURN / min(worker.measure(run, 3)))
    for ours, theirs in zip(engines["sparsec"][1](), engines["onnxruntime"][1](), strict=True):
        _check(layer, ours, theirs.transpose(0, 3, 1, 2))
    session = sparsec.load(files["sparsec"], threads=1)
    times: dict[str, list[float]] = {name: [] for name in (*engines, "sparsec kernels")}
    rates: list[float] = []
    for _ in range(rounds):
        for name, (run, _) in engines.items():
            times[name].append(median(worker.measure(run, iterations[name])) / COPIES)
        steps = session.profile(image, runs=iterations["sparsec"])
        times["sparsec kernels"].append(sum(s.seconds for s in steps if not s.kernel.startswith("repack")) / COPIES)
        rates.append(peak())
    return Heat(layer, times, rates)


def _check(layer: Convolution, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
    """Sums are exact; what lies half-way between two bytes may be rounded to either."""
    off = np.abs(ours.astype(int) - theirs)
    if off.max() > 1 or off.mean() > 1e-3:
        raise SparsecError(
            f"the convolution {layer} differs from ONNX Runtime's by up to {off.max()} in {np.mean(off > 0):.1%} of"
            " its results, which is a bug; please report it"
        )


def heat_table(heats: list[Heat]) -> Table:
    """One row for each layer, and geometric means under them."""
    engines = list(heats[0].times)
    table = Table(title=f"convolutions in int8, one thread, {this_machine()}", title_justify="left", show_footer=True)
    table.add_column("layer", "geometric mean")
    for engine in engines:
        table.add_column(display_name(engine), justify="right", no_wrap=True)
        mean = geometric_mean(heat.share_of_peak(engine) for heat in heats)
        table.add_column("of peak", f"{mean:.0%}", justify="right")
    mean = geometric_mean(heat.speedup() for heat in heats)
    table.add_column("over the best peer", f"{mean:.2f}×", justify="right", no_wrap=True)
    for heat in heats:
        cells = []
        for engine in engines:
            cells += [seconds_text(heat.seconds(engine)), f"{heat.share_of_peak(engine):.0%}"]
        table.add_row(str(heat.layer), *cells, f"{heat.speedup():.2f}× {display_name(heat.peer)}")
    return table


def peak_of_bytes() -> Callable[[], float]:
    """What measures the rate at which a core can multiply bytes.

    Raises
    ------
    ClickException : where no instruction adds up products of bytes
    """
    peak = next(filter(None, map(find_peak, FASTEST)), None)
    if peak is None:
        raise click.ClickException("this machine has no instruction that adds up products of bytes, which is the peak")
    return peak


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/convolutions/<machine>.json.")
def main(rounds: int, output: Path | None) -> None:
    """Race convolutions in int8 against ONNX Runtime, OpenVINO and the core's peak."""
    console, heats = Console(width=160), []
    peak = peak_of_bytes()
    try:
        for layer in CONVOLUTIONS:
            with console.status(str(layer)), tempfile.TemporaryDirectory(prefix="sparsec-convolution-") as folder:
                heats.append(race(layer, Path(folder), rounds, peak))
    except SparsecError as error:
        raise click.ClickException(str(error)) from error
    console.print(heat_table(heats))
    path = keep({"layers": [heat.to_json() for heat in heats]}, RESULTS, output)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
