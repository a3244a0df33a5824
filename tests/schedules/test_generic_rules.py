"""Schedules of everything but products, against NumPy."""

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

from sparsec.schedules.rules.generic import DECLINED, schedule
from tests.schedules.relax_groups import NATIVE, Kernel, agree, compiled, group, normal

CASES_1D = [1, 2, 7, 16, 17, 64, 127, 128, 1000]


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def standardise(x, axis):
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)


def column(v, ndim, axis):
    return v.reshape([-1 if d == axis % ndim else 1 for d in range(ndim)])


@pytest.mark.parametrize("n", CASES_1D)
def test_a_chain_becomes_one_loop(n):
    agree(
        lambda emit, x, y: op.nn.relu(emit(op.subtract(emit(op.multiply(x, y)), x))),
        lambda x, y: np.maximum(x * y - x, 0),
        normal(3, n),
        normal(3, n, seed=1),
    )


BROADCASTS = [((5, 7), (7,)), ((5, 7), (5, 1)), ((2, 1, 9), (4, 1)), ((33, 64), (64,)), ((), (3,))]


@pytest.mark.parametrize("shapes", BROADCASTS)
def test_broadcasts(shapes):
    a, b = (normal(*s, seed=i) for i, s in enumerate(shapes))
    agree(lambda emit, x, y: op.add(x, y), lambda x, y: x + y, a, b)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 37, 41), (1, 128, 128), (12, 64, 64), (2, 3, 1), (1, 1, 1000)])
def test_softmax_after_scale_and_mask(shape, axis):
    mask = np.where(normal(1, shape[1], 1) > 1, np.float32(-np.inf), np.float32(0))
    mask[:, 0] = 0
    scale = relax.const(0.125, "float32")
    agree(
        lambda emit, x, m: op.nn.softmax(emit(op.add(emit(op.multiply(x, scale)), m)), axis=axis),
        lambda x, m: softmax(x * 0.125 + m, axis) if axis == 1 else softmax(x * 0.125, axis),
        normal(*shape),
        mask if axis == 1 else np.zeros_like(mask),
    )


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shape", [(1, 24, 16), (2, 31, 17), (1, 768, 128), (3, 5, 1), (1, 1, 8)])
def test_layer_norm_after_residual(shape, axis):
    size = shape[axis]
    agree(
        lambda emit, x, r, g, b: op.nn.layer_norm(emit(op.add(x, r)), g, b, axes=[axis]),
        lambda x, r, g, b: standardise(x + r, axis) * column(g, 3, axis) + column(b, 3, axis),
        normal(*shape),
        normal(*shape, seed=1),
        normal(size, seed=2),
        normal(size, seed=3),
        atol=5e-5,
    )


def test_layer_norm_that_also_returns_the_residual():
    def build(emit, x, r, g, b):
        total = emit(op.add(x, r))
        return relax.Tuple([total, emit(op.nn.layer_norm(total, g, b, axes=[-1]))])

    agree(
        build,
        lambda x, r, g, b: [x + r, standardise(x + r, -1) * g + b],
        *(normal(37, 48, seed=i) for i in range(2)),
        *(normal(48, seed=i) for i in range(2)),
    )


@pytest.mark.parametrize("shape", [(2, 8, 24), (3, 5, 77)])
def test_rms_norm(shape):
    agree(
        lambda emit, x, g: op.nn.rms_norm(x, g, axes=[-1]),
        lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g,
        normal(*shape),
        normal(shape[-1]),
    )


@pytest.mark.parametrize("shape", [(2, 8, 7, 7), (1, 4, 5, 1)])
def test_instance_and_group_norm(shape):
    c = shape[1]
    args = (normal(*shape), normal(c), normal(c, seed=1))
    agree(
        lambda emit, x, g, b: op.nn.instance_norm(x, g, b, channel_axis=1, axes=[2, 3]),
        lambda x, g, b: standardise(x, (2, 3)) * column(g, 4, 1) + column(b, 4, 1),
        *args,
        rtol=1e-3,
        atol=1e-3,  # TVM computes the variance as E[x²] − E[x]²
    )
    agree(
        lambda emit, x, g, b: op.nn.group_norm(x, g, b, num_groups=2, channel_axis=1, axes=[2, 3]),
        lambda x, g, b: standardise(x.reshape(shape[0], 2, -1), 2).reshape(shape) * column(g, 4, 1) + column(b, 4, 1),
        *args,
        rtol=1e-3,
        atol=1e-3,
    )


