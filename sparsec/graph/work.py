"""Useful work: the multiply-adds of products on what pruning left of their weights, and what carries them out.

Padding, zeros that a layout stores and elements that tiles compute twice are no useful work, nor is the arithmetic of
what is no product, such as softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.graph.graph import Node, Value
from sparsec.graph.shape import Dim, product
from sparsec.ir.bit_planes import unpack_words
from sparsec.ir.instruction import INSTRUCTIONS
from sparsec.ir.kernel import Assign, Kernel, Stmt, Tile
from sparsec.ir.types import arithmetic
from sparsec.schedules.rules.prices import extent
from sparsec.targets import Target


@dataclass(frozen=True)
class Work:
    """What one product does.

    Parameters
    ----------
    entries : of its weight that are kept; all elements of an activation
    columns : that meet each entry, in one matrix, sequence or image
    batch : of matrices, sequences or images
    """

    entries: Dim
    columns: Dim
    batch: Dim = 1

    @property
    def flops(self) -> Dim:
        """Operations, a multiply-add being two."""
        return product((2, self.entries, self.columns, self.batch))

    @property
    def assumed_flops(self) -> int:
        """Operations for the sizes that predictions assume where a dimension is symbolic."""
        batch = self.batch if isinstance(self.batch, int) else 1
        return 2 * extent(self.entries) * extent(self.columns) * batch  # type: ignore[arg-type]


def find_work(node: Node) -> Work | None:
    """Return the useful work of a node of a physical graph, or None if it is no product."""
    return WORK[node.op](node) if node.op in WORK else None


def useful_flops(works: Sequence[Work]) -> Dim:
    """Return the useful operations of products that one kernel computes; 0 where there are none."""
    total: Dim = 0
    for work in works:
        total = total + work.flops
    return total


def count_entries(weight: Value) -> Dim:
    """Return how many elements of a weight are kept; all of an activation."""
    return product(weight.shape) if weight.data is None else int(np.count_nonzero(weight.data))


def _linear(node: Node) -> Work:
    *batch, _, columns = node.output.shape
    return Work(count_entries(node.inputs[1]), node.attrs.get("columns", columns), product(batch))


def _matmul(node: Node) -> Work:
    *batch, rows, columns = node.output.shape
    depth = node.inputs[1].shape[-2]
    return Work(product((rows, depth)), node.attrs.get("columns", columns), product(batch))


def _convolution(node: Node) -> Work:
    """Of padded images, whose pixels are fewer than what is computed."""
    image = node.attrs["image"]
    return Work(count_entries(node.inputs[1]), image.height * image.width, node.output.shape[0])


def _dense_convolution(node: Node) -> Work:
    """Of any number of dimensions, by loops that know no zeros."""
    return Work(count_entries(node.inputs[1]), product(node.output.shape[2:]), node.output.shape[0])


def _transposed_convolution(node: Node) -> Work:
    """Of any number of dimensions: each pixel of the input meets each entry."""
    x, weight = node.inputs[:2]
    return Work(count_entries(weight), product(x.shape[2:]), x.shape[0])


def _sddmm(node: Node) -> Work:
    a, _, mask = node.inputs
    depth = a.shape[-2 if node.attrs["a_transposed"] else -1]
    return Work(count_entries(mask), depth, product(node.output.shape[:-1]))


def _masked_product(node: Node) -> Work:
    *batch, _, columns = node.output.shape
    return Work(count_entries(node.inputs[3]), columns, product(batch))


def _low_bit(node: Node) -> Work:
    batch, _, columns = node.output.shape
    words, attrs = node.inputs[1].data, node.attrs
    assert words is not None
    matrix = unpack_words(words, attrs["weight_encoding"], attrs["depth"])
    return Work(int(np.count_nonzero(matrix)), columns, batch)


WORK: dict[str, Callable[[Node], Work]] = {
    "batch_matmul": _matmul,
    "conv_padded": _convolution,
    "linear_cols": _linear,
    "low_bit_product": _low_bit,
    "masked_product": _masked_product,
    "matmul": _matmul,
    "nn.conv3d": _dense_convolution,
    "nn.conv1d_transpose": _transposed_convolution,
    "nn.conv2d_transpose": _transposed_convolution,
    "nn.conv3d_transpose": _transposed_convolution,
    "sddmm": _sddmm,
}
"""How to count the work of each operator that is a product, by its name."""


# -- what carries it out -------------------------------------------------------------------------------------------


def main_instruction(kernel: Kernel, target: Target) -> str:
    """Return the name of the instruction that adds up a product's sums, the widest; "" where plain loops do.

    Sums of floats are of the vector multiply-add, whatever their kernel names.
    """
    if target.emulated_on:
        return ""
    dtypes = {name: buffer.dtype for name, buffer in kernel.buffers.items()}
    updates = set(_updates(kernel.body, dtypes, ""))
    declared = [INSTRUCTIONS[name] for name, _ in updates if name in INSTRUCTIONS and not INSTRUCTIONS[name].writer]
    if declared:
        return max(declared, key=lambda one: (one.bits, one.name)).name
    types = {arithmetic(dtype) for _, dtype in updates}
    return multiply_add(types.pop(), target) if len(types) == 1 else ""


def multiply_add(dtype: str, target: Target) -> str:
    """Return the name of the widest multiply-add of floats; "" for what is not computed in them, or emulated."""
    fits = arithmetic(dtype) == "float32" and not target.emulated_on
    return f"fma.{target.lanes('float32')}" if fits else ""


def _updates(body: Sequence[Stmt], dtypes: dict[str, str], instruction: str) -> Iterator[tuple[str, str]]:
    """Yield the instruction and the type of the sum of each assignment that accumulates."""
    for statement in body:
        if isinstance(statement, Assign):
            if statement.accumulate:
                yield instruction, dtypes[statement.target.buffer]
            continue
        inside = dtypes | {statement.name: statement.dtype} if isinstance(statement, Tile) else dtypes
        yield from _updates(statement.body, inside, getattr(statement, "instruction", "") or instruction)
