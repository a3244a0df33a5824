"""Store weights in a way that the compiler has not seen, and use it everywhere.

    python tutorials/04_a_new_layout.py

A mel filter bank turns the spectrum of a sound into bands as wide as an ear's: each filter is a triangle over a few
neighbouring frequencies. As a matrix it is nearly empty, and each row has one run of weights. CSR stores an index for
every weight; one for every row would do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from rich.console import Console

import sparsec
from sparsec.errors import LayoutError
from sparsec.ir.layout import Layout
from sparsec.ir.levels import LEVELS, Axis, Cursor, Entries, Level, Load, Loop, Stored, Visit
from sparsec.ir.named import CSR, DENSE, NAMED
from sparsec.ir.notation import parse_layout
from sparsec.report import bytes_text, options_tables
from sparsec.schedules.rules.cuts import Panel
from sparsec.schedules.rules.families import FAMILIES, Family
from sparsec.schedules.rules.fits import BLOCKS, of_entries
from sparsec.schedules.rules.prices import Nest
from sparsec.schedules.rules.weight import Weight

FILTERS, FREQUENCIES, FRAMES = 64, 256, 100


def mel_filters() -> np.ndarray:
    """Triangles that overlap by half, the wider the higher their frequencies, float32 [FILTERS, FREQUENCIES]."""
    highest = 2595 * np.log10(1 + 8000 / 700)
    peaks = 700 * (10 ** (np.linspace(0, highest, FILTERS + 2) / 2595) - 1) * FREQUENCIES / 8000
    low, peak, high = (peaks[start : FILTERS + start, None] for start in range(3))
    place = np.arange(FREQUENCIES)
    return np.maximum(0, np.minimum((place - low) / (peak - low), (high - place) / (high - peak))).astype(np.float32)


bank = mel_filters()
spectrum = np.random.default_rng(0).random((FREQUENCIES, FRAMES), np.float32)


def show(name: str, layout: Layout) -> None:
    """Store the filters, and compute with what was stored."""
    packed = layout.pack(bank)
    nbytes = sum(array.nbytes for array in packed.arrays.values())
    assert np.array_equal(packed.unpack(), bank) and nbytes == layout.nbytes(bank, np.float32)
    multiply = sparsec.op("matmul", bank, FRAMES, layout=layout)
    error = np.abs(multiply(spectrum) - bank @ spectrum).max()
    assert error < 1e-5
    print(f"{name:34} {bytes_text(nbytes):>8}, off by {error:.0e}   {layout}")


print(f"{FILTERS} filters of {FREQUENCIES} frequencies, {np.mean(bank == 0):.0%} zeros")
show("dense", DENSE)
show("CSR", CSR)

# -- A layout in one line ----------------------------------------------------------------------------------------------
# A layout is a map from coordinates to levels, and levels combine freely. Here frequencies are stored by fours, and a
# bitmap says which fours a filter has: one word of 64 bits for each filter.

fours = parse_layout("(i, k) -> (i : dense, k floordiv 4 : bitmap, k mod 4 : dense)")
show("a bitmap of four frequencies", fours)

# -- A level of its own ------------------------------------------------------------------------------------------------
# No level says "a run of coordinates, from anywhere on". A level answers: what can its arrays hold at most, which
# entries fit, how are they stored, and which loops find them again. The last answer is a generator that only adds and
# loads, so it is run three ways: by the compiler to write loops, by the interpreter, and by `unpack` on whole arrays.


@dataclass(frozen=True)
class Run(Level):
    """Each fiber is one run of coordinates: `first[p + 1] - first[p]` of them from `start[p]` on."""

    name: ClassVar[str] = "run"
    limit: ClassVar[str] = "holds one run of coordinates in each fiber"

    def arrays(self, axis: Axis) -> dict[str, int]:
        return {"start": axis.size - 1, "first": axis.positions}

    def holds(self, axis: Axis, entries: Entries) -> np.ndarray:
        return entries.coordinate == self.starts(entries)[entries.parent] + entries.nth

    def pack(self, axis: Axis, entries: Entries) -> Stored:
        first = np.concatenate(([0], np.cumsum(entries.per_parent)))
        return Stored(entries.fiber, int(first[-1]), {"start": self.starts(entries), "first": first})

    def visit(self, axis: Axis, parent: Cursor, load: Load) -> Visit:
        first = load("first", parent.position)
        nth = yield Loop("sparse", load("first", parent.position + 1) - first)
        return Cursor(first + nth, load("start", parent.position) + nth)

    def starts(self, entries: Entries) -> np.ndarray:
        start = np.zeros(entries.parents, np.int64)
        begins = entries.opens & (entries.nth == 0)
        start[entries.parent[begins]] = entries.coordinate[begins]
        return start


LEVELS["run"] = Run

# -- A name ------------------------------------------------------------------------------------------------------------
# The level is a word of the notation now, and combines with all the others.


def runs(rows: int = 1) -> Layout:
    """Return a run of columns for each row, or for each block of rows."""
    block = f"i floordiv {rows} : dense, k : run, i mod {rows} : dense"
    return parse_layout(f"(i, k) -> ({block if rows > 1 else 'i : dense, k : run'})")


NAMED["runs"] = runs

# -- A price -----------------------------------------------------------------------------------------------------------
# So that the compiler finds it by itself, a family says which members hold a weight, and how often their loops run. An
# iteration takes what one takes inside a block: it reads the next weight, and the next row of the other operand.


def nests(weight: Weight, panel: Panel) -> Iterator[Nest]:
    for rows in (1, 2, 4):
        if panel.holds(rows) and weight.rows % rows == 0 and weight.refusal(runs(rows)) is None:
            opens, inner = weight.rows // rows, of_entries(panel.target, **BLOCKS)
            yield Nest("runs", partial(runs, rows), rows, weight.blocks(rows), opens, weight.depth, inner, opens)


FAMILIES.append(Family("runs", nests, lambda weight, product: weight.refusal(runs())))

# -- It works everywhere -----------------------------------------------------------------------------------------------

show("a run for each filter", runs())
show("a run for each two filters", runs(2))

try:
    sparsec.op("matmul", np.eye(4, 8) + np.eye(4, 8, 5), FRAMES, layout="runs")
except LayoutError as error:
    print(f"\nrefused: {error}\n")

# A convolution of which each output channel sees a window of the channels, in a model, where the layer takes the layout
# by its name. Its weights are a matrix too, of channels and taps: three channels of 3×3 are 27 columns.

kernels = np.zeros((16, 16, 3, 3), np.float32)
for channel in range(16):
    kernels[channel, min(channel, 13) : min(channel, 13) + 3] = np.random.default_rng(channel).random((3, 3, 3))
node = helper.make_node("Conv", ["x", "w"], ["y"], "sliding", pads=[1, 1, 1, 1])
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 20, 20]) for name in "xy")
graph = helper.make_graph([node], "sliding", [x], [y], [numpy_helper.from_array(kernels, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = sparsec.compile(model, layouts={"sliding": "runs"}).load()
image = np.random.default_rng(0).random((1, 16, 20, 20), np.float32)
(wanted,) = ReferenceEvaluator(model).run(None, {"x": image})
assert np.allclose(session(image), wanted, rtol=1e-4, atol=1e-4)
print(f"the convolution is stored as {session.manifest['layers'][0]['layout']}\n")

# What the compiler thinks of every layout for the layer, the new one among them.

report = sparsec.inspect(model, options=True)
Console(width=140).print(options_tables([layer.as_dict() for layer in report.layers]))
