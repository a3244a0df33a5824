import glob
import os

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsec.errors import ModelError, UnsupportedError
from sparsec.frontends import load_model
from tests.frontends.onnx_cases import run_relax

LIGHT = sorted(glob.glob(os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light", "*.onnx")))


def model_of(nodes, inputs, weights=(), outputs=("y",), opset=17, sparse=()):
    """A model from nodes; inputs are names with shapes, weights are names with arrays."""
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(value, name) for name, value in dict(weights).items()]
    graph = helper.make_graph(nodes, "g", infos, results, tensors, sparse_initializer=list(sparse))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def matmul_model(shape=("n", 4), **options):
    weights = {"w": np.arange(12, dtype=np.float32).reshape(4, 3)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer.0/proj")
    return model_of([node], {"x": (TensorProto.FLOAT, shape)}, weights, **options)


def saved(model, folder):
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def assert_same_as_onnxruntime(model, inputs, shapes=None, rtol=1e-5, atol=1e-5):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    imported = load_model(model, shapes=shapes)
    results = run_relax(imported, [inputs[name] for name in imported.inputs])
    for got, want in zip(results, session.run(list(imported.outputs), inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol, atol)


def constants_of(imported):
    from tvm import ir, relax

    found = []
    relax.analysis.post_order_visit(
        imported.module["main"], lambda e: found.append(e.value.numpy()) if isinstance(e, ir.GenericConst) else None
    )
    return found


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: os.path.basename(path)[:-5])
@pytest.mark.slow
def test_light_models_import(path):
    imported = load_model(path)
    assert len(imported.inputs) == len(imported.outputs) == len(imported.module["main"].params) == 1


def test_weights_are_constants_and_inputs_are_parameters(tmp_path):
    imported = load_model(saved(matmul_model((2, 4)), tmp_path))
    assert (imported.inputs, imported.outputs, imported.symbols) == (("x",), ("y",), {})
    assert len(imported.module["main"].params) == 1
    assert any(value.shape == (4, 3) for value in constants_of(imported))


def test_symbols_share_a_variable():
    node = helper.make_node("Add", ["a", "b"], ["y"])
    model = model_of([node], {"a": (TensorProto.FLOAT, ("n", 3)), "b": (TensorProto.FLOAT, ("n", 3))})
    imported = load_model(model, shapes={"n": (1, 8)})
    assert imported.symbols == {"n": (1, 8)}
    first, second = (parameter.ty.shape[0] for parameter in imported.module["main"].params)
    assert first.same_as(second)


def test_layers_are_the_users_names():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="layer.0/proj"),
        helper.make_node("LayerNormalization", ["h", "s", "b"], ["n"], name="layer.0/norm"),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    weights = {"w": np.ones((4, 3), np.float32), "s": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    imported = load_model(model_of(nodes, {"x": (TensorProto.FLOAT, (2, 4))}, weights))
    assert set(imported.layers.values()) == {"layer.0/proj", "layer.0/norm", "Relu(y)"}
    bound = [binding.var.name for block in imported.module["main"].body.blocks for binding in block.bindings]
    assert set(imported.layers) <= set(bound)


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_initializer(linear):
    dense = np.zeros((4, 3), np.float32)
    dense[1, 2], dense[3, 0] = 5, 7
    coordinates = np.argwhere(dense)
    indices = np.ravel_multi_index(coordinates.T, dense.shape) if linear else coordinates
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], dense[dense != 0])
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64)), dense.shape)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    imported = load_model(model_of([node], {"x": (TensorProto.FLOAT, (2, 4))}, sparse=[sparse]))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(run_relax(imported, [x])[0], x @ dense)


def test_sparse_constant():
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [5.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [7])
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=helper.make_sparse_tensor(values, indices, [4, 3])),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    result = run_relax(load_model(model_of(nodes, {"x": (TensorProto.FLOAT, (1, 4))})), [np.ones((1, 4), np.float32)])
    np.testing.assert_array_equal(result[0], [[0, 5, 0]])


def test_nan_and_infinity_in_weights_are_kept():
    weights = {"w": np.array([[np.nan, np.inf], [1, -np.inf]], np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    imported = load_model(model_of([node], {"x": (TensorProto.FLOAT, (1, 2))}, weights))
    assert any(np.array_equal(value, weights["w"], equal_nan=True) for value in constants_of(imported))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_operator_sets(opset):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=1)]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, (2, 4))}, {"w": np.eye(4, 3, dtype=np.float32)}, opset=opset)
    assert_same_as_onnxruntime(model, {"x": np.arange(8, dtype=np.float32).reshape(2, 4)})


