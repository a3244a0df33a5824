"""Whole models, compiled and run, against their meaning in ONNX Runtime or NumPy."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.sparse
from onnx import helper, numpy_helper

import sparsec
from sparsec.errors import ArtifactError, InputError, ModelError, TargetError, UnsupportedError

RNG = np.random.default_rng(0)


def sparse(*shape: int, density: float = 0.2) -> np.ndarray:
    return (RNG.standard_normal(shape) * (RNG.random(shape) < density)).astype("float32")


class Builder:
    """An ONNX graph, node by node; constants become initializers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def __getattr__(self, op: str):
        def add(*inputs, name=None, **attrs):
            names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
            self.nodes.append(helper.make_node(op, names, [name or f"{op}{len(self.nodes)}"], **attrs))
            return self.nodes[-1].output[0]

        return add

    def linear(self, x: str, depth: int, rows: int) -> str:
        return self.Add(self.MatMul(x, sparse(depth, rows)), sparse(rows, density=1))

    def model(self, inputs: dict, outputs: dict) -> onnx.ModelProto:
        ports = [
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in kind.items()]
            for kind in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "model", *ports, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def agree(model: onnx.ModelProto, *feeds: dict, **options) -> sparsec.Artifact:
    """Compile a model and compare it with ONNX Runtime on each of these inputs."""
    artifact = sparsec.compile(model, **options)
    session = artifact.load(threads=1)
    reference = onnxruntime.InferenceSession(model.SerializeToString())
    for feed in feeds:
        found = session(**feed)
        found = found if isinstance(found, tuple) else (found,)
        for expected, actual in zip(reference.run(None, feed), found, strict=True):
            scale = max(1.0, np.abs(expected).max(initial=0))
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * scale)
    return artifact


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32")


def perceptron(batch: int | str) -> onnx.ModelProto:
    b = Builder()
    hidden = b.Relu(b.linear("x", 48, 70))
    b.Softmax(b.linear(hidden, 70, 10), axis=-1, name="y")
    return b.model({"x": [batch, 48]}, {"y": [batch, 10]})


