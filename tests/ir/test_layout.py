"""Layouts store any tensor and give back every bit of it."""

import doctest
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.bounds import logical_extent
from sparsec.ir.layout import Digit, Layout
from sparsec.ir.levels import Compressed, Dense
from sparsec.ir.named import COO, CSR, bsr
from sparsec.ir.notation import parse_layout
from tests.ir.layout_strategies import choosy_layouts, given_tensors, layouts, stored
from tests.ir.named_layouts import CSC, DENSE, bucketed, csr_kblocked, row_vectors

NAMED = {
    "dense": DENSE,
    "csr": CSR,
    "csc": CSC,
    "coo": COO,
    "bsr": bsr(4, 2),
    "row_vectors": row_vectors(4),
    "csr_kblocked": csr_kblocked(8),
    "bucketed": bucketed(8),
}
SHAPES = [(1, 1), (1, 17), (17, 1), (7, 13), (12, 16)]

layouts_and_tensors = stored() | given_tensors(layouts())


def bits(array):
    return array.view(f"uint{array.itemsize * 8}")


def without_negative_zeros(array):
    return np.where(array == 0, array.dtype.type(0), array)


def random_tensor(shape, density, seed=0):
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < density, random.standard_normal(shape), 0).astype(np.float32)


@settings(max_examples=300, deadline=None)
@given(layouts_and_tensors)
def test_unpacking_returns_every_bit(case):
    layout, array = case
    unpacked = layout.pack(array).unpack()
    assert unpacked.dtype == array.dtype
    np.testing.assert_array_equal(bits(unpacked), bits(without_negative_zeros(array)))


@settings(max_examples=200, deadline=None)
@given(layouts_and_tensors, st.sampled_from((8, 16, 32, 64)))
def test_predicted_bytes_are_the_allocated_bytes(case, min_index_bits):
    layout, array = case
    stored = layout.pack(array, min_index_bits)
    assert layout.nbytes(array != 0, array.dtype, min_index_bits) == stored.nbytes
    assert layout.index_types(array.shape, min_index_bits) == {
        name: values.dtype for name, values in stored.arrays.items() if name != "data"
    }


@settings(max_examples=200, deadline=None)
@given(layouts_and_tensors)
def test_index_types_hold_what_is_stored(case):
    """The narrow arrays are equal to those of 64 bits, so that nothing wrapped around."""
    layout, array = case
    narrow, wide = layout.pack(array).arrays, layout.pack(array, min_index_bits=64).arrays
    for name in layout.index_types(array.shape):
        np.testing.assert_array_equal(narrow[name], wide[name])


@settings(max_examples=200, deadline=None)
@given(layouts_and_tensors)
def test_iteration_visits_each_nonzero_once(case):
    layout, array = case
    stored = layout.pack(array)
    coordinates, position = stored.entries()
    places = np.ravel_multi_index(coordinates, array.shape)
    assert len(np.unique(places)) == len(places)
    assert len(np.unique(position)) == len(position)
    assert set(np.flatnonzero(array)) <= set(places.tolist())
    np.testing.assert_array_equal(
        bits(stored.arrays["data"][position]), bits(without_negative_zeros(array.ravel()[places]))
    )


@settings(max_examples=200, deadline=None)
@given(stored())
def test_slots_and_padding_stay_within_what_bounds_expect(case):
    layout, array = case
    coordinates, _ = layout.pack(array)._walk(len(layout.levels))
    layout = replace(layout, orders=())  # which permute the coordinates inside the tensor only
    for dim, visited in zip(layout.dims, layout.logical(coordinates, load=dict.get), strict=True):
        assert visited.max(initial=0) < logical_extent(layout, array.shape, dim)


@pytest.mark.parametrize(
    ("levels", "extent"),
    [
        ("k floordiv 4 : dense, k mod 4 : structured[2]", 10),
        ("k floordiv 4 : dense, k mod 4 : dense", 12),
        ("k floordiv 8 : dense, k floordiv 4 mod 2 : dense, k mod 4 : structured[2]", 13),
        ("k floordiv 8 : dense, k floordiv 4 mod 2 : compressed, k mod 4 : structured[2]", 10),
        ("k floordiv 8 : structured[1], k floordiv 4 mod 2 : dense, k mod 4 : structured[2]", 13),
        ("k floordiv 4 : structured[2], k mod 4 : compressed", 10),
    ],
)
def test_bounds_know_which_slots_are_padding(levels, extent):
    assert logical_extent(parse_layout(f"(k) -> ({levels})"), (10,), "k") == extent


