"""The kernels of a model, each form once: layers that differ only in the values of their weights share one."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import IRModule

from sparsec.codegen.lower import TVM_ERRORS
from sparsec.errors import UnsupportedError, last_line
from sparsec.graph.attention import find_attention
from sparsec.graph.choose import Chooser
from sparsec.graph.evaluate import ELEMENTWISE
from sparsec.graph.fuse import Group
from sparsec.graph.graph import Value
from sparsec.graph.layer import Layer, describe_layer
from sparsec.graph.lower_generic import lower_group
from sparsec.graph.patterned import Patterned, find_patterned
from sparsec.graph.shape import Shape
from sparsec.graph.to_relax import to_relax
from sparsec.graph.widen import Body, widen
from sparsec.graph.work import main_instruction, multiply_add
from sparsec.ir.fragments import CODE
from sparsec.ir.image import PlainImage
from sparsec.ir.max_pool import build_max_pool
from sparsec.ir.product import Product
from sparsec.ir.repack import build_repack
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.rules.generic import schedule
from sparsec.schedules.rules.images import schedule_images
from sparsec.schedules.rules.product import Proposal
from sparsec.schedules.trace import Scheduled, Trace

VECTOR_BYTES = 256
"""A row of this many bytes is whole vectors for every target, so no element of it is computed twice."""


@dataclass(frozen=True, eq=False)
class Argument:
    """What a kernel gets for one parameter: a value of the graph or a packed array, and the shape it has there.

    `is_code` says whether the array is machine code.
    """

    source: Value | np.ndarray
    shape: Shape
    is_code: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """A kernel's name and its arguments in parameter order.

    Parameters
    ----------
    instruction : what adds up products, if the kernel does
    layer : tells of a constant weight
    in_place : whether each element of the result is written once, after what is at its place in operands is read
    """

    kernel: str
    args: tuple[Argument, ...]
    instruction: str = ""
    layer: Layer | None = None
    in_place: bool = False


class Kernels:
    """Makes the calls of groups, and keeps the functions that they call.

    Parameters
    ----------
    choose : how the layout and the tiles of a product are chosen, and for which processor
    dump : a folder that gets every kernel, its trace and its scheduled form as text
    """

    def __init__(self, choose: Chooser, dump: Path | None = None) -> None:
        self.choose, self.target = choose, choose.target
        self.dump = dump
        self.functions: dict[str, tirx.PrimFunc] = {}
        self._products: dict[tuple[Product, Trace], tuple[str, Scheduled]] = {}
        self._scheduled: dict[Any, tuple[str, Scheduled]] = {}
        self._generic: dict[str, str] = {}

    @property
    def module(self) -> IRModule:
        return IRModule(self.functions)

    def call(self, group: Group) -> Call:
        """Return the call that computes a group, its weight packed."""
        if group.scores:
            return self._patterned(group, find_attention(group))
        if group.anchor:
            return self._product(group)
        if patterned := find_patterned(group.nodes[0]):
            return self._patterned(group, patterned)
        return self._images(group) if group.nodes[0].op in ("max_pool", "repack") else self._chain(group)

    def _product(self, group: Group) -> Call:
        anchor = group.anchor
        assert anchor is not None
        product = group.product
        matrix = anchor.matrix() if anchor.matrix else None
        proposal = self.choose(group, matrix)
        name, scheduled = self._schedule(proposal)
        values = {product.weight.name: anchor.weight, product.x.name: anchor.x, product.y.name: group.outputs[0]}
        values |= {operand.buffer.name: operand.value for operand in group.operands}
        shapes = anchor.shapes | {operand.buffer.name: operand.shape for operand in group.operands}
        parts = {} if matrix is None else proposal.product.parts(matrix)
        packed = {name: scheduled.pack(name, part) for name, part in parts.items()}
        args = []
        for buffer, array in scheduled.lowered.parameters:
            if array:
                data = packed[buffer][array]
                args.append(Argument(data, data.shape, array == CODE))
            elif buffer in anchor.constants:
                args.append(Argument(anchor.constants[buffer], anchor.constants[buffer].shape))
            else:
                own = scheduled.kernel.buffers[buffer].shape
                args.append(Argument(values[buffer], shapes.get(buffer, own)))  # type: ignore[arg-type]
        stored = sum(array.nbytes for arrays in packed.values() for array in arrays.values())
        layer = None
        if matrix is not None and anchor.is_layer:
            layer = describe_layer(group, matrix, proposal, self.target, stored=stored)
        in_place = not (proposal.trace.overlaps or scheduled.kernel.reads(product.y.name))
        return Call(name, tuple(args), main_instruction(scheduled.kernel, self.target), layer, in_place)

    def _schedule(self, proposal: Proposal) -> tuple[str, Scheduled]:
        key = proposal.product, proposal.trace
        if key not in self._products:
            name = self._name(proposal.product.name)
            scheduled = proposal.trace.apply(replace(proposal.product, name=name), self.target.emits)
            self._keep(name, expand_math(scheduled.func), str(scheduled.kernel), proposal.trace)
            self._products[key] = name, scheduled
        return self._products[key]

    def _patterned(self, group: Group, patterned: Patterned) -> Call:
        op = patterned.op
        if op not in self._scheduled:
            name = self._name(op.name)
            scheduled = patterned.schedule(replace(op, name=name), self.target)
            self._keep(name, expand_math(scheduled.func), str(scheduled.kernel))
            self._scheduled[op] = name, scheduled
        name, scheduled = self._scheduled[op]
        arrays = {buffer: scheduled.pack(buffer, value) for buffer, value in patterned.packed.items()}
        args = []
        for buffer, array in scheduled.lowered.parameters:
            if array:
                args.append(Argument(arrays[buffer][array], arrays[buffer][array].shape))
            else:
                args.append(Argument(*patterned.values[buffer]))
        layer = patterned.describe(group.works[0], self.target) if patterned.describe else None
        return Call(name, tuple(args), main_instruction(scheduled.kernel, self.target), layer)

    def _images(self, group: Group) -> Call:
        """Copy images from one form to another, or pool them."""
        (node,) = group.nodes
        (x,), y, attrs = node.inputs, node.output, node.attrs
        source, image = (attrs[name] or _plain(value) for name, value in (("source", x), ("image", y)))
        batch = x.shape[0] if isinstance(x.shape[0], int) else "batch"
        if node.op == "max_pool":
            window, dilation, borders = attrs["window"], attrs["dilation"], attrs["borders"]
            strides, padding, channels = attrs["strides"], attrs["padding"][:2], y.shape[1]
            kernel = build_max_pool(
                batch, channels, source, image, window, strides, dilation, padding, y.dtype, borders
            )
        else:
            strides, phases, padding, blank = (attrs[name] for name in ("strides", "phases", "padding", "blank"))
            channels = y.shape[1] // prod(phases)
            kernel = build_repack(batch, channels, source, image, strides, phases, padding, y.dtype, blank)
        form = str(kernel)
        if form not in self._generic:
            name = self._name(node.op)
            self._keep(name, schedule_images(replace(kernel, name=name), self.target), form)
            self._generic[form] = name
        shapes = [(x.shape[0], channels * source.plane), (x.shape[0], y.shape[1] * image.plane)]
        return Call(self._generic[form], tuple(map(Argument, (x, y), shapes)))

    def _chain(self, group: Group) -> Call:
        numbers = {value for value in group.inputs if _is_number(value, group)}
        parameters = [value for value in group.inputs if value not in numbers]
        form = _form(group, numbers)
        if form not in self._generic:
            name = self._name("_".join(dict.fromkeys(re.sub(r"\W", "_", node.op) for node in group.nodes)))
            func = self._lower(group, parameters, name)
            self._keep(name, schedule(func, self.target), str(func))
            self._generic[form] = name
        args = tuple(Argument(value, value.shape) for value in (*parameters, *group.outputs))
        instruction = multiply_add(group.outputs[0].dtype, self.target)
        return Call(self._generic[form], args, instruction, in_place=_is_in_place(group))

    def _lower(self, group: Group, parameters: Sequence[Value], name: str) -> tirx.PrimFunc:
        try:
            body = widen(Body(group.nodes, tuple(parameters), group.outputs))
            return lower_group(to_relax(body.nodes, body.parameters, body.outputs), name)
        except (UnsupportedError, *TVM_ERRORS) as error:
            calls = ", ".join(f"{node.op} on {', '.join(map(repr, node.inputs))}" for node in group.nodes)
            raise UnsupportedError(f"{group.label}: there are no loops for {calls}: {last_line(error)}") from error

    def _name(self, base: str) -> str:
        return f"{base[:60]}_{len(self.functions)}"

    def _keep(self, name: str, func: tirx.PrimFunc, source: str, trace: Trace | None = None) -> None:
        self.functions[name] = func
        if self.dump is not None:
            (self.dump / f"{name}.txt").write_text(f"{source}\n")
            (self.dump / f"{name}.scheduled.py").write_text(f"{func}\n")
            if trace is not None:
                (self.dump / f"{name}.trace.json").write_text(f"{trace.to_json()}\n")


def _is_in_place(group: Group) -> bool:
    """Whether nodes that are no product compute every element of their result once, from those at its place.

    Tiles at the end of a ragged row are computed twice, which is right only while what they read is still there.
    """
    (output, *more) = group.outputs
    row = output.shape[-1] if output.shape else 1
    whole = isinstance(row, int) and row * np.dtype(output.dtype).itemsize % VECTOR_BYTES == 0
    return not more and whole and all(node.op in ELEMENTWISE for node in group.nodes)


def _plain(value: Value) -> PlainImage:
    height, width = value.shape[2:]
    assert isinstance(height, int) and isinstance(width, int)
    return PlainImage(height, width, width)


def _is_number(value: Value, group: Group) -> bool:
    """Whether a constant is written into the code of its kernel, where TVM takes numbers."""
    if value.data is None or value.data.size != 1:
        return False
    readers = [node for node in group.nodes if value in node.inputs]
    return all(
        node.op in _BINARY and max(v.rank for v in node.inputs if v is not value) == node.output.rank
        for node in readers
    )


_BINARY = {"add", "divide", "equal", "floor_divide", "floor_mod", "greater", "greater_equal", "less", "less_equal"}
_BINARY |= {"maximum", "minimum", "mod", "multiply", "not_equal", "power", "subtract"}


def _form(group: Group, numbers: Set[Value]) -> str:
    """A text that is the same for groups that are computed alike, whatever their values are called."""
    number: dict[Value, str] = {}

    def describe(value: Value) -> str:
        text = f"{value.dtype}{list(map(str, value.shape))}"
        if value in numbers and value.data is not None:
            return f"{text}={value.data.tobytes().hex()}"
        return f"{number.setdefault(value, f'%{len(number)}')}:{text}"

    def one(node: Any) -> str:
        attrs = ", ".join(f"{name}={value}" for name, value in sorted(node.attrs.items()))
        return f"{[*map(describe, node.outputs)]} = {node.op}({[*map(describe, node.inputs)]}, {attrs})"

    inputs = [describe(value) for value in group.inputs]
    return "\n".join([str(inputs), *map(one, group.nodes), str([*map(describe, group.outputs)])])