def test_shape_arithmetic_on_symbols():
    """The reshape of an exported attention: sizes taken from Shape, multiplied, concatenated."""
    one, zero = np.array(1, np.int64), np.array([0], np.int64)
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Gather", ["s", "one"], ["t"]),
        helper.make_node("Unsqueeze", ["t", "zero"], ["t1"]),
        helper.make_node("Mul", ["n", "t1"], ["nt"]),
        helper.make_node("Concat", ["nt", "two", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    weights = {"zero": zero, "one": one, "two": np.array([2], np.int64), "minus": np.array([-1], np.int64)}
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ("n", "t", 6))}, weights)
    for n, t in [(1, 1), (2, 5), (3, 4)]:
        x = np.random.default_rng(0).normal(size=(n, t, 6)).astype(np.float32)
        assert_same_as_onnxruntime(model, {"x": x}, {"n": (1, 3), "t": (1, 5)})


def test_slice_to_a_symbolic_length_of_a_longer_table():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "one", "two"], ["t"]),
        helper.make_node("Slice", ["table", "zero", "t", "one"], ["p"]),
        helper.make_node("Add", ["x", "p"], ["y"]),
    ]
    weights = {name: np.array([value], np.int64) for name, value in (("zero", 0), ("one", 1), ("two", 2))}
    weights["table"] = np.arange(64, dtype=np.float32).reshape(1, 64)
    model = model_of(nodes, {"x": (TensorProto.FLOAT, (2, "t"))}, weights)
    assert_same_as_onnxruntime(model, {"x": np.ones((2, 5), np.float32)}, {"t": (1, 32)})


def test_resize_with_a_symbolic_batch():
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    scales = {"scales": np.array([1, 1, 2, 1.5], np.float32)}
    model = model_of([node], {"x": (TensorProto.FLOAT, ("n", 3, 5, 6))}, scales, opset=18)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    assert_same_as_onnxruntime(model, {"x": x}, {"n": (1, 4)})


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read .*nowhere.onnx: No such file"):
        load_model(tmp_path / "nowhere.onnx")


NOISE = np.random.default_rng(0).bytes(64)


@pytest.mark.parametrize(
    "content",
    [b"", b"this is no model, it is a text", b"\x08\x08", NOISE],
    ids=["empty", "text", "start", "noise"],
)
def test_not_an_onnx_file(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx is not an ONNX file, or it is truncated"):
        load_model(path)


def test_truncated_anywhere(tmp_path):
    whole = matmul_model((2, 4)).SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="truncated"):
            load_model(path)


def external_model(folder):
    path = folder / "model.onnx"
    onnx.save(matmul_model((2, 4)), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_is_read(tmp_path):
    assert any(value.shape == (4, 3) for value in constants_of(load_model(external_model(tmp_path))))


def test_external_data_missing(tmp_path):
    path = external_model(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"keeps the weight 'w' in 'weights.bin', which cannot be read"):
        load_model(path)


def test_external_data_truncated(tmp_path):
    path = external_model(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match="weight 'w'"):
        load_model(path)


def test_external_data_not_loaded(tmp_path):
    model = onnx.load(external_model(tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match=r"external file that was not loaded"):
        load_model(model)


def test_open_dimension_names_the_flag():
    with pytest.raises(ModelError, match=r"input 'x' leaves 'n' open .*--shape x=1,4 .*--shape x=1\.\.8,4"):
        load_model(matmul_model())


def test_dynamic_rank():
    with pytest.raises(ModelError, match=r"input 'x' has a dynamic rank"):
        load_model(matmul_model(None))


def test_unsupported_operator_names_the_node():
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Det", ["h"], ["y"], name="block/det")]
    with pytest.raises(UnsupportedError, match=r"node 'block/det': operator Det of operator set 17 is not supported"):
        load_model(model_of(nodes, {"x": (TensorProto.FLOAT, (3, 3))}))


def test_unsupported_domain_names_it():
    node = helper.make_node("Relu", ["x"], ["y"], name="n", domain="my.domain")
    with pytest.raises(UnsupportedError, match=r"operator my\.domain\.Relu"):
        load_model(model_of([node], {"x": (TensorProto.FLOAT, (3, 3))}))


@pytest.mark.parametrize("domain", ["my.domain", "com.microsoft"])
def test_a_domain_that_is_not_imported_is_named(domain):
    """Mish is rewritten by its type, which ONNX infers of models with all their imports alone."""
    nodes = [helper.make_node("Odd", ["x"], ["h"], name="n", domain=domain), helper.make_node("Mish", ["h"], ["y"])]
    with pytest.raises(UnsupportedError, match=rf"node 'n': operator {domain}\.Odd is not supported"):
        load_model(model_of(nodes, {"x": (TensorProto.FLOAT, (3, 3))}, opset=18))


@pytest.mark.parametrize("left_out", ["", "com.microsoft"])
def test_operator_sets_that_are_known_need_no_import(left_out):
    nodes = [helper.make_node("Gelu", ["x"], ["h"], domain="com.microsoft"), helper.make_node("Mish", ["h"], ["y"])]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, (3, 3))}, opset=18)
    model.opset_import[0].domain = "com.microsoft" if left_out == "" else ""
    assert load_model(model).outputs == ("y",)