@settings(max_examples=200, deadline=None)
@given(given_tensors(choosy_layouts()))
def test_what_is_refused_does_not_pack_and_what_is_held_does(case):
    layout, array = case
    held = layout.holds(array)
    assert not np.any(held & (array == 0))
    assert layout.refusal(held) is None
    layout.pack(np.where(held, array, 0))
    refusal = layout.refusal(array)
    assert (refusal is None) == np.array_equal(held, array != 0)
    if refusal:
        assert "\n" not in refusal
        for store in (layout.pack, lambda array: layout.nbytes(array, np.int8)):
            with pytest.raises(LayoutError, match=re.escape(refusal)):
                store(array)


@settings(max_examples=100, deadline=None)
@given(stored(most_dims=2))
def test_nested_iteration_agrees_with_iteration_at_once(case):
    layout, array = case
    stored = layout.pack(array)
    inner = np.prod(layout.sizes(array.shape)[layout.leaf :], dtype=int)
    used = (stored.arrays["data"].reshape(-1, inner, layout.together) != 0).any(axis=1)  # [runs, places]

    def walk(depth, coordinates, lane, *parent):
        for cursor in stored.children(depth, *parent):
            place = lane if cursor.lane is None else cursor.lane
            if depth + 1 < len(layout.levels):
                yield from walk(depth + 1, [*coordinates, cursor.coordinate], place, cursor)
            else:
                logical = layout.logical([*coordinates, cursor.coordinate], stored.load)
                inside = all(coordinate < extent for coordinate, extent in zip(logical, array.shape, strict=True))
                if inside and used[cursor.position // inner, place]:
                    yield *map(int, logical), cursor.position * layout.together + place

    coordinates, position = stored.entries()
    assert list(walk(0, [], 0)) == list(zip(*(axis.tolist() for axis in (*coordinates, position)), strict=True))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0, 0.2, 1])
def test_named_layouts_hold_every_shape(name, shape, density):
    array = random_tensor(shape, density)
    np.testing.assert_array_equal(NAMED[name].pack(array).unpack(), array)


def test_sparse_layouts_store_only_nonzeros():
    array = random_tensor((24, 40), 0.1)
    for layout in (CSR, CSC, COO, csr_kblocked(8), bucketed(8)):
        assert layout.pack(array).arrays["data"].size == np.count_nonzero(array)


def test_blocks_are_stored_whole_and_padded():
    array = np.zeros((5, 4), dtype=np.float32)
    array[4, 1] = 3
    stored = bsr(2, 2).pack(array)
    assert stored.arrays["level1.indptr"].tolist() == [0, 0, 0, 1]
    assert stored.arrays["level1.indices"].tolist() == [0]
    assert stored.arrays["data"].tolist() == [0, 3, 0, 0]
    coordinates, position = stored.entries()
    assert [axis.tolist() for axis in coordinates] == [[4, 4], [0, 1]]  # row 5 is padding
    assert position.tolist() == [0, 1]


def test_coo_repeats_rows():
    arrays = COO.pack(np.array([[0, 5, 0], [7, 0, 8]], dtype=np.int8)).arrays
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "level0.indptr": [0, 3],
        "level0.indices": [0, 1, 1],
        "level1.indices": [1, 0, 2],
        "data": [5, 7, 8],
    }


def test_negative_zero_is_a_zero_and_nan_is_not():
    array = np.array([[-0.0, np.nan], [np.inf, 0.0]], dtype=np.float32)
    assert CSR.pack(array).arrays["data"].size == 2
    for layout in (CSR, DENSE, bsr(2, 2)):
        assert not np.signbit(layout.pack(array).unpack()[0, 0])


