import numpy as np
import pytest
from tvm import ir, relax, runtime, tirx
from tvm.relax import op

from sparsec.errors import UnsupportedError
from sparsec.graph.from_relax import from_relax
from sparsec.graph.to_relax import to_relax
from tests.graph.small_models import import_small, ops, run, small_graph

WEIGHT = np.arange(4 * 8 * 9, dtype="float32").reshape(4, 8, 3, 3) / 100


def everything(bb, x):
    """Shape arguments, tuples of tensors, tuples of numbers, scalars, tuple results and symbolic sizes at once."""
    y = bb.emit(op.nn.conv2d(x, relax.const(WEIGHT), padding=1))
    batch = x.ty.shape[0]
    y = bb.emit(op.reshape(y, (batch * 4, 36)))
    y = bb.emit(op.strided_slice(y, [1], [2], [34]))
    left, right = (bb.emit(part) for part in bb.emit(op.split(y, 2, axis=1)))
    y = bb.emit(op.concat([op.clip(right, 0, 6), left], axis=1))
    y = bb.emit(
        op.nn.layer_norm(y, relax.const(np.ones(32, "float32")), relax.const(np.ones(32, "float32")), axes=[-1])
    )
    y = bb.emit(op.add(y, op.full((batch * 4, 1), relax.const(2.0))))
    return bb.emit(relax.Tuple([bb.emit(op.mean(y, axis=1)), bb.emit(op.nn.softmax(left))]))


def test_round_trip_is_the_same_module() -> None:
    imported = import_small(everything, ("n", 8, 6, 6), n=(1, 4))
    graph = from_relax(imported)
    assert ops(graph)[:5] == ["nn.conv2d", "reshape", "strided_slice", "split", "clip"]
    assert graph.symbols == {"n": (1, 4)}
    again = from_relax(import_small(lambda bb, x: everything(bb, x), ("n", 8, 6, 6), n=(1, 4)))
    assert str(graph) == str(again)
    module = to_relax(graph.nodes, graph.inputs, graph.outputs)
    compile_and_compare(module, graph, n=3)


def compile_and_compare(module: ir.IRModule, graph, **symbols: int) -> None:
    executable = relax.build(module, target="llvm")
    rng = np.random.default_rng(0)
    shapes = [[d if isinstance(d, int) else symbols[d.name] for d in v.shape] for v in graph.inputs]
    arrays = [rng.standard_normal(s).astype(v.dtype) for s, v in zip(shapes, graph.inputs, strict=True)]
    machine = relax.VirtualMachine(executable, runtime.cpu())
    results = machine["main"](*(runtime.tensor(a) for a in arrays))
    for actual, expected in zip(results, run(graph, **symbols), strict=True):
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_shared_constants_are_one_value() -> None:
    weight = relax.const(np.ones((4, 4), "float32"))
    graph = small_graph(lambda bb, x: bb.emit(op.matmul(bb.emit(op.matmul(x, weight)), weight)), (2, 4))
    assert graph.nodes[0].inputs[1] is graph.nodes[1].inputs[1]


def test_hidden_symbols_arrive_in_a_shape() -> None:
    graph = small_graph(everything, ("n", 8, 6, 6), n=(1, 4))
    inner = [node for node in graph.nodes if node.op == "nn.layer_norm"]
    module = to_relax(inner, inner[0].inputs[:1], inner[0].outputs)
    assert [type(p.ty) for p in module["main"].params] == [relax.TensorType, relax.ShapeType]


def test_a_loop_nest_stays_one_node() -> None:
    from tvm import te

    def build(bb, x):
        return bb.emit_te(lambda a: te.compute(a.shape, lambda i, j: a[i, j] * 2, name="twice"), x)

    graph = small_graph(build, (2, 3))
    assert ops(graph) == ["call_tir"]
    module = to_relax(graph.nodes, graph.inputs, graph.outputs)
    machine = relax.VirtualMachine(relax.build(module, target="llvm"), runtime.cpu())
    np.testing.assert_array_equal(
        machine["main"](runtime.tensor(np.ones((2, 3), "float32"))).numpy(), np.full((2, 3), 2)
    )


def test_unknown_shapes_are_named() -> None:
    with pytest.raises(UnsupportedError, match=r"nonzero at 'lv'.*not known before the run.*--shape"):
        small_graph(lambda bb, x: bb.emit(op.nonzero(x)), (2, 3))


def test_shapes_that_depend_on_numbers_are_named() -> None:
    def build(bb, x):
        count = tirx.Var("count", "int64")
        found = bb.emit(op.nonzero(x))
        return bb.emit(
            op.exp(bb.match_cast(bb.emit(op.astype(found, "float32")), relax.TensorType((2, count), "float32")))
        )

    with pytest.raises(UnsupportedError, match="nonzero at 'lv'"):
        small_graph(build, (2, 3))


def test_packed_calls_are_named() -> None:
    def build(bb, x):
        return bb.emit(relax.call_dps_packed("my_kernel", (x,), relax.TensorType((2, 3), "float32")))

    with pytest.raises(UnsupportedError, match="'call_dps_packed'"):
        small_graph(build, (2, 3))
