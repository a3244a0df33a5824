"""The convolutions that UNIT was measured on: one description, and the products of each processor in its inner loop.

Weng et al., "UNIT: Unifying Tensorized Instruction Compilation", CGO 2021, table 1.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from sparsec.ir.kernel import Buffer
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, Product
from sparsec.schedules.rules.product import propose
from sparsec.schedules.trace import Scheduled
from sparsec.targets import Target
from tests.ir.product_cases import Compiled
from tests.schedules.assembly import assembly, hottest


@dataclass(frozen=True)
class Convolution:
    """Channels and pixels of a side of the image, output channels, size and stride of the square filter."""

    inputs: int
    size: int
    outputs: int
    kernel: int
    stride: int

    def product(self, element: str, weight: str, sums: str) -> Product:
        """Describe it over images whose phases, as many as the square of the stride, lie one after the other."""
        pitch = -(-self.size // self.stride)
        plane, side, taps = pitch * pitch, (self.size - self.kernel) // self.stride + 1, self.kernel**2
        channel, tap = DEPTH // taps, DEPTH % taps
        row, column = tap // self.kernel, tap % self.kernel
        phase = row % self.stride * self.stride + column % self.stride
        place = channel * plane + row // self.stride * pitch + column // self.stride
        columns = side * pitch
        return Product(
            "conv2d",
            Buffer("W", weight, (self.outputs, self.inputs * taps)),
            Buffer("X", element, (1, self.stride**2 * self.inputs * plane + 4096)),
            Buffer("Y", sums, (1, self.outputs * columns)),
            (BATCH, phase * (self.inputs * plane) + place + COLUMN),
            (BATCH, ROW * columns + COLUMN),
            1,
            self.outputs,
            self.inputs * taps,
            columns,
            taps=taps,
            span=(self.kernel - 1) * (pitch + 1),
            rounded=sums == "float32",
        )


CONVOLUTIONS = [
    Convolution(*row)
    for row in (
        (288, 35, 384, 3, 2), (160, 9, 224, 3, 1), (1056, 7, 192, 1, 1), (80, 73, 192, 3, 1), (128, 16, 128, 3, 1),
        (192, 16, 192, 3, 1), (256, 16, 256, 3, 1), (1024, 14, 512, 1, 1), (128, 16, 160, 3, 1), (576, 14, 192, 1, 1),
        (96, 16, 128, 3, 1), (1024, 14, 256, 1, 1), (576, 14, 128, 1, 1), (64, 29, 96, 3, 1), (64, 56, 128, 1, 2),
        (608, 14, 192, 1, 1),
    )
]  # fmt: skip

INSTRUCTIONS = {  # element types of X, W and the sums; the instruction
    "znver5": ("uint8", "int8", "int32", "x86.vpdpbusd.512"),
    "sapphirerapids": ("bfloat16", "bfloat16", "float32", "x86.vdpbf16ps.512"),
    "neoverse-n1": ("int8", "int8", "int32", "arm.sdot.128"),
    "armv8.6": ("int8", "int8", "int32", "arm.smmla.128"),
    "emulate:sm_80": ("int8", "int8", "int32", "cuda.mma_s8.m16n8k32"),
    "emulate:sm_90": ("float16", "float16", "float32", "cuda.mma_f16.m16n8k16"),
}


def scheduled(convolution: Convolution, name: str) -> Scheduled:
    element, weight, sums, _ = INSTRUCTIONS[name]
    target = Target.parse(name)
    product = convolution.product(element, weight, sums)
    proposal = propose(product, np.ones(product.weight.shape, weight), target)
    return proposal.trace.apply(proposal.product, target.emits)


@pytest.mark.parametrize("name", INSTRUCTIONS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=str)
def test_the_instruction_of_the_processor_is_found(convolution, name):
    instruction = INSTRUCTIONS[name][-1]
    found = scheduled(convolution, name)
    assert f" as {instruction}:" in str(found.kernel)
    if name.startswith("emulate:"):
        return
    mnemonic = instruction.split(".")[1]
    loop = hottest(assembly(found.func, Target.parse(name)), mnemonic)
    products = [line for line in loop.split("\n") if line.startswith(f"\t{mnemonic}")]
    assert len(products) >= 4


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=str)
def test_integers_are_exact(convolution):
    """On this machine, with whatever it has."""
    random, target = np.random.default_rng(0), Target.parse("native")
    channels, size, kernel, stride = convolution.inputs, convolution.size, convolution.kernel, convolution.stride
    product = convolution.product("uint8", "int8", "int32")
    image = random.integers(0, 256, (channels, size, size), np.uint8)
    weight = random.integers(-128, 128, (convolution.outputs, channels, kernel, kernel), np.int8)
    pitch = -(-size // stride)
    phases = np.zeros((stride, stride, channels, pitch, pitch), np.uint8)
    for p, q in np.ndindex(stride, stride):
        part = image[:, p::stride, q::stride]
        phases[p, q, :, : part.shape[1], : part.shape[2]] = part
    x = np.zeros(product.x.shape, np.uint8)
    x[0, : phases.size] = phases.ravel()

    matrix = weight.reshape(convolution.outputs, -1)
    proposal = propose(product, matrix, target)
    found = proposal.trace.apply(proposal.product, target.emits)
    shape = 1, int(product.y.shape[1])
    y = Compiled(found.lowered, found.func, target)({"W": matrix, "X": x}, {"Y": shape})["Y"]

    windows = np.lib.stride_tricks.sliding_window_view(image, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    wanted = np.einsum("ocrs,cyxrs->oyx", weight.astype(float), windows.astype(float), optimize=True)
    side = wanted.shape[1]
    np.testing.assert_array_equal(y.reshape(convolution.outputs, side, pitch)[:, :, :side], wanted)