def test_index_widths_follow_the_shape_and_not_the_zeros():
    types = bucketed(96).index_types((3072, 768))
    assert {name: dtype.itemsize * 8 for name, dtype in types.items()} == {
        "level1.coords": 16,
        "level1.bucket_ptr": 16,
        "level1.row_ptr": 16,
        "level1.lengths": 8,
        "level1.start": 32,
        "level2.indices": 8,
    }
    assert CSR.index_types((3, 256))["level1.indices"] == np.uint8
    assert CSR.index_types((3, 257))["level1.indices"] == np.uint16
    assert CSR.index_types((3, 85))["level1.indptr"] == np.uint8
    assert CSR.index_types((4, 64))["level1.indptr"] == np.uint16  # 256 entries do not fit a byte


def test_convolution_weights_keep_their_four_dims():
    levels = "o floordiv 4 : dense, r : dense, s : dense, c : compressed, o mod 4 : dense"
    layout = parse_layout(f"(o, c, r, s) -> ({levels})")
    array = random_tensor((6, 5, 3, 3), 0.2)
    np.testing.assert_array_equal(layout.pack(array).unpack(), array)


def test_fortran_and_strided_arrays_are_read_by_coordinate():
    array = random_tensor((12, 10), 0.4)
    np.testing.assert_array_equal(CSR.pack(np.asfortranarray(array)).unpack(), array)
    np.testing.assert_array_equal(CSR.pack(array[::2, ::-1]).unpack(), array[::2, ::-1])


def test_layouts_are_values():
    assert parse_layout(str(CSR)) == CSR and len({CSR, parse_layout(str(CSR)), CSC}) == 2


DENSE_I = (Digit("i"), Dense())


@pytest.mark.parametrize(
    ("dims", "levels", "message"),
    [
        (("i", "i"), (DENSE_I,), "must name each logical dimension once"),
        ((), (), "must name each logical dimension once"),
        (("i",), (DENSE_I, (Digit("k"), Dense())), "uses k, which is not among its dimensions"),
        (("i", "k"), (DENSE_I,), "must hold every coordinate of k exactly once; write k, or a pair such as"),
        (("i",), (DENSE_I, DENSE_I), "must hold every coordinate of i exactly once"),
        (("i",), ((Digit("i", 1, 4), Dense()),), "must hold every coordinate of i exactly once"),
        (("i",), ((Digit("i", 4), Dense()), (Digit("i", 1, 2), Dense())), "must hold every coordinate of i exactly"),
        (("i",), ((Digit("i", 4), Dense()), (Digit("i", 1, 8), Dense())), "must hold every coordinate of i exactly"),
        (("i",), ((Digit("i"), Dense()), (Digit("i", 1, 1), Dense())), "must hold every coordinate of i exactly once"),
        (("i",), ((Digit("i"), Compressed(nonunique=True)),), r"level 0 \(i : compressed\(nonunique\)\) must be foll"),
    ],
)
def test_unsound_layouts_are_refused(dims, levels, message):
    with pytest.raises(LayoutError, match=message):
        Layout(dims, levels)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3,), r"cannot hold shape \(3,\); it has 2 dims"),
        ((2, 3, 4), r"cannot hold shape \(2, 3, 4\); it has 2 dims"),
        ((0, 3), r"cannot hold shape \(0, 3\), which has no elements"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(LayoutError, match=message):
        CSR.pack(np.zeros(shape))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ("i : dense, k : diagonal", r"as large as the dense level above, but has 6 .* 4 in shape \(4, 6\)\."),
        ("i : dense, k : vnm[1, 2, 3]", r"among 3 positions of the level above, which do not divide its 4 in shape"),
    ],
)
def test_levels_refuse_shapes_that_they_cannot_hold(levels, message):
    layout = parse_layout(f"(i, k) -> ({levels})")
    with pytest.raises(LayoutError, match=message):
        layout.pack(np.zeros((4, 6)))
    assert re.search(message.removesuffix(r"\."), layout.refusal(np.zeros((4, 6))))


def test_documentation():
    results = doctest.testfile(str(Path(__file__).parents[2] / "docs" / "layouts.md"), module_relative=False)
    assert results.attempted and not results.failed