def transformer_layer(batch: int | str, tokens: int | str, size: int = 32, heads: int = 4) -> onnx.ModelProto:
    """Attention with a mask, a residual and a layer norm, then a hidden layer with a GELU that is spelled out."""
    b = Builder()

    def split(perm):
        shape = np.int64([0, 0, heads, size // heads])
        return b.Transpose(b.Reshape(b.linear("x", size, size), shape), perm=perm)

    q, k, v = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    scores = b.Div(b.MatMul(q, k), np.float32(np.sqrt(size // heads)))
    bias = b.Mul(b.Sub(np.float32(1), "mask"), np.float32(-10000))
    scores = b.Add(scores, b.Unsqueeze(bias, np.int64([1, 2])))
    context = b.Transpose(b.MatMul(b.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
    attended = b.Add(b.linear(b.Reshape(context, np.int64([0, 0, size])), size, size), "x")
    norm = b.LayerNormalization(attended, normal(size), normal(size), axis=-1)
    hidden = b.linear(norm, size, 2 * size)
    erf = b.Add(b.Erf(b.Div(hidden, np.float32(np.sqrt(2)))), np.float32(1))
    gelu = b.Mul(b.Mul(hidden, erf), np.float32(0.5))
    residual = b.Add(b.linear(gelu, 2 * size, size), norm)
    b.LayerNormalization(residual, normal(size), normal(size), axis=-1, name="y")
    return b.model({"x": [batch, tokens, size], "mask": [batch, tokens]}, {"y": [batch, tokens, size]})


def masked(batch: int, tokens: int) -> dict:
    mask = (np.arange(tokens) < max(1, tokens - 3)).astype("float32")
    return {"x": normal(batch, tokens, 32), "mask": np.broadcast_to(mask, (batch, tokens)).copy()}


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_perceptron_of_one_row():
    artifact = agree(perceptron(1), {"x": normal(1, 48)})
    assert [output["name"] for output in artifact.manifest["outputs"]] == ["y"]


def test_a_perceptron_of_any_number_of_rows():
    agree(perceptron("batch"), *({"x": normal(n, 48)} for n in (1, 5, 16, 33)), shapes={"batch": (1, 33)})


def test_a_transformer_layer():
    artifact = agree(transformer_layer(2, 19), masked(2, 19))
    assert len(artifact.manifest["layers"]) == 6


def test_a_transformer_layer_of_any_size():
    feeds = [masked(batch, tokens) for batch, tokens in ((1, 1), (2, 16), (3, 21))]
    agree(transformer_layer("batch", "tokens"), *feeds, shapes={"batch": (1, 3), "tokens": (1, 21)})


def test_layers_of_one_form_share_a_kernel():
    b = Builder()
    x, weight = "x", sparse(32, 32)
    for layer in range(4):
        weight = np.roll(weight, 1, axis=0)  # other values, but nothing that another layout would suit better
        x = b.Tanh(b.MatMul(x, weight), **({"name": "y"} if layer == 3 else {}))
    session = agree(b.model({"x": [17, 32]}, {"y": [17, 32]}), {"x": normal(17, 32)}).load()
    kernels = [step.kernel for step in session.profile(normal(17, 32), runs=1) if step.kernel.startswith("linear")]
    assert len(kernels) == 4
    assert kernels[0] == kernels[1] == kernels[2]


def test_images():
    """A stem with a stride, a residual block, a depthwise filter, pooling and a classifier."""
    b = Builder()

    def conv(x, rows, channels, kernel, groups=1, stride=1):
        weight, pad = sparse(rows, channels // groups, kernel, kernel, density=0.4), kernel // 2
        return b.Conv(x, weight, normal(rows), pads=[pad] * 4, strides=[stride] * 2, group=groups)

    x = b.Relu(conv("x", 16, 3, 3, stride=2))
    x = b.Relu(b.Add(conv(b.Relu(conv(x, 24, 16, 1)), 16, 24, 3), x))
    x = b.Clip(conv(x, 16, 16, 3, groups=16), np.float32(0), np.float32(6))
    x = b.Sigmoid(b.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2]))
    x = b.Flatten(b.GlobalAveragePool(conv(x, 32, 16, 3)))
    b.Add(b.MatMul(x, sparse(32, 10)), normal(10), name="y")
    agree(b.model({"x": [2, 3, 22, 30]}, {"y": [2, 10]}), {"x": normal(2, 3, 22, 30)})


def test_outputs_that_share_their_bytes():
    """An input, a view of it, a constant, one result twice and a view of it are outputs like any other."""
    b = Builder()
    b.Identity("x", name="same")
    b.Reshape("x", np.int64([8, 3]), name="flat")
    b.Identity(np.arange(4, dtype="float32"), name="fixed")
    result = b.Exp("x", name="result")
    b.Identity(result, name="again")
    b.Reshape(result, np.int64([3, 8]), name="view")
    b.Tanh(result, name="next")
    outputs = {
        "same": [4, 6],
        "flat": [8, 3],
        "fixed": [4],
        "result": [4, 6],
        "again": [4, 6],
        "view": [3, 8],
        "next": [4, 6],
    }
    artifact = agree(b.model({"x": [4, 6]}, outputs), {"x": normal(4, 6)})
    assert [output["name"] for output in artifact.manifest["outputs"]] == list(outputs)


@pytest.mark.parametrize(("rows", "columns"), [(128, 64), (67, 131), (1, 1009)])
def test_a_chain_whose_operands_are_read_for_the_last_time(rows, columns):
    """Elementwise steps between sums that fuse with nothing: they run in place over whole vectors, and only there.

    The last tile of a ragged row starts early and computes some elements twice, so it must find its operands intact.
    """
    b = Builder()
    x = "x"
    for _ in range(3):
        x = b.Tanh(b.CumSum(x, np.int64(1)))
    b.CumSum(x, np.int64(1), name="y")
    agree(b.model({"x": [rows, columns]}, {"y": [rows, columns]}), {"x": normal(rows, columns)})


def test_a_size_that_no_tensor_of_a_kernel_shows_alone():
    b = Builder()
    b.Neg(b.Slice(normal(64), b.Shape("x"), np.int64([64]), np.int64([0])), name="y")
    b.Exp("x", name="z")
    feeds = [{"x": normal(n)} for n in (1, 13, 48)]
    agree(b.model({"x": ["n"]}, {"y": ["m"], "z": ["n"]}), *feeds, shapes={"n": (1, 48)})


def crossing(top: int, behind: bool) -> onnx.ModelProto:
    """``x[n] * w[n:]`` as an outer product, which is largest in the middle of n's range."""
    b = Builder()
    n = b.Shape("x")
    rest = b.Unsqueeze(b.Slice(normal(top), n, np.int64([top]), np.int64([0])), np.int64([0]))
    y = b.Mul(b.Unsqueeze("x", np.int64([1])), rest, name="outer")
    if behind:
        y = b.ReduceSum(b.Softmax(y, axis=0), np.int64([1]), keepdims=0, name="sum")
        return b.model({"x": ["n"]}, {"sum": ["n"]})
    return b.model({"x": ["n"]}, {"outer": ["n", "m"]})


@pytest.mark.parametrize("behind", [False, True])
def test_sizes_that_are_largest_between_the_bounds_of_a_symbol(behind):
    feeds = [{"x": normal(n)} for n in (1, 750, 1000, 1999)]
    agree(crossing(2000, behind), *feeds, shapes={"n": (1, 1999)})


def test_an_unaligned_output_that_is_largest_between_the_bounds_of_a_symbol():
    session = sparsec.compile(crossing(2000, False), shapes={"n": (1, 2000)}).load(threads=1)
    assert session.outputs[0].max_shape == (2000, 1999)
    x = normal(1000)
    room = np.zeros(1000 * 1000 * 4 + 128, np.uint8)
    start = -room.ctypes.data % 64 + 4
    out = room[start : start + 1000 * 1000 * 4].view(np.float32).reshape(1000, 1000)
    np.testing.assert_array_equal(session(x, out=out), session(x))


# -- the face --------------------------------------------------------------------------------------------------------


def test_progress_is_told_and_never_goes_back():
    told: list[tuple[str, float]] = []
    sparsec.compile(perceptron(2), progress=lambda stage, fraction: told.append((stage, fraction)))
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert told[-1] == ("done", 1.0)


def test_a_dump_holds_every_stage(tmp_path):
    sparsec.compile(perceptron(2), dump=tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    stages = sorted(path.stem for path in folder.glob("*.txt"))
    assert stages[0] == "01_from_relax"
    assert stages[-1].endswith("_plan")
    assert "linear_cols" in next(folder.glob("*_plan_layouts.txt")).read_text()
    (kernel,) = (folder / "kernels").glob("linear_1.txt")
    assert kernel.read_text().startswith("kernel linear_1(")
    assert json.loads((folder / "kernels" / "linear_1.trace.json").read_text())[0][0] == "tile"


def test_a_dump_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot dump into"):
        sparsec.compile(perceptron(2), dump=tmp_path / "file" / "folder")


def test_inspect_describes_the_layers():
    b = Builder()
    pruned = sparse(128, 256, density=0.1)
    rows = normal(256, 128) * (np.arange(128) % 2)
    b.MatMul(b.Relu(b.MatMul("x", pruned, name="first")), rows.astype("float32"), name="second")
    model = b.model({"x": [64, 128]}, {"second": [64, 128]})
    report = sparsec.inspect(model)
    first, second = report.layers
    assert first.shape == (256, 128)
    assert first.sparsity == pytest.approx(0.9, abs=0.01)
    assert first.structure == "unstructured"
    assert "compressed" in first.layout
    assert first.nbytes < first.dense_nbytes / 2
    assert 0 < first.seconds < first.dense_seconds
    assert second.structure == "rows 50% empty"
    assert json.loads(json.dumps(report.as_dict()))["layers"][0]["name"] == first.name
    assert [layer["layout"] for layer in sparsec.compile(model).manifest["layers"]] == [first.layout, second.layout]


def test_layers_that_are_gone_are_named(tmp_path):
    b = Builder()
    merged = b.MatMul(b.MatMul("x", normal(24, 64), name="widen"), normal(64, 24), name="narrow")
    read_by_none = b.MatMul(b.Relu(merged), normal(24, 32), name="read_by_none")
    branch = b.MatMul(b.Relu(read_by_none), normal(32, 24) * 0, name="empty")
    b.Add(branch, b.MatMul(b.Relu(merged), normal(24, 24), name="kept"), name="y")
    model = b.model({"x": [64, 24]}, {"y": [64, 24]})
    report = sparsec.inspect(model)
    left = [layer.name for layer in report.layers]
    assert len(left) == 2 and len(report.removed) == 3 and set(report.removed).isdisjoint(left)
    assert {"MatMul(read_by_none)", "MatMul(empty)"} < set(report.removed)
    assert report.as_dict()["removed"] == sparsec.compile(model).manifest["removed"] == list(report.removed)
    assert "layers are gone, since zeros leave them" in report.to_html(tmp_path / "page.html").read_text()


def test_inspect_of_an_artifact_says_where_its_layers_are(tmp_path):
    with pytest.raises(ModelError, match=r"model.so is compiled already; .*manifest\['layers'\]"):
        sparsec.inspect(tmp_path / "model.so")


def test_shapes_as_text():
    with pytest.raises(ModelError, match="expected a mapping"):
        sparsec.compile(perceptron(1), shapes="batch=4")


def test_an_unknown_target():
    with pytest.raises(TargetError, match="unknown target 'z80'"):
        sparsec.compile(perceptron(1), target="z80")


def test_an_operator_without_loops_is_named_with_its_node():
    b = Builder()
    b.Det("x", name="y")
    with pytest.raises(UnsupportedError, match="Det"):
        sparsec.compile(b.model({"x": [3, 3]}, {"y": []}))


def test_a_type_that_is_not_compiled_is_named():
    b = Builder()
    b.Cast(b.Cast("x", to=onnx.TensorProto.FLOAT8E5M2), to=onnx.TensorProto.FLOAT, name="y")
    with pytest.raises(UnsupportedError, match=r"float8_e5m2.* has a type that is not compiled"):
        sparsec.compile(b.model({"x": [3, 3]}, {"y": [3, 3]}))


@pytest.mark.parametrize(("n", "shapes"), [(50_000, None), ("n", {"n": (1, 50_000)})])
def test_a_tensor_with_more_elements_than_int32_counts_is_named(n, shapes):
    b = Builder()
    b.ReduceSum(b.Softmax(b.Mul("x", normal(1, 50_000), name="wide"), axis=0), np.int64([1]), name="y")
    with pytest.raises(
        UnsupportedError, match=r"Softmax.*50000\] may have 2500000000 elements, and a tensor has at most 2147483647"
    ):
        sparsec.compile(b.model({"x": [n, 1]}, {"y": [n, 1]}), shapes=shapes)


def test_a_mistake_of_ours_is_not_told_as_a_limit(monkeypatch):
    def mistake(*args):
        raise TypeError("ours")

    monkeypatch.setattr("sparsec.graph.kernels.to_relax", mistake)
    b = Builder()
    b.Exp("x", name="y")
    with pytest.raises(TypeError, match="ours"):
        sparsec.compile(b.model({"x": [3]}, {"y": [3]}))


def test_empty_tensors_are_computed_by_no_one():
    b = Builder()
    b.Exp(b.Slice("x", np.int64([1]), np.int64([1]), np.int64([0])), name="nothing")
    b.Exp("x", name="something")
    agree(b.model({"x": [3, 5]}, {"nothing": [0, 5], "something": [3, 5]}), {"x": normal(3, 5)})


# -- one operator ----------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_product_with_a_bias_and_an_activation(activation):
    weight, bias, x = sparse(37, 29), normal(37), normal(29, 18)
    y = sparsec.op("matmul", weight, 18, bias=bias, activation=activation)(x)
    np.testing.assert_allclose(y, ACTIVATIONS[activation](weight @ x + bias[:, None]), rtol=1e-4, atol=1e-5)


def test_a_product_with_a_matrix_of_scipy_and_any_number_of_columns():
    weight = scipy.sparse.random(64, 40, 0.1, format="csr", dtype="float32", rng=0)
    multiply = sparsec.op("matmul", weight, (1, 70))
    for columns in (1, 16, 70):
        x = normal(40, columns)
        np.testing.assert_allclose(multiply(x), weight @ x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [np.zeros((5, 7)), np.ones((1, 1)), np.eye(3, 17)])
def test_weights_at_the_edge(weight):
    x = normal(weight.shape[1], 9)
    np.testing.assert_allclose(sparsec.op("matmul", weight, 9)(x), weight @ x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("conv", np.eye(3), 4), {}, "there is no operator 'conv'"),
        (("matmul", np.eye(3), 4), {"activation": "step"}, "there is no activation 'step'"),
        (("matmul", np.ones(3), 4), {}, r"the weight has shape \(3,\)"),
        (("matmul", np.eye(3), 4), {"bias": np.ones(2)}, "the bias has 2 elements"),
        (("matmul", np.eye(3) * 1j, 4), {}, "the weight has the type complex128; expected real numbers"),
        (("matmul", np.eye(3), 0), {}, "columns=0 was given; expected a number from 1"),
        (("matmul", np.eye(3), 2.5), {}, "columns=2.5 was given"),
        (("matmul", np.eye(3), (8, 1)), {}, r"columns=\(8, 1\) was given"),
        (("matmul", np.eye(3), (1, 2, 3)), {}, r"columns=\(1, 2, 3\) was given"),
    ],
)
def test_operands_that_do_not_fit(arguments, options, message):
    with pytest.raises(InputError, match=message):
        sparsec.op(*arguments, **options)
