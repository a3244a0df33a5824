"""Recognise sums and means of rows that are taken from a constant table, and store a sparse table as such."""

from __future__ import annotations

import numpy as np

from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.shape import product
from sparsec.graph.simplify import reshape
from sparsec.ir.named import DENSE
from sparsec.schedules.rules.embedding_bag import choose_table
from sparsec.targets import Target


def bag_embeddings(graph: Graph, target: Target) -> None:
    """Rewrite ``sum(take(table, ids), axis=-2)`` to ``embedding_bag``, where the table is best stored sparse."""
    for node in list(graph.nodes):
        found = _find(graph, node)
        if found is None:
            continue
        table, ids, mode = found
        assert table.data is not None
        layout = choose_table(table.data, target)
        if layout == DENSE:
            continue
        bags = product(ids.shape[:-1])
        attrs = {"rest": (), "layout": str(layout), "size": ids.shape[-1]}
        attrs |= {"mean": node.op == "mean", "wrap": mode == "wrap"}
        rows = graph.add("embedding_bag", [table, ids], (bags, table.shape[1]), attrs, dtype=table.dtype, before=node)
        graph.replace(node.output, reshape(graph, rows, node.output.shape, node))
    graph.remove_dead()
    graph.verify()


def _find(graph: Graph, node: Node) -> tuple[Value, Value, str] | None:
    """Return the table and the ids of a sum or a mean over the last axis of the ids, and what ids of no row mean."""
    if node.op not in ("sum", "mean") or node.attrs["keepdims"]:
        return None
    rows = node.inputs[0]
    take = rows.producer
    if take is None or take.op != "take" or take.attrs["axis"] != 0 or len(rows.users) > 1 or rows in graph.outputs:
        return None
    axes = [axis % rows.rank for axis in node.attrs["axis"] or ()]
    table, ids = take.inputs
    fits = table.data is not None and table.rank == 2 and table.dtype == "float32" and ids.rank >= 1
    if not fits or axes != [rows.rank - 2] or not isinstance(ids.shape[-1], int) or ids.shape[-1] < 1:
        return None
    mode = take.attrs["mode"]
    return (table, ids, mode) if np.dtype(ids.dtype).kind == "i" and mode != "nan" else None