def test_unsupported_attribute_names_node_and_shapes():
    node = helper.make_node("MaxPool", ["x"], ["y", "indices"], name="pool", kernel_shape=[2, 2])
    with pytest.raises(UnsupportedError, match=r"node 'pool': operator MaxPool .*float32\[1, 1, 4, 4\]"):
        load_model(model_of([node], {"x": (TensorProto.FLOAT, (1, 1, 4, 4))}, outputs=("y", "indices")))


def test_training_is_refused():
    node = helper.make_node(
        "BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], name="bn", training_mode=1
    )
    model = model_of([node], {"x": (TensorProto.FLOAT, (2, 3, 4))}, {"s": np.ones(3, np.float32)})
    with pytest.raises(UnsupportedError, match=r"node 'bn': .*training mode"):
        load_model(model)


def test_string_input_is_refused():
    node = helper.make_node("Identity", ["x"], ["y"])
    with pytest.raises(UnsupportedError, match="input 'x' holds strings"):
        load_model(model_of([node], {"x": (TensorProto.STRING, (2,))}))


def test_foreign_object_is_refused():
    with pytest.raises(ModelError, match="cannot read a model from dict"):
        load_model({})


def relu(source, target, name):
    return helper.make_node("Relu", [source], [target], name=name)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([relu("nope", "y", "a")], "node 'a' reads 'nope', which nothing before it writes"),
        ([relu("h", "y", "a"), relu("x", "h", "b")], "node 'a' reads 'h', which nothing before it writes"),
        ([relu("x", "y", "a"), relu("x", "y", "b")], "nodes 'a' and 'b' both write 'y'"),
        ([relu("x", "h", "a")], "output 'y' is written by no node"),
    ],
)
def test_names_that_do_not_match_are_refused(nodes, message):
    with pytest.raises(ModelError, match=message):
        load_model(model_of(nodes, {"x": (TensorProto.FLOAT, (2, 3))}))


@pytest.mark.parametrize("operator", ["MatMul", "Add", "Gemm"])
def test_shapes_that_do_not_fit_name_the_node(operator):
    node = helper.make_node(operator, ["x", "w"], ["y"], name="layer/op")
    model = model_of([node], {"x": (TensorProto.FLOAT, (2, 5))}, {"w": np.ones((4, 3), np.float32)})
    with pytest.raises(ModelError, match=r"node 'layer/op': the shapes do not fit: .*float32\[2, 5\]") as refusal:
        load_model(model)
    assert "Metadata" not in str(refusal.value) and "ir.Op" not in str(refusal.value)


def test_types_that_do_not_fit_name_the_node():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer/op")
    model = model_of([node], {"x": (TensorProto.FLOAT, (2, 4))}, {"w": np.ones((4, 3))})
    with pytest.raises(ModelError, match=r"node 'layer/op': the types do not fit: .*float64\[4, 3\].*such as float32"):
        load_model(model)


@pytest.mark.parametrize("shape", [[10, 13], [9, 11], [12, 14]])
def test_output_shape_of_a_transposed_convolution(shape):
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=shape)
    model = model_of([node], {"x": (TensorProto.FLOAT, (2, 4, 5, 6))}, {"w": weight})
    assert_same_as_onnxruntime(model, {"x": np.random.default_rng(1).standard_normal((2, 4, 5, 6)).astype(np.float32)})


@pytest.mark.parametrize(
    "content, kind", [(b"\x7fELF" + bytes(60), "shared library"), (b"PK\x03\x04" + bytes(60), "archive")]
)
def test_files_that_are_known_to_be_no_models(tmp_path, content, kind):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.bin is not an ONNX file, or it is truncated: it is an? {kind}"):
        load_model(path)
