"""From groups to a plan: kernels, constants, storage and the order of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from sparsec.codegen.plan import Plan, Step, Storage, Symbol, Tensor, max_elements
from sparsec.errors import UnsupportedError
from sparsec.graph.fuse import Group, root
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.kernels import Argument, Call, Kernels
from sparsec.graph.layer import in_model
from sparsec.graph.plan_memory import Life, plan_memory
from sparsec.graph.shape import Dim, Shape, product, same_shape
from sparsec.graph.work import useful_flops
from sparsec.ir.types import FLOATS

FORMAT = 1
"""Version of what the manifest says of layers."""

TYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *FLOATS,
)

MAX_ELEMENTS = 2**31 - 1
"""Kernels count elements in int32, which is faster."""


def lower(
    graph: Graph,
    groups: Sequence[Group],
    kernels: Kernels,
    outputs: Sequence[str],
    progress: Callable[[float], None] = lambda fraction: None,
) -> Plan:
    """Make the plan of a graph whose nodes are in these groups.

    Parameters
    ----------
    kernels : makes the kernels, and knows the target
    outputs : the names of the outputs
    progress : is told the fraction of the groups that are done
    """
    calls = []
    for done, group in enumerate(groups):
        _check_types(group)
        _check_sizes(group, graph.symbols)
        if not _is_empty(group):
            calls.append((group, kernels.call(group)))
        progress((done + 1) / len(groups))
    storages = _Storages(graph, groups)
    for value, output in storages.copies:
        group = _copy(value, output)
        if not _is_empty(group):
            calls.append((group, kernels.call(group)))
    storages.place(calls)
    return _assemble(graph, calls, storages, kernels, outputs)


def dim_text(dim: Dim) -> int | str:
    """A dimension as the plan writes it.

    >>> dim_text(tirx.Var("n", "int64") * 4 + 1)
    '((n * 4) + 1)'
    """
    if isinstance(dim, int | str):
        return dim
    if isinstance(dim, tirx.IntImm):
        return int(dim.value)
    if isinstance(dim, tirx.Var):
        return str(dim.name)
    operator = _OPERATORS.get(type(dim))
    if operator is None:
        raise UnsupportedError(
            f"A tensor has the dimension {dim}, which is more than + - * / % of symbols; fix the symbols with --shape."
        )
    return f"({dim_text(dim.a)} {operator} {dim_text(dim.b)})"


_OPERATORS: dict[type, str] = {
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.FloorDiv: "/",
    tirx.FloorMod: "%",
    tirx.Div: "/",
    tirx.Mod: "%",
}


def plan_text(plan: Plan) -> str:
    """The steps of a plan with their arguments, for people."""

    def describe(index: int) -> str:
        tensor = plan.tensors[index]
        place = tensor.storage.offset if tensor.storage.kind == "arena" else tensor.storage.index
        return f"{tensor.name}: {tensor.dtype}[{', '.join(map(str, tensor.shape))}] @ {tensor.storage.kind} {place}"

    lines = [f"arena {plan.arena_bytes} bytes"]
    for step in plan.steps:
        lines += [f"{step.kernel}  # {step.label}", *(f"    {describe(index)}" for index in step.args)]
    return "\n".join(lines)


def nbytes(shape: Shape, dtype: str, symbols: Mapping[str, tuple[int, int]]) -> int:
    """The bytes that a tensor never exceeds within the ranges of the symbols."""
    return max_elements(tuple(map(dim_text, shape)), symbols) * np.dtype(dtype).itemsize


def _check_types(group: Group) -> None:
    for node in group.nodes:
        for value in (*node.inputs, *node.outputs):
            packed = group.anchor is not None and value is group.anchor.weight  # no tensor, but arrays of a layout
            if value.dtype not in TYPES and not packed:
                raise UnsupportedError(
                    f"{node.where or node.op}: {value!r} has a type that is not compiled; "
                    f"the types are {', '.join(TYPES)}."
                )


def _check_sizes(group: Group, symbols: Mapping[str, tuple[int, int]]) -> None:
    for value in (*group.inputs, *group.outputs):
        elements = max_elements(tuple(map(dim_text, value.shape)), symbols)
        if elements > MAX_ELEMENTS:
            raise UnsupportedError(
                f"{group.label}: {value!r} may have {elements} elements, and a tensor has at most {MAX_ELEMENTS}; "
                "make the model, or the ranges of its symbols, smaller."
            )


def _is_empty(group: Group) -> bool:
    """Whether there is nothing to compute, since no output has an element."""
    return all(0 in value.shape for value in group.outputs)


def _copy(value: Value, output: Value) -> Group:
    node = Node("astype", [value], [output], {"dtype": value.dtype}, "copy")
    output.producer = node
    return Group((node,), (value,), (output,))


class _Storages:
    """Where the bytes of every value lie; a view lies where its root does.

    The result of a kernel that is an output of the model lies in the output. An output that is an input, a constant
    or another output once more is copied.
    """

    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.symbols = graph.symbols
        self.constants: list[np.ndarray] = []
        self.code: list[np.ndarray] = []
        self._constant_index: dict[int, int] = {}
        self._of: dict[Value, Storage] = {v: Storage("input", i) for i, v in enumerate(graph.inputs)}
        self.copies: list[tuple[Value, Value]] = []
        self.arena_bytes = 0
        made = {value for group in groups for value in group.outputs}
        padded = {root(group.anchor.x) for group in groups if group.anchor and group.anchor.has_image}
        for index, value in enumerate(graph.outputs):
            base = root(value)
            if base in made and base not in self._of and base not in padded:
                self._of[base] = Storage("output", index)
            else:
                result = Value(f"{value.name}.copy", value.shape, value.dtype)
                self._of[result] = Storage("output", index)
                self.copies.append((value, result))

    def place(self, calls: Sequence[tuple[Group, Call]]) -> None:
        """Give every other result of a step its bytes in the arena."""
        last: dict[Value, int] = {}
        size: dict[Value, int] = {}
        for step, (_, call) in enumerate(calls):
            for arg in call.args:
                if isinstance(arg.source, Value):
                    base = root(arg.source)
                    last[base] = step
                    # Two ways to write one size may have different bounds.
                    size[base] = max(size.get(base, 0), nbytes(arg.shape, arg.source.dtype, self.symbols))
        index: dict[Value, int] = {}
        lives: list[Life] = []
        for step, (group, call) in enumerate(calls):
            for value in group.outputs:
                if value not in self._of:
                    over = index.get(replaceable) if (replaceable := _overwrites(group, call)) else None
                    index[value] = len(lives)
                    lives.append(Life(size[value], step, last.get(value, step), over))
        offsets, self.arena_bytes = plan_memory(lives)
        self._of |= {value: Storage("arena", offset=offsets[i]) for value, i in index.items()}

    def of(self, arg: Argument) -> Storage:
        source = arg.source
        if arg.is_code:
            assert isinstance(source, np.ndarray)
            self.code.append(source)
            return Storage("code", len(self.code) - 1)
        if isinstance(source, np.ndarray):
            return self._constant(source)
        base = root(source)
        return self._of[base] if base.data is None else self._constant(base.data)

    def _constant(self, array: np.ndarray) -> Storage:
        if id(array) not in self._constant_index:
            self._constant_index[id(array)] = len(self.constants)
            self.constants.append(array)
        return Storage("constant", self._constant_index[id(array)])


def _overwrites(group: Group, call: Call) -> Value | None:
    """The operand whose place the result of a group may take, if the call reads and writes in place."""
    (output, *more) = group.outputs
    if more or not call.in_place:
        return None
    anchor = group.anchor
    factors = [anchor.x, anchor.weight] if anchor else []
    operands = [operand.value for operand in group.operands] if anchor else list(group.inputs)
    read = [root(value) for value in (*factors, *operands)]
    fitting = [root(value) for value in operands if _is_alike(value, output) and read.count(root(value)) == 1]
    return fitting[0] if fitting else None


def _is_alike(value: Value, output: Value) -> bool:
    return same_shape(value.shape, output.shape) and value.dtype == output.dtype


def _assemble(
    graph: Graph, calls: Sequence[tuple[Group, Call]], storages: _Storages, kernels: Kernels, names: Sequence[str]
) -> Plan:
    tensors = _Tensors(storages)
    inputs = [tensors.of(Argument(value, value.shape), value.name) for value in graph.inputs]
    outputs = []
    for index, (name, value) in enumerate(zip(names, graph.outputs, strict=True)):
        tensor = Tensor(name, tuple(map(dim_text, value.shape)), value.dtype, Storage("output", index))
        outputs.append(tensors.add(tensor))
    steps = [_step(group, call, tensors, graph.slices) for group, call in calls]
    return Plan(
        tensors=tensors.all,
        inputs=inputs,
        outputs=outputs,
        steps=steps,
        constants=storages.constants,
        arena_bytes=storages.arena_bytes,
        slices=graph.slices,
        code=storages.code,
        module=kernels.module,
        target=kernels.target,
        symbols=[Symbol(name, *bounds) for name, bounds in graph.symbols.items()],
        manifest={"format": FORMAT, "layers": _layers(graph, calls)},
    )


def _layers(graph: Graph, calls: Sequence[tuple[Group, Call]]) -> list[dict[str, Any]]:
    return [layer.as_dict() for layer in in_model((call.layer for _, call in calls if call.layer), graph)]


def _step(group: Group, call: Call, tensors: _Tensors, slices: int) -> Step:
    args, flops = tuple(map(tensors.of, call.args)), dim_text(product((slices, useful_flops(group.works))))
    return Step(call.kernel, args, group.label, flops, call.instruction if flops else "")


class _Tensors:
    """The tensors of a plan, each form of each storage once."""

    def __init__(self, storages: _Storages) -> None:
        self.storages = storages
        self.all: list[Tensor] = []
        self._index: dict[tuple[Any, ...], int] = {}

    def of(self, arg: Argument, name: str | None = None) -> int:
        storage, shape = self.storages.of(arg), tuple(map(dim_text, arg.shape))
        own = arg.source.name if isinstance(arg.source, Value) else ""
        return self.add(Tensor(name or own, shape, str(arg.source.dtype), storage))

    def add(self, tensor: Tensor) -> int:
        key = tensor.storage, tensor.shape, tensor.dtype
        if key not in self._index:
            self._index[key] = len(self.all)
            self.all.append(tensor)
        return self._index[key]
