"""Small Relax models, and graphs to compare before and after a pass."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from sparsec.frontends.model import Imported
from sparsec.graph.canonicalize import canonicalize
from sparsec.graph.evaluate import evaluate
from sparsec.graph.from_relax import from_relax
from sparsec.graph.graph import Graph

Build = Callable[..., Any]


def import_small(build: Build, *shapes: Sequence[Any], dtype: str = "float32", **symbols: tuple[int, int]) -> Imported:
    """A model whose body is ``build`` over Relax variables; a string in a shape is a symbolic dimension."""
    known = {name: tirx.Var(name, "int64") for name in symbols}
    params = [
        relax.Var(f"x{i}", relax.TensorType([known.get(d, d) for d in shape], dtype)) for i, shape in enumerate(shapes)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(build(builder, *params))
        builder.emit_func_output(result)
    module = builder.get()
    count = len(result.ty.fields) if isinstance(result.ty, relax.TupleType) else 1
    outputs = tuple(f"y{i}" for i in range(count))
    return Imported(module, tuple(p.name for p in params), outputs, symbols)


def small_graph(build: Build, *shapes: Sequence[Any], **options: Any) -> Graph:
    return from_relax(import_small(build, *shapes, **options))


def canonical(imported: Imported) -> Graph:
    graph = from_relax(imported)
    canonicalize(graph)
    return graph


def run(graph: Graph, seed: int = 0, **symbols: int) -> list[np.ndarray]:
    """Evaluate on random inputs; a symbolic dimension takes the size given."""
    rng = np.random.default_rng(seed)
    shapes = [[d if isinstance(d, int) else symbols[d.name] for d in v.shape] for v in graph.inputs]
    return evaluate(graph, [rng.standard_normal(s).astype(v.dtype) for s, v in zip(shapes, graph.inputs, strict=True)])


def same(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    """Equal up to the rounding of float32."""
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(a).max(initial=0))))


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]
