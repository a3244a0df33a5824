"""Compute once what two nodes compute alike (common subexpression elimination)."""

from typing import Any

from sparsec.graph.graph import Graph, Node, Value


def merge_duplicates(graph: Graph) -> None:
    """Let every reader of a node that repeats an earlier one read the earlier one.

    Constants that are views of the same memory become one constant.
    """
    arrays: dict[Any, Value] = {}
    for value in graph.constants():
        assert value.data is not None
        memory = value.data.__array_interface__
        key = (memory["data"][0], value.data.strides, value.data.shape, value.dtype)
        if arrays.setdefault(key, value) is not value and value.data.size:
            graph.replace(value, arrays[key])
    first: dict[Any, Node] = {}
    for node in list(graph.nodes):
        attrs = tuple((name, repr(value)) for name, value in sorted(node.attrs.items()))
        kept = first.setdefault((node.op, tuple(node.inputs), attrs), node)
        if kept is not node:
            for old, new in zip(node.outputs, kept.outputs, strict=True):
                graph.replace(old, new)
    graph.remove_dead()