REDUCTIONS = {
    "sum": (op.sum, np.sum),
    "mean": (op.mean, np.mean),
    "max": (op.max, np.max),
    "min": (op.min, np.min),
    "prod": (op.prod, np.prod),
    "variance": (op.variance, np.var),
}


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(REDUCTIONS)),
    shape=st.lists(st.sampled_from([1, 2, 5, 16, 19, 33]), min_size=1, max_size=3),
    data=st.data(),
)
def test_reductions_over_any_axes(name, shape, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    keep = data.draw(st.booleans())
    ours, theirs = REDUCTIONS[name]
    agree(
        lambda emit, x: ours(x, axis=sorted(axes), keepdims=keep),
        lambda x: theirs(x.astype("float64"), axis=tuple(axes), keepdims=keep).astype("float32"),
        np.float32(1) + normal(*shape) / 16,
        rtol=1e-4,
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(5, 7), (37, 130), (1, 3), (4, 64)])
def test_arg_reductions(shape, axis):
    x = np.round(normal(*shape) * 2)  # ties: the first wins
    agree(lambda emit, x: op.argmax(x, axis=axis), lambda x: x.argmax(axis), x)
    agree(lambda emit, x: op.argmin(x, axis=axis), lambda x: x.argmin(axis), x)


def test_outputs_of_a_split():
    agree(
        lambda emit, x: op.split(x, [3, 20], axis=1),
        lambda x: [np.ascontiguousarray(p) for p in np.split(x, [3, 20], axis=1)],
        normal(4, 50),
    )


@pytest.mark.parametrize("shape", [(5, 7), (16, 16), (17, 33), (128, 768), (300, 260), (1, 20)])
def test_transposition(shape):
    agree(lambda emit, x: op.permute_dims(x), lambda x: np.ascontiguousarray(x.T), normal(*shape))


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (0, 3, 1, 2), (3, 2, 1, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
def test_permutations(order, dtype):
    x = np.arange(2 * 19 * 3 * 34).reshape(2, 19, 3, 34).astype(dtype)
    agree(lambda emit, x: op.permute_dims(x, list(order)), lambda x: np.ascontiguousarray(x.transpose(order)), x)


def test_transposition_inside_a_chain():
    agree(
        lambda emit, x, y, b: op.add(emit(op.multiply(emit(op.permute_dims(x)), y)), b),
        lambda x, y, b: x.T * y + b,
        normal(50, 37),
        normal(37, 50),
        normal(50),
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation(axis):
    shapes = [[3, 4, 35], [3, 4, 35], [3, 4, 35]]
    for n, s in enumerate(shapes):
        s[axis] += n
    agree(
        lambda emit, *xs: op.nn.relu(emit(op.concat(list(xs), axis=axis))),
        lambda *xs: np.maximum(np.concatenate(xs, axis), 0),
        *(normal(*s, seed=i) for i, s in enumerate(shapes)),
    )


POOLS = [  # shape, window, stride, padding
    ((1, 4, 112, 112), 3, 2, 1),
    ((2, 3, 9, 11), 2, 2, 0),
    ((1, 5, 16, 37), 3, 1, 1),
    ((1, 2, 35, 70), 3, 2, 0),
    ((1, 2, 7, 7), 5, 3, 2),
]


def windows(x, k, s, p, fill):
    padded = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)], constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, (k, k), (2, 3))[:, :, ::s, ::s]


