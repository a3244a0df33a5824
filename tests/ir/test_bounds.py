"""Bounds of indices hold, and are met where they are said to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.bounds import Index, attained, bounds, depends, logical_extent
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Assign, Buffer, Const, For, Kernel, Load, Op, Range, Var
from sparsec.ir.levels import ROOT
from sparsec.ir.notation import parse_layout
from tests.ir.layout_strategies import layouts

RANGES = {"a": (-3, 4), "b": (0, 2), "c": (5, 5)}


def lookup(variable):
    return Index(RANGES[variable.name], frozenset({variable.name}))


expressions = st.recursive(
    st.integers(-5, 5).map(Const) | st.sampled_from(sorted(RANGES)).map(Var),
    lambda inner: (
        st.builds(Op, st.sampled_from(["+", "-", "*"]), st.tuples(inner, inner))
        | st.builds(Op, st.sampled_from(["//", "%"]), st.tuples(inner, st.integers(1, 5).map(Const)))
    ),
    max_leaves=6,
)


def values(expression):
    """Every value of an expression, by running it."""
    loops = tuple(Range(name, Const(low), Const(high + 1)) for name, (low, high) in RANGES.items())
    place = tuple(Var(name) - low for name, (low, _) in RANGES.items())
    shape = tuple(high - low + 1 for low, high in RANGES.values())
    body = For(loops, (Assign(Load("Y", place), expression),))
    return interpret(Kernel("f", (), (Buffer("Y", "int64", shape),), (body,)), {})["Y"]


@settings(deadline=None)
@given(expressions)
def test_bounds_hold_and_are_met_where_they_are_said_to_be(expression):
    found = values(expression)
    low, high = bounds(expression, lookup)
    assert low <= found.min()
    assert found.max() <= high
    if attained(expression, lookup):
        assert (low, high) == (found.min(), found.max())


def test_bounds_are_not_known_of_loads_and_symbols():
    unknown = Index(None)
    assert bounds(Var("n") + 1, lambda _: unknown) is None
    assert bounds(Load("X", (Const(0),)), lookup) is None
    assert bounds(Var("a") // Var("b"), lookup) is None


def test_a_variable_that_counts_twice_may_not_meet_the_bounds():
    assert attained(Var("a") * 4 + Var("b"), lookup)
    assert not attained(Var("a") - Var("a"), lookup)
    assert not attained(Var("a") % 2, lookup)
    assert depends(Var("a") * 4 + Var("b"), lookup) == {"a", "b"}


@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        ("(i) -> (i : dense)", 10),
        ("(i) -> (i floordiv 4 : dense, i mod 4 : dense)", 12),
        ("(i) -> (i floordiv 4 : compressed, i mod 4 : dense)", 12),
        ("(i) -> (i mod 4 : dense, i floordiv 4 : compressed)", 10),
        ("(i) -> (i floordiv 4 : dense, i mod 4 : compressed)", 10),
        ("(i) -> (i floordiv 8 : dense, i floordiv 4 mod 2 : compressed, i mod 4 : dense)", 12),
        ("(i) -> (i floordiv 8 : dense, i floordiv 4 mod 2 : dense, i mod 4 : compressed)", 10),
        ("(i) -> (i floordiv 8 : dense, i floordiv 4 mod 2 : dense, i mod 4 : dense)", 16),
        ("(i) -> (i mod 4 : compressed, i floordiv 4 : dense)", 12),
    ],
)
def test_walks_visit_padding_only_where_dense_levels_complete_a_block(notation, expected):
    assert logical_extent(parse_layout(notation), (10,), "i") == expected


def walk(packed, parent=ROOT, coordinates=()):
    """Yield the coordinates in all levels at every position."""
    depth = len(coordinates)
    if depth == len(packed.layout.levels):
        yield coordinates
        return
    for cursor in packed.children(depth, parent):
        yield from walk(packed, cursor, (*coordinates, cursor.coordinate))


@settings(deadline=None)
@given(layouts(1), st.integers(1, 13))
def test_walks_over_full_and_diagonal_tensors_stay_below_the_logical_extent(layout, size):
    visited = set()
    for nonzero in [slice(None), *range(size)]:
        array = np.zeros(size, dtype=np.float32)
        array[nonzero] = 1
        packed = layout.pack(array)
        for coordinates in walk(packed):
            (place,) = layout.logical(coordinates, packed.load)
            visited.add(int(place))
    assert max(visited) + 1 == logical_extent(layout, (size,), "i")
