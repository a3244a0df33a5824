"""Layouts that a user gives: in the notation they are taken as they are, and a name stands for a kind of them."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

import sparsec
from sparsec.errors import InputError, LayoutError
from sparsec.graph.given_layouts import GivenLayouts, read_layout
from sparsec.ir.named import (
    CSC,
    CSR,
    NAMED,
    bsr,
    fkw,
    n_of_m,
    permuted_diagonal,
    tile_wise,
    tile_wise_two_sided,
    tvw,
    v_n_m,
)
from sparsec.report.kinds import kind_of
from sparsec.report.layers import is_sparse
from tests.ir.product_cases import integers, sparse


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("CSR", CSR),
        (" csr", CSR),
        ("2:4", n_of_m(2, 4)),
        ("16:2:8", v_n_m(16, 2, 8)),
        ("BSR:2,3", bsr(2, 3)),
        ("block:4x1", bsr(4, 1)),
        ("8x1 blocks", bsr(8, 1)),
        ("fkw", fkw()),
        ("tile-wise:32", tile_wise(32)),
        ("tile-wise:32,two-sided", tile_wise_two_sided(32)),
        ("diagonals of 4x4 blocks", permuted_diagonal(4)),
        ("2:4 in 32x4 tiles", tvw(32)),
        (str(CSR), CSR),
    ],
)
def test_layouts_are_read_by_name_and_in_the_notation(text, layout):
    assert read_layout(text) == layout


@pytest.mark.parametrize("text", ["CSV", "CSR:4", "BSR:a", "2:4:8:2", ""])
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(LayoutError, match=r"is not the name of a layout.*; use one of dense; CSR"):
        read_layout(text)


def test_a_misspelt_name_is_corrected():
    with pytest.raises(LayoutError, match=r"'tilewise:32' is not the name of a layout \(did you mean tile-wise\?\)"):
        read_layout("tilewise:32")


def test_what_is_no_text_is_no_layout():
    with pytest.raises(LayoutError, match=r"^5 is no layout; give its name"):
        sparsec.compile("missing.onnx", layouts=5)


@pytest.mark.parametrize("name", NAMED)
def test_an_operator_takes_every_named_layout(name):
    weight, x = sparse(13, 24, 0.3), integers(24, 33)
    weight = np.where(NAMED[name]().holds(weight != 0), weight, np.float32(0))
    multiply = sparsec.op("matmul", weight, 33, layout=name)
    stored = kind_of(multiply.manifest["layers"][0]["layout"])
    assert stored == kind_of(str(NAMED[name]())) or (name == "N:M" and ":" in stored)
    np.testing.assert_array_equal(multiply(x), weight @ x)


def test_a_name_that_is_printed_gives_what_it_is_printed_for():
    model, _ = two_layers()
    for layer in sparsec.inspect(model, options=True).layers:
        for option in layer.options:
            if option.refusal is None:
                given = {one.name: one for one in sparsec.inspect(model, layouts={layer.name: option.name}).layers}
                assert (given[layer.name].layout, given[layer.name].seconds) == (option.layout, option.seconds)


def two_layers():
    """y = W2 relu(W1 x), the layers called first and second."""
    weights = [sparse(24, 16, 0.2, seed=1), sparse(8, 24, 0.2, seed=2)]
    initializers = [numpy_helper.from_array(w.T.copy(), name) for name, w in zip("ab", weights, strict=True)]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], "second"),
    ]
    x, y = (helper.make_tensor_value_info(name, 1, [5, size]) for name, size in (("x", 16), ("y", 8)))
    graph = helper.make_graph(nodes, "two", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), weights


def test_layers_take_the_first_layout_that_fits_their_name():
    model, (first, second) = two_layers()
    layouts = {"fir*": "bitmap", "*": "(i, k) -> (k : dense, i : compressed)"}
    session = sparsec.compile(model, layouts=layouts).load()
    found = {layer["name"]: layer["layout"] for layer in session.manifest["layers"]}
    assert kind_of(found["first"]) == "bitmap" and found["second"] == layouts["*"]
    x = integers(5, 16)
    np.testing.assert_array_equal(session(x), np.maximum(x @ first.T, 0) @ second.T)


def test_weights_that_are_free_can_all_be_dense():
    model, (first, second) = two_layers()
    session = sparsec.compile(model, layouts={"second": "CSR"}, dense=True).load()
    one, two = session.manifest["layers"]
    assert not is_sparse(one["layout"]) and two["layout"] == str(CSR)
    assert one["seconds"] == one["dense_seconds"]
    x = integers(5, 16)
    np.testing.assert_array_equal(session(x), np.maximum(x @ first.T, 0) @ second.T)


def test_grouped_convolutions_keep_the_zeros_between_their_groups():
    weight = np.ones((32, 1, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4, group=32)
    x, y = (helper.make_tensor_value_info(name, 1, [1, 32, 14, 14]) for name in "xy")
    graph = helper.make_graph([node], "depthwise", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    ways = {"dense": True}, {"layouts": "dense"}, {"layouts": {"*": "(i, k) -> (i : dense, k : dense)"}}
    chosen, *dense = (sparsec.compile(model, **options).manifest["layers"] for options in ({}, *ways))
    assert all(layers == chosen for layers in dense)
    (layer,) = sparsec.compile(model, layouts="CSR").manifest["layers"]
    assert layer["layout"] == str(CSR) != chosen[0]["layout"]


def test_a_name_that_no_layer_has_is_refused():
    with pytest.raises(InputError, match="given for 'third', but no layer with weights has that name"):
        sparsec.compile(two_layers()[0], layouts={"third": "CSR"})


@pytest.mark.parametrize("order", [1, -1])
def test_a_whole_name_counts_before_names_with_stars(order):
    given = GivenLayouts(dict([("fc*", "CSR"), ("fc1", "CSC")][::order]))
    assert (given("fc1"), given("fc2"), given("conv")) == (CSC, CSR, None)
    given.check_all_used()


def test_the_name_of_a_module_fits_its_layers():
    given = GivenLayouts({"2": "CSR", "2:linear_1": "CSC"})
    assert (given("2:linear"), given("2:linear_1"), given("12:linear")) == (CSR, CSC, None)


def test_a_name_that_never_counts_is_refused():
    given = GivenLayouts({"*": "CSR", "fc*": "CSC"})
    assert given("fc1") == CSR
    with pytest.raises(InputError, match=r"given for 'fc\*', but the one for '\*' overrides it"):
        given.check_all_used()


def test_the_closest_names_are_listed():
    given = GivenLayouts({"encoder.fc3": "CSR"})
    for layer in ("head", "encoder.fc1", "encoder.fc2", "stem"):
        given(layer)
    with pytest.raises(InputError, match=r"the closest are 'encoder.fc2', 'encoder.fc1', "):
        given.check_all_used()


def test_a_layout_for_all_layers_that_cannot_hold_one_is_to_be_given_for_some():
    with pytest.raises(LayoutError, match=r"first: .* give it for some layers only, as LAYER=LAYOUT"):
        sparsec.inspect(two_layers()[0], layouts="1:24")


def test_a_layout_that_cannot_hold_a_weight_names_the_layer_and_the_place():
    weight = np.ones((4, 8), np.float32)
    with pytest.raises(
        LayoutError,
        match=r"matmul: 2:4 cannot .* holds 2 in each fiber, and at i 0.*; prune it so, or choose one of 1x4 blocks; ",
    ):
        sparsec.op("matmul", weight, 5, layout="2:4")


def test_a_layout_of_three_dimensions_is_refused():
    with pytest.raises(LayoutError, match="has 3 dimensions; a weight has two"):
        sparsec.op("matmul", np.ones((4, 8), np.float32), 5, layout="(i, j, k) -> (i : dense, j : dense, k : dense)")


@pytest.mark.parametrize(
    "layout",
    [
        "(i, k) -> (k floordiv 4 : dense, i floordiv 4 : diagonal, i mod 4 : dense, k mod 4 : dense)",
        "(i, k) -> (i floordiv 4 : dense, k floordiv 4 : diagonal, i mod 4 : dense, k mod 4 : dense)",
    ],
    ids=["of rows", "of columns"],
)
def test_diagonals_of_blocks(layout):
    """A block of the depth that finds its rows by a diagonal meets some rows alone, so sums start elsewhere."""
    rng = np.random.default_rng(0)
    block, nothing = rng.standard_normal((4, 4)).astype("float32"), np.zeros((4, 4), np.float32)
    weight, x = np.block([[nothing, block], [block + 1, nothing]]), rng.standard_normal((8, 32)).astype("float32")
    bias = np.ones(8, np.float32)
    multiply = sparsec.op("matmul", weight, columns=32, layout=layout, bias=bias, activation="relu")
    for _ in range(2):
        np.testing.assert_allclose(multiply(x), np.maximum(weight @ x + 1, 0), rtol=0, atol=1e-5)
