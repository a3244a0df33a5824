"""Layers with a structure of zeros: the grid on which the choice of layouts is held against measurement."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.layouts_masks import STRUCTURES
from sparsec.frontends import load_model
from sparsec.graph.canonicalize import canonicalize
from sparsec.graph.from_relax import from_relax
from sparsec.graph.fuse import fuse
from sparsec.graph.plan_images import plan_images
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.ir.product import Product
from sparsec.targets import Target


@dataclass(frozen=True)
class Shape:
    """A layer: outputs and inputs, the side of its square kernel, and tokens, or pixels of a side, that it is put on.

    A linear layer has the kernel 0.
    """

    outputs: int
    inputs: int
    extent: int
    kernel: int = 0

    def __str__(self) -> str:
        what = f"conv {self.kernel}×{self.kernel}" if self.kernel else "linear"
        return f"{what} {self.outputs}×{self.inputs}, {self.extent}{'²' if self.kernel else ''}"

    @property
    def multiply_adds(self) -> int:
        """Of one call, with a dense weight."""
        return int(np.prod(self.weight)) * self.extent ** (2 if self.kernel else 1)

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of its weight in a model, outputs first."""
        return (self.outputs, self.inputs, *((self.kernel, self.kernel) if self.kernel else ()))


@dataclass(frozen=True)
class Case:
    """A layer whose weight has zeros; the seed decides which."""

    shape: Shape
    structure: str
    kept: float
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.shape}, {self.structure} {1 - self.kept:.0%}"

    def weight(self) -> np.ndarray:
        """The weight, float32, outputs first."""
        rng = np.random.default_rng(self.seed)
        shape = self.shape.weight
        rows, depth = shape[0], int(np.prod(shape[1:]))
        values = rng.standard_normal((rows, depth), np.float32)
        if self.kept < 1:
            values *= STRUCTURES[self.structure][0](rng, rows, depth, self.kept)
        return values.reshape(shape)

    def product(self, target: Target) -> tuple[Product, np.ndarray]:
        """The layer as the compiler for a target sees it, alone in a network, and its weight as [rows, depth]."""
        graph = from_relax(load_model(layer_model(self.weight(), self.shape.extent)))
        for pass_ in (canonicalize, plan_images, plan_layouts):
            pass_(graph)
        (group,) = [group for group in fuse(graph, target) if group.anchor]
        assert group.anchor is not None and group.anchor.matrix is not None
        return group.product, group.anchor.matrix()


def layer_model(weight: np.ndarray, extent: int) -> onnx.ModelProto:
    """A network of one layer: linear on `extent` tokens, or a convolution on an image with sides of `extent` pixels."""
    outputs, inputs, *kernel = weight.shape
    if kernel:
        pads = [kernel[0] // 2] * 4
        node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=kernel, pads=pads)
        shapes, value = ([1, inputs, extent, extent], [1, outputs, extent, extent]), weight
    else:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        shapes, value = ([extent, inputs], [extent, outputs]), np.ascontiguousarray(weight.T)
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in zip("xy", shapes, strict=True)
    )
    graph = helper.make_graph([node], "layer", [x], [y], [numpy_helper.from_array(value, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


LINEAR = (Shape(768, 768, 128), Shape(3072, 768, 128), Shape(768, 3072, 128), Shape(384, 384, 197))
POINTWISE = (Shape(64, 256, 56, 1), Shape(1024, 256, 14, 1))
SPATIAL = (Shape(64, 64, 56, 3), Shape(256, 256, 14, 3), Shape(512, 512, 7, 3))


def fits(shape: Shape, structure: str) -> bool:
    """Whether such zeros can be put into such a layer: patterns are those of 3 × 3 kernels."""
    return structure != "patterns" or shape.kernel == 3


def grid() -> Iterator[Case]:
    """The fixed grid: dense layers of every shape, and every structure on layers of every kind."""
    for shape in (*LINEAR, *POINTWISE, *SPATIAL):
        yield Case(shape, "dense", 1.0)
    for number, (structure, (_, shares)) in enumerate(STRUCTURES.items()):
        for step, kept in enumerate(shares):
            turn = number + step
            for shapes in (LINEAR, LINEAR[::-1], POINTWISE, SPATIAL, SPATIAL[::-1]):
                shape = shapes[turn % len(shapes)]
                if fits(shape, structure):
                    yield Case(shape, structure, kept)


def held_out(count: int, seed: int) -> Iterator[Case]:
    """Layers of random shapes and zeros, which no constant was fitted to."""
    rng = np.random.default_rng(seed)
    while count:
        kernel = int(rng.choice([0, 0, 1, 3]))
        outputs, inputs = (int(n) * 16 for n in rng.integers(4, 97 if kernel == 0 else 33, 2))
        extent = int(rng.choice([49, 64, 100, 128, 197, 256, 384] if kernel == 0 else [7, 14, 20, 28, 40, 56]))
        structure = str(rng.choice(list(STRUCTURES)))
        kept = float(rng.choice(STRUCTURES[structure][1]))
        shape = Shape(outputs, inputs, extent, kernel)
        if fits(shape, structure) and shape.multiply_adds < 1e9:
            count -= 1
            yield Case(shape, structure, kept, seed=count)