@pytest.mark.parametrize("shape, k, s, p", POOLS)
def test_window_pools(shape, k, s, p):
    agree(
        lambda emit, x: op.nn.relu(emit(op.nn.max_pool2d(x, (k, k), (s, s), (p, p, p, p)))),
        lambda x: np.maximum(windows(x, k, s, p, -np.inf).max((4, 5)), 0),
        normal(*shape),
    )
    agree(
        lambda emit, x: op.nn.avg_pool2d(x, (k, k), (s, s), (p, p, p, p), count_include_pad=True),
        lambda x: windows(x, k, s, p, 0).mean((4, 5)),
        normal(*shape),
    )
    agree(
        lambda emit, x: op.nn.avg_pool2d(x, (k, k), (s, s), (p, p, p, p)),
        lambda x: windows(x, k, s, p, 0).sum((4, 5)) / windows(np.ones_like(x), k, s, p, 0).sum((4, 5)),
        normal(*shape),
    )


def test_global_pool():
    agree(
        lambda emit, x: op.nn.adaptive_avg_pool2d(x, (1, 1)),
        lambda x: x.mean((2, 3), keepdims=True),
        normal(1, 300, 7, 7),
    )


@pytest.mark.parametrize("method", ["nearest_neighbor", "linear", "cubic"])
def test_resize_agrees_with_the_unscheduled_loops(method):
    func = group(lambda emit, x: op.image.resize2d(x, (13, 33), method=method), (1, 3, 8, 17))
    x, out = normal(1, 3, 8, 17), np.empty((1, 3, 13, 33), "float32")
    plain = Kernel(tvm.compile(tvm.IRModule({"main": func}), target=NATIVE.tvm()))
    np.testing.assert_allclose(compiled(func)([x], out), plain([x], out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 7, 33, 64])
def test_padding_and_slices(width):
    agree(
        lambda emit, x: op.nn.pad(x, [0, 0, 1, 2, 3, 1]),
        lambda x: np.pad(x, [(0, 0), (1, 2), (3, 1)]),
        normal(2, 5, width),
    )
    agree(
        lambda emit, x: op.strided_slice(x, [1, 2], [1, 0], [5, width], [2, 1 if width < 3 else 3]),
        lambda x: np.ascontiguousarray(x[:, 1:5:2, :: 1 if width < 3 else 3]),
        normal(2, 6, width),
    )


def test_gathers():
    table, ids = normal(50, 33), np.random.default_rng(0).integers(0, 50, (3, 7))
    agree(lambda emit, t, i: op.take(t, i, axis=0), lambda t, i: t[i], table, ids)
    agree(lambda emit, t, i: op.take(t, i, axis=1), lambda t, i: t[:, i], normal(4, 50), ids)
    agree(lambda emit, t, i: op.gather_nd(t, i), lambda t, i: t[i[:, 0]], table, ids.reshape(-1, 1))
    agree(
        lambda emit, i: op.one_hot(i, relax.prim_value(1), relax.prim_value(0), 50),
        lambda i: np.eye(50, dtype="int64")[i],
        ids,
    )


def test_scatter_keeps_the_loops_it_was_written_with():
    def put(x, i, u):
        out = x.copy()
        np.put_along_axis(out, i, u, 1)
        return out

    agree(
        lambda emit, x, i, u: op.scatter_elements(x, i, u, axis=1),
        put,
        normal(3, 9),
        np.array([[0, 4], [8, 1], [2, 3]]),
        normal(3, 2),
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(3, 17, 5), (2, 1, 64), (1, 33, 2)])
def test_sorting(shape, axis):
    x = np.round(normal(*shape) * 3)
    agree(lambda emit, x: op.sort(x, axis=axis), lambda x: np.sort(x, axis), x)
    agree(lambda emit, x: op.argsort(x, axis=axis, dtype="int64"), lambda x: np.argsort(x, axis, kind="stable"), x)


def test_topk():
    def largest(x):
        order = np.argsort(-x, 1, kind="stable")[:, :4]
        return [np.take_along_axis(x, order, 1), order.astype("int32")]

    agree(lambda emit, x: op.topk(x, k=4, axis=1), largest, np.round(normal(3, 50) * 3))


@pytest.mark.parametrize("axis", [0, 1])
def test_scans(axis):
    agree(lambda emit, x: op.cumsum(x, axis=axis), lambda x: x.cumsum(axis), normal(5, 37))


