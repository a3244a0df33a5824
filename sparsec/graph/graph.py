"""A small dataflow graph that passes can rewrite in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.graph.shape import Dim, Shape


@dataclass(eq=False)
class Value:
    """A tensor: a graph input, a constant (then ``data`` is set) or an output of a node.

    ``users`` holds a node once for every input that reads the value, and ``origin`` the weight of the model that a
    constant was transformed from.
    """

    name: str
    shape: Shape
    dtype: str
    data: np.ndarray | None = None
    producer: Node | None = None
    users: list[Node] = field(default_factory=list)
    origin: Value | None = None

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def scalar(self) -> float:
        """The one element of a constant; NaN, which equals nothing, for anything else."""
        return float(self.data.reshape(())) if self.data is not None and self.data.size == 1 else math.nan

    def is_all(self, number: float) -> bool:
        """Whether this is a constant, and all of its elements are a number."""
        return self.data is not None and bool((self.data == number).all())

    def __repr__(self) -> str:
        return f"%{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(eq=False)
class Node:
    """An operator: its Relax name without ``relax.``, or a name that a pass introduced.

    ``attrs`` are plain: ints, floats, strings, None, dimensions, and tuples of them, by the parameter names of the
    Relax function in ``tvm.relax.op``. ``where`` is the name in the user's model, for messages.
    """

    op: str
    inputs: list[Value]
    outputs: list[Value]
    attrs: dict[str, Any]
    where: str = ""

    @property
    def output(self) -> Value:
        (value,) = self.outputs
        return value

    def __repr__(self) -> str:
        args = [f"%{v.name}" for v in self.inputs] + [f"{k}={_text(v)}" for k, v in self.attrs.items()]
        return f"{', '.join(map(repr, self.outputs))} = {self.op}({', '.join(args)})"


@dataclass(eq=False)
class Graph:
    """Inputs, outputs and the nodes between them, in topological order.

    ``symbols`` maps the name of a symbolic dimension to its inclusive range. The model is the graph run ``slices``
    times, for one part of the first axis of all its inputs and outputs after the other. ``removed`` holds by name how
    many outputs and inputs the layers of this name, in their order, have lost to zeros.
    """

    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    symbols: dict[str, tuple[int, int]] = field(default_factory=dict)
    slices: int = 1
    removed: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict, repr=False)

    def input(self, name: str, shape: Sequence[Dim], dtype: str) -> Value:
        value = Value(self._unique(name), tuple(shape), dtype)
        self.inputs.append(value)
        return value

    def constant(self, data: Any, name: str = "const") -> Value:
        array = np.asarray(data)
        return Value(self._unique(name), tuple(array.shape), str(array.dtype), array)

    def add(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[Dim],
        attrs: dict[str, Any] | None = None,
        *,
        dtype: str | None = None,
        before: Node | None = None,
        name: str | None = None,
    ) -> Value:
        """Insert a node with one output and return that output.

        Parameters
        ----------
        dtype
            Of the output; that of the first input where it is not given.
        before
            The node to stand in front of; at the end where it is not given.
        name
            Of the output, made unique.
        """
        dtype = dtype or inputs[0].dtype
        return self.add_node(op, inputs, [(tuple(shape), dtype)], attrs, before=before, name=name).output

    def add_node(
        self,
        op: str,
        inputs: Sequence[Value],
        outputs: Sequence[tuple[Shape, str]],
        attrs: dict[str, Any] | None = None,
        *,
        before: Node | None = None,
        name: str | None = None,
    ) -> Node:
        """Insert a node whose outputs have these shapes and dtypes."""
        node = Node(op, [], [], dict(attrs or {}), before.where if before else "")
        for shape, dtype in outputs:
            node.outputs.append(Value(self._unique(name or op.rsplit(".", 1)[-1]), tuple(shape), dtype, producer=node))
        for value in inputs:
            node.inputs.append(value)
            value.users.append(node)
        self.nodes.insert(self.nodes.index(before) if before else len(self.nodes), node)
        return node

    def set_inputs(self, node: Node, inputs: Sequence[Value]) -> None:
        """Give a node other inputs."""
        for value in node.inputs:
            value.users.remove(node)
        node.inputs = list(inputs)
        for value in node.inputs:
            value.users.append(node)

    def replace(self, old: Value, new: Value) -> None:
        """Let everything that reads ``old``, the graph's outputs included, read ``new``."""
        for user in dict.fromkeys(old.users):
            self.set_inputs(user, [new if value is old else value for value in user.inputs])
        self.outputs = [new if value is old else value for value in self.outputs]

    def remove_dead(self) -> None:
        """Remove the nodes from which no output can be reached."""
        wanted = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if wanted.isdisjoint(node.outputs):
                self.set_inputs(node, [])
            else:
                kept.append(node)
                wanted.update(node.inputs)
        self.nodes = kept[::-1]

    def constants(self) -> list[Value]:
        """The constants that nodes or outputs read, each once, in order of first use."""
        read: Iterable[Value] = [value for node in self.nodes for value in node.inputs] + self.outputs
        return list(dict.fromkeys(value for value in read if value.is_constant))

    def verify(self) -> None:
        """Check order, users and producers; a failure is a bug in the pass before."""
        known = set(self.inputs)
        for node in self.nodes:
            for value in node.inputs:
                assert value.is_constant or value in known, f"{node!r} reads {value!r} before it is made"
                assert value.users.count(node) == node.inputs.count(value), f"{value!r} misses its user {node!r}"
            for value in node.outputs:
                assert value.producer is node and value not in known, f"{value!r} has two producers"
                known.add(value)
        nodes = set(self.nodes)
        for value in known:
            assert nodes.issuperset(value.users), f"{value!r} has a user that is not in the graph"
        for value in self.outputs:
            assert value.is_constant or value in known, f"the output {value!r} is never made"

    def __str__(self) -> str:
        lines = [f"graph({', '.join(map(repr, self.inputs))})"]
        lines += [f"  {value!r} = constant" for value in self.constants()]
        lines += [f"  {node!r}" for node in self.nodes]
        return "\n".join([*lines, f"  return {', '.join(f'%{v.name}' for v in self.outputs)}"])

    def _unique(self, name: str) -> str:
        """The name itself the first time, then with a number."""
        candidate = name
        while candidate in self._names:
            candidate = f"{name}.{self._names[name]}"
            self._names[name] += 1
        self._names[candidate] = 1
        return candidate


def _text(value: Any) -> str:
    return f"({', '.join(map(_text, value))})" if isinstance(value, tuple) else str(value)
