"""Compute at compile time what does not depend on the inputs."""

import contextlib
from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax

from sparsec.graph.evaluate import OPERATORS, evaluate_node
from sparsec.graph.graph import Graph, Node
from sparsec.graph.merge_duplicates import merge_duplicates
from sparsec.graph.to_relax import to_relax

GROWTH_LIMIT = 1 << 20
"""Bytes from which on a node is not folded if its result is larger than its inputs, as a broadcast's."""


def fold_constants(graph: Graph) -> None:
    """Replace every node whose inputs are all constant by its value.

    A weight that two nodes share stays one constant, and behind a transpose or reshape one array (as a view). What
    cannot be evaluated here stays.
    """
    merge_duplicates(graph)
    for node in list(graph.nodes):
        if all(v.is_constant for v in node.inputs) and _is_worth_it(node):
            results = _fold(node)
            for old, data in zip(node.outputs, results, strict=False):
                graph.replace(old, graph.constant(data, old.name))
    graph.remove_dead()


def _is_worth_it(node: Node) -> bool:
    if any(not isinstance(d, int) for v in node.outputs for d in v.shape):
        return False
    size = sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in node.outputs)
    return size < GROWTH_LIMIT or size <= sum(v.data.nbytes for v in node.inputs if v.data is not None)


def _fold(node: Node) -> Sequence[np.ndarray]:
    """The node's outputs; none where it cannot be evaluated."""
    args = [v.data for v in node.inputs if v.data is not None]
    # A KeyError is a symbol in an attribute, TVM's error an operator without a CPU implementation.
    with contextlib.suppress(KeyError, tvm.error.InternalError), np.errstate(all="ignore"):
        return evaluate_node(node, args, {}) if node.op in OPERATORS else _evaluate_in_tvm(node, args)
    return []


def _evaluate_in_tvm(node: Node, args: Sequence[np.ndarray]) -> list[np.ndarray]:
    executable = relax.build(to_relax([node], node.inputs, node.outputs), target="llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(a) for a in args))
    return [r.numpy() for r in (result if len(node.outputs) > 1 else [result])]