def test_quantise_and_dequantise():
    agree(
        lambda emit, x, s: op.astype(
            emit(op.clip(emit(op.round(emit(op.divide(x, s)))), relax.prim_value(-127), relax.prim_value(127))), "int8"
        ),
        lambda x, s: np.clip(np.round(x / s), -127, 127).astype("int8"),
        normal(5, 67),
        np.float32([0.03]),
    )
    agree(
        lambda emit, q, s: op.multiply(emit(op.astype(q, "float32")), s),
        lambda q, s: q.astype("float32") * s,
        np.arange(-100, 100, dtype="int8").reshape(4, 50),
        np.float32([0.03]),
    )


def test_inputs_of_which_only_the_shape_is_used_stay_parameters():
    agree(
        lambda emit, x, y: op.add(emit(op.zeros_like(x)), y), lambda x, y: np.zeros_like(x) + y, normal(3, 5), normal(5)
    )


def test_where_and_comparison():
    agree(
        lambda emit, x, y: op.where(emit(op.greater(x, y)), x, emit(op.negative(y))),
        lambda x, y: np.where(x > y, x, -y),
        normal(7, 33),
        normal(7, 33, seed=1),
    )


SYMBOLIC = {
    "chain": (lambda emit, x: op.nn.relu(emit(op.add(x, x))), lambda x: np.maximum(x + x, 0)),
    "softmax down": (lambda emit, x: op.nn.softmax(x, axis=1), lambda x: softmax(x, 1)),
    "softmax along": (lambda emit, x: op.nn.softmax(x, axis=2), lambda x: softmax(x, 2)),
    "sum": (lambda emit, x: op.sum(x, axis=[2]), lambda x: x.sum(2)),
    "mean of all": (lambda emit, x: op.mean(x), lambda x: x.mean()),
    "argmax": (lambda emit, x: op.argmax(x, axis=2), lambda x: x.argmax(2)),
    "transpose": (lambda emit, x: op.permute_dims(x, [0, 2, 1]), lambda x: np.ascontiguousarray(x.transpose(0, 2, 1))),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_symbolic_shapes_compile_once(name):
    build, expected = SYMBOLIC[name]
    kernel = compiled(group(build, (2, "m", "n")))
    for m, n in [(1, 1), (3, 2), (2, 15), (1, 16), (5, 17), (7, 64), (33, 100)]:
        x = normal(2, m, n)
        want = np.asarray(expected(x))
        (got,) = kernel([x], want)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_elementwise_is_vector_code():
    kernel = compiled(group(lambda emit, x: op.nn.gelu(emit(op.nn.silu(x))), (3, 1000)))
    assert "vmulss" not in kernel.assembly
    assert not any(f"{name}f@PLT" in kernel.assembly for name in ("exp", "erf"))
    register = {512: "%zmm", 256: "%ymm", 128: "%xmm"}[NATIVE.vector_bits]
    assert "mulps\t" in kernel.assembly and register in kernel.assembly


@pytest.mark.parametrize(
    "build",
    [lambda emit, x: op.exp(x), lambda emit, x: op.permute_dims(x), lambda emit, x: op.sort(x, axis=1)],
    ids=["nests", "transpose", "opaque"],
)
def test_the_symbol_stays(build):
    assert schedule(group(build, (32, 32)), NATIVE).attrs["global_symbol"] == "main"


@pytest.mark.parametrize(
    ("build", "reasons"),
    [
        (lambda emit, x: op.permute_dims(x), []),
        (lambda emit, x: op.exp(x), ["every tensor is read along the axis that is written"]),
        (lambda emit, x: op.nn.softmax(x), ["the function is not one injective stage"]),
        (lambda emit, x: op.sort(x, axis=1), ["block merge_sort is opaque"]),
    ],
    ids=["transpose", "nests", "softmax", "opaque"],
)
def test_rules_that_decline_say_why(build, reasons):
    scheduled = schedule(group(build, (32, 32)), NATIVE)
    assert list(scheduled.attrs.get(DECLINED, [])) == reasons
    assert all(reason in scheduled.script() for reason in reasons)


def test_small_functions_stay_serial():
    func = group(lambda emit, x: op.nn.relu(x), (4, 16))
    assert "parallel" not in schedule(func, NATIVE).script()
    large = group(lambda emit, x: op.exp(x), (1024, 1024))
    assert "T.parallel" in schedule(large, NATIVE).script()
