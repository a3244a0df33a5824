import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.errors import ModelError
from sparsec.frontends import parse_shape
from sparsec.frontends.shapes import bind_shapes, check_form


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=1,3,640,640", ("x", (1, 3, 640, 640))),
        ("x=1..8,3,224,224", ("x", ((1, 8), 3, 224, 224))),
        ("ids=batch,128", ("ids", ("batch", 128))),
        ("batch=1..8", ("batch", ((1, 8),))),
        ("a=b:0=4", ("a=b:0", (4,))),
        ("scalar=", ("scalar", ())),
    ],
)
def test_parse_shape(text, expected):
    assert parse_shape(text) == expected


@pytest.mark.parametrize("text", ["", "x", "=1,2", "x=1..", "x=-1", "x=1;2", "x=8...9"])
def test_parse_shape_refuses(text):
    with pytest.raises(ModelError, match="cannot read"):
        parse_shape(text)


@given(st.lists(st.one_of(st.integers(1, 999), st.tuples(st.integers(1, 9), st.integers(1, 9))), min_size=1))
def test_parse_shape_reads_what_is_written(dims):
    text = ",".join(str(dim) if isinstance(dim, int) else f"{dim[0]}..{dim[1]}" for dim in dims)
    assert parse_shape(f"x={text}") == ("x", tuple(dims))


def test_closing_one_name_closes_it_everywhere():
    dims, symbols = bind_shapes({"a": ["n", 4], "b": ["n"]}, {"a": (3, 4)})
    assert dims == {"a": [3, 4], "b": [3]}
    assert symbols == {}


def test_bounding_by_symbol_and_by_input_agree():
    by_symbol = bind_shapes({"a": ["n", "t"], "b": ["n"]}, {"n": (1, 8), "t": 16})
    by_input = bind_shapes({"a": ["n", "t"], "b": ["n"]}, {"a": ((1, 8), 16)})
    assert by_symbol == by_input == ({"a": ["n", 16], "b": ["n"]}, {"n": (1, 8)})


def test_one_symbol_given_to_anonymous_axes():
    dims, symbols = bind_shapes({"a": [None, 4], "b": [None]}, {"a": ("n", 4), "b": ("n",), "n": (2, 5)})
    assert dims == {"a": ["n", 4], "b": ["n"]}
    assert symbols == {"n": (2, 5)}


def test_renaming_a_symbol():
    assert bind_shapes({"a": ["s31", 4]}, {"a": ("n", 4), "n": (1, 4)}) == ({"a": ["n", 4]}, {"n": (1, 4)})


def test_anonymous_axes_get_a_symbol_each():
    dims, symbols = bind_shapes({"a": [None, None]}, {"a": ((1, 2), (1, 3))})
    assert dims == {"a": ["a_0", "a_1"]}
    assert symbols == {"a_0": (1, 2), "a_1": (1, 3)}


def test_a_range_of_one_size_is_that_size():
    assert bind_shapes({"a": ["n"]}, {"n": (4, 4)}) == ({"a": [4]}, {})


def test_names_become_identifiers_and_stay_apart():
    dims, symbols = bind_shapes({"x.1": ["batch-size", "batch size", "1st"]}, {"x.1": ((1, 2), (1, 3), (1, 4))})
    assert all(name.isidentifier() for name in symbols)
    assert [symbols[name] for name in dims["x.1"]] == [(1, 2), (1, 3), (1, 4)]


def test_unknown_rank_is_closed_by_a_shape():
    assert bind_shapes({"a": None}, {"a": (2, 3)}) == ({"a": [2, 3]}, {})


@pytest.mark.parametrize(
    ("inputs", "shapes", "message"),
    [
        (
            {"x": ["n", 3, None, 5]},
            None,
            r"input 'x' leaves 'n', 'x_2' open.*--shape x=1,3,224,5 .*--shape x=1\.\.8,3,",
        ),
        ({"x": None}, None, r"input 'x' has a dynamic rank.*--shape x="),
        ({"x": [1, 3]}, {"x": (1, 4)}, "fixed size 3 at axis 1, but 4"),
        ({"x": [1, 3]}, {"x": (1,)}, "has 2 axes, but the shape given for it has 1"),
        ({"x": ["n"]}, {"y": (1,)}, r"neither an input nor a dimension 'y'; its inputs are x\(n\)"),
        ({"x": ["n", "n"]}, {"x": (1, 2)}, "one size in the whole model, but got both 1 and 2"),
        ({"x": ["n"]}, {"n": (8, 1)}, "cannot be"),
        ({"x": ["n"]}, {"n": 0}, "cannot be 0"),
        ({"x": ["n"]}, {"n": (1, 2, 3)}, "takes one size or one range"),
        ({"x": ["n"]}, {"x": ("m",)}, r"'n' was given as 'm', which has no size; expected a number or a range"),
    ],
)
def test_refuses(inputs, shapes, message):
    with pytest.raises(ModelError, match=message):
        bind_shapes(inputs, shapes)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("batch=4", "shapes='batch=4' was given; expected a mapping"),
        ({"batch": "4"}, "'batch' was given '4'; expected a size as 4, a range"),
        ({"x": (1, 2.5)}, "'x' was given 2.5; expected a size"),
        ({"x": ((1, "n"), 4)}, r"'x' was given \(1, 'n'\); expected"),
        ({"x": ((1, 2, 3),)}, r"'x' was given \(1, 2, 3\); expected"),
        ({"n": None}, "'n' was given None"),
    ],
)
def test_shapes_of_another_form_are_refused(shapes, message):
    with pytest.raises(ModelError, match=message):
        check_form(shapes)


def test_the_form_of_shapes():
    check_form(None)
    check_form({"x": (1, (1, 8), "n"), "batch": 4, "sequence": (1, 128), "m": "n", "scalar": ()})
