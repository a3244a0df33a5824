import numpy as np
from tvm import relax
from tvm.relax import op

from sparsec.graph.fold_constants import fold_constants
from sparsec.graph.graph import Graph
from tests.graph.small_models import ops, run, same, small_graph


def folded(build, *shapes) -> Graph:
    graph = small_graph(build, *shapes)
    before = run(graph)
    fold_constants(graph)
    graph.verify()
    same(before, run(graph))
    return graph


WEIGHT = np.random.default_rng(1).standard_normal((6, 4)).astype("float32")


def test_weights_behind_wrappers_become_constants() -> None:
    def build(bb, x):
        w = bb.emit(op.permute_dims(relax.const(WEIGHT)))
        w = bb.emit(op.reshape(bb.emit(op.astype(w, "float64")), (24,)))
        w = bb.emit(op.astype(bb.emit(op.reshape(w, (4, 6))), "float32"))
        return bb.emit(op.matmul(x, w))

    assert ops(folded(build, (2, 4))) == ["matmul"]


def test_a_shared_transposed_weight_stays_shared() -> None:
    weight = relax.const(WEIGHT)

    def build(bb, x):
        y = bb.emit(op.matmul(x, bb.emit(op.permute_dims(weight))))
        z = bb.emit(op.matmul(x, bb.emit(op.permute_dims(weight))))
        return bb.emit(op.add(bb.emit(op.exp(y)), z))

    graph = folded(build, (2, 4))
    assert len(graph.constants()) == 1 and np.shares_memory(graph.constants()[0].data, graph.constants()[0].data.base)


def test_operators_without_numpy_are_evaluated_by_tvm() -> None:
    def build(bb, x):
        return bb.emit(op.add(x, bb.emit(op.cosh(relax.const(np.array([0.0, 1.0], "float32"))))))

    graph = small_graph(build, (3, 2))
    fold_constants(graph)
    assert ops(graph) == ["add"]
    np.testing.assert_allclose(graph.constants()[0].data, np.cosh([0.0, 1.0]), rtol=1e-5)


def test_what_depends_on_a_symbol_stays() -> None:
    def build(bb, x):
        return bb.emit(op.add(x, bb.emit(op.full((x.ty.shape[0],), relax.const(1.0)))))

    graph = small_graph(build, ("n",), n=(1, 4))
    fold_constants(graph)
    assert ops(graph) == ["full", "add"]


def test_large_broadcasts_stay() -> None:
    def build(bb, x):
        return bb.emit(op.add(x, bb.emit(op.broadcast_to(relax.const(np.float32(1)), (1024, 512)))))

    assert ops(folded(build, (1024, 512))) == ["broadcast_to", "add"]
