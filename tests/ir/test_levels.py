"""Each level says which loops walk it, and keeps its arrays as documented."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.ir.levels import (
    Axis,
    Bit,
    Bitmap,
    Bucketed,
    Compressed,
    Cursor,
    Dense,
    Diagonal,
    Pattern,
    Singleton,
    Slots,
    Structured,
    Taps,
    Vnm,
)
from sparsec.ir.named import fkw
from sparsec.ir.notation import parse_layout
from tests.ir.layout_strategies import tensors
from tests.ir.named_layouts import bucketed


class Symbol(str):
    """A number that is not known yet, as lowering has it: a level may only do arithmetic and load."""

    def __add__(self, other):
        return Symbol(f"({self} + {other})")

    def __radd__(self, other):
        return Symbol(f"({other} + {self})")

    def __sub__(self, other):
        return Symbol(f"({self} - {other})")

    def __mul__(self, other):
        return Symbol(f"{self} * {other}")

    __rmul__ = __mul__

    def __floordiv__(self, other):
        return Symbol(f"{self} // {other}")

    def __mod__(self, other):
        return Symbol(f"({self} % {other})")


def loops(level, axis, parent):
    """Print the loops of a level, and the cursor that its last line leaves."""
    lines = []
    visit = level.visit(axis, parent, lambda name, index: Symbol(f"{name}[{index}]"))
    try:
        loop = next(visit)
        while True:
            index = "abc"[len(lines)]
            lines.append(f"{loop.kind} {index} in {loop.extent}")
            bit = Bit(Symbol(index), Symbol(f"place of {index}"))
            loop = visit.send(bit if loop.kind == "bits" else Symbol(index))
    except StopIteration as end:
        return lines, end.value


ROW = Cursor(Symbol("p"), Symbol("i"))
SHAPE = Cursor(Symbol("p"), Symbol("i"), (Symbol("s"), 2))


@pytest.mark.parametrize(
    ("level", "parent", "lines", "cursor"),
    [
        (Dense(), ROW, ["dense a in 6"], Cursor("(p * 6 + a)", "a")),
        (
            Compressed(),
            ROW,
            ["sparse a in (indptr[(p + 1)] - indptr[p])"],
            Cursor("(indptr[p] + a)", "indices[(indptr[p] + a)]"),
        ),
        (
            Compressed(),
            Cursor(Symbol("p"), Symbol("i"), (Symbol("s"), Symbol("n"))),
            ["sparse a in n"],
            Cursor("(s + a)", "indices[(s + a)]"),
        ),
        (
            Compressed(4),
            ROW,
            ["sparse a in (indptr[(p + 1)] - indptr[p])", "dense b in 4"],
            Cursor("(indptr[p] + a)", "indices[((indptr[p] + a) * 4 + b)]", lane="b"),
        ),
        (Singleton(), ROW, [], Cursor("p", "indices[p]")),
        (
            Slots(),
            ROW,
            ["dense a in 6", "sparse b in (slot_ptr[((p * 6 + a) + 1)] - slot_ptr[(p * 6 + a)])"],
            Cursor("(slot_ptr[(p * 6 + a)] + b)", "a"),
        ),
        (
            Bucketed(),
            ROW,
            [
                "bucket a in (bucket_ptr[(p + 1)] - bucket_ptr[p])",
                "row b in (row_ptr[((bucket_ptr[p] + a) + 1)] - row_ptr[(bucket_ptr[p] + a)])",
            ],
            Cursor(
                "(row_ptr[(bucket_ptr[p] + a)] + b)",
                "coords[(row_ptr[(bucket_ptr[p] + a)] + b)]",
                (
                    "(start[(bucket_ptr[p] + a)] + b * lengths[(bucket_ptr[p] + a)])",
                    "lengths[(bucket_ptr[p] + a)]",
                ),
            ),
        ),
        (Structured(2, 6), ROW, ["dense a in 2"], Cursor("(p * 2 + a)", "indices[(p * 2 + a)]")),
        (Bitmap(), ROW, ["bits a in words[p]"], Cursor("(rank[p] + a)", "(0 + place of a)")),
        (
            Pattern(2, 5),
            ROW,
            ["dense a in 5", "sparse b in (stride[((p * 5 + a) + 1)] - stride[(p * 5 + a)])"],
            Cursor("(stride[(p * 5 + a)] + b)", "indices[(stride[(p * 5 + a)] + b)]", ("a * 2", 2)),
        ),
        (Taps(), SHAPE, ["dense a in 2"], Cursor("(p * 2 + a)", "taps[(s + a)]")),
        (Diagonal(), ROW, [], Cursor("p", "((i + shift[p // 6]) % 6)")),
        (
            Vnm(2, 4, 8),
            ROW,
            ["dense a in 2"],
            Cursor("(p * 2 + a)", "columns[(p // 8 * 4 + indices[(p * 2 + a)])]"),
        ),
    ],
    ids=str,
)
def test_loops_over_symbols(level, parent, lines, cursor):
    assert loops(level, Axis(6, 4, 24, child=3), parent) == (lines, cursor)


def test_a_long_bitmap_is_several_words():
    lines, cursor = loops(Bitmap(), Axis(65, 4, 260), ROW)
    assert lines == ["dense a in 2", "bits b in words[(p * 2 + a)]"]
    assert cursor == Cursor("(rank[(p * 2 + a)] + b)", "(a * 64 + place of b)")


def test_compressed_has_no_indptr_where_the_bounds_are_known():
    assert list(Compressed().arrays(Axis(6, 4, 24, above=Bucketed()))) == ["indices"]


def test_bucketed_arrays():
    array = np.array([[0, 1, 2], [0, 0, 0], [3, 0, 0], [4, 0, 5], [0, 6, 0]], dtype=np.int8)
    arrays = parse_layout("(i, k) -> (i : bucketed, k : compressed)").pack(array).arrays
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "level0.coords": [1, 2, 4, 0, 3],
        "level0.bucket_ptr": [0, 3],
        "level0.row_ptr": [0, 1, 3, 5],
        "level0.lengths": [0, 1, 2],
        "level0.start": [0, 0, 2],
        "level1.indices": [0, 1, 1, 2, 0, 2],
        "data": [3, 6, 1, 2, 4, 5],
    }


def test_runs_are_filled_up_with_their_last_coordinate():
    array = np.array([[1, 2, 3, 0, 4], [0, 0, 0, 0, 0], [0, 0, 5, 0, 0]], dtype=np.int8)
    stored = parse_layout("(i, k) -> (i : dense, k : compressed[2])").pack(array)
    assert {name: values.tolist() for name, values in stored.arrays.items()} == {
        "level1.indptr": [0, 2, 2, 3],
        "level1.indices": [0, 1, 2, 4, 2, 2],
        "data": [1, 2, 3, 4, 5, 0],
    }
    coordinates, position = stored.entries()
    assert [axis.tolist() for axis in coordinates] == [[0, 0, 0, 0, 2], [0, 1, 2, 4, 2]]
    assert position.tolist() == [0, 1, 2, 3, 4]


def test_the_values_of_a_run_stand_side_by_side_for_each_row_of_a_block():
    array = np.array([[0, 5, 0, 1], [7, 0, 8, 2]], dtype=np.int8)
    stored = parse_layout("(i, k) -> (i floordiv 2 : dense, k : compressed[3], i mod 2 : dense)").pack(array)
    assert {name: values.tolist() for name, values in stored.arrays.items()} == {
        "level1.indptr": [0, 2],
        "level1.indices": [0, 1, 2, 3, 3, 3],
        "data": [0, 5, 0, 7, 0, 8, 1, 0, 0, 2, 0, 0],
    }
    coordinates, position = stored.entries()
    np.testing.assert_array_equal(stored.arrays["data"][position], array[coordinates])


def test_buckets_are_of_as_many_runs():
    array = np.array([[1, 2, 3, 4], [5, 0, 0, 0], [0, 0, 0, 0], [0, 6, 7, 0]], dtype=np.int8)
    arrays = parse_layout("(i, k) -> (i : bucketed, k : compressed[2])").pack(array).arrays
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "level0.coords": [2, 1, 3, 0],
        "level0.bucket_ptr": [0, 3],
        "level0.row_ptr": [0, 1, 3, 4],
        "level0.lengths": [0, 1, 2],
        "level0.start": [0, 0, 2],
        "level1.indices": [0, 0, 1, 2, 0, 1, 2, 3],
        "data": [5, 0, 6, 7, 1, 2, 3, 4],
    }


def test_structured_slots_without_an_entry_repeat_the_last_coordinate():
    array = np.array([[0, 5, 0, 0, 0], [7, 0, 8, 0, 0], [0, 0, 0, 0, 0]], dtype=np.int8)
    stored = parse_layout("(i, k) -> (i : dense, k floordiv 4 : dense, k mod 4 : structured[2])").pack(array)
    assert {name: values.tolist() for name, values in stored.arrays.items()} == {
        "level2.indices": [1, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0],
        "data": [5, 0, 0, 0, 7, 8, 0, 0, 0, 0, 0, 0],
    }
    coordinates, position = stored.entries()
    assert [axis.tolist() for axis in coordinates] == [[0, 1, 1], [1, 0, 2]]
    assert position.tolist() == [0, 4, 5]


@pytest.mark.parametrize(("extent", "bits"), [(1, 8), (8, 8), (9, 16), (17, 32), (33, 64), (64, 64), (65, 64)])
def test_bitmap_words_are_as_wide_as_the_digit(extent, bits):
    array = np.zeros((3, extent), dtype=np.int8)
    array[1] = 1
    array[2, -1] = 2
    stored = parse_layout("(i, k) -> (i : dense, k : bitmap)").pack(array)
    words = stored.arrays["level1.words"]
    assert words.dtype.itemsize * 8 == bits and len(words) == 3 * -(-extent // 64)
    assert sum(int(word).bit_count() for word in words) == extent + 1
    np.testing.assert_array_equal(stored.unpack(), array)


def test_rank_counts_the_bits_of_the_words_before():
    array = np.array([[0, 5, 6], [0, 0, 0], [7, 0, 8]], dtype=np.int8)
    arrays = parse_layout("(i, k) -> (i : dense, k : bitmap)").pack(array).arrays
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "level1.words": [0b110, 0b000, 0b101],
        "level1.rank": [0, 2, 2],
        "data": [5, 6, 7, 8],
    }


def test_kernels_of_a_pattern_are_sorted_by_shape():
    array = np.array([[1, 2, 0, 0, 3, 4, 5, 6, 0], [0, 0, 0, 0, 7, 0, 0, 0, 0]], dtype=np.int8)
    arrays = parse_layout("(i, k) -> (i : dense, k floordiv 3 : pattern[2, 2], k mod 3 : taps)").pack(array).arrays
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "level1.stride": [0, 2, 3, 4, 4],
        "level1.indices": [0, 2, 1, 1],
        "level2.taps": [0, 1, 1, 2],
        "data": [1, 2, 5, 6, 3, 4, 0, 7],
    }


def test_the_shapes_of_a_pattern_are_found_where_kernels_were_pruned_to_them():
    random = np.random.default_rng(0)
    shapes = np.unique(np.sort(random.permuted(np.tile(np.arange(9), (40, 1)), axis=1)[:, :4]), axis=0)[:8]
    mask = np.zeros((64, 32, 9), dtype=bool)
    chosen = shapes[random.integers(0, 8, (64, 32))]
    np.put_along_axis(mask, chosen, random.random((64, 32, 1)) < 0.3, axis=2)  # a third of the kernels
    kernels = mask.reshape(64, -1)
    assert fkw().refusal(kernels) is None
    assert fkw().pack(kernels).arrays["data"].size == mask.sum()
    mask[0, 0] = np.arange(9) < 5
    assert fkw().refusal(kernels).startswith("pattern[4, 8] holds 4 taps of each kernel, in one of 8 shapes, and at i")


def test_a_diagonal_has_one_shift_a_block():
    array = np.zeros((4, 6), dtype=np.int8)
    array[[0, 1, 2, 3], [1, 0, 4, 5]] = [1, 2, 3, 4]
    levels = "i floordiv 2 : dense, k floordiv 2 : dense, i mod 2 : dense, k mod 2 : diagonal"
    arrays = parse_layout(f"(i, k) -> ({levels})").pack(array).arrays
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "level3.shift": [1, 0, 0, 0, 0, 0],
        "data": [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4],
    }


def test_fibers_of_a_vnm_level_share_their_columns():
    array = np.array([[0, 5, 0, 0, 0, 6], [0, 0, 0, 7, 0, 8], [0, 0, 0, 0, 0, 0], [0, 0, 9, 0, 0, 0]], dtype=np.int8)
    levels = "i floordiv 2 : dense, k floordiv 6 : dense, i mod 2 : dense, k mod 6 : vnm[2, 3, 2]"
    layout = parse_layout(f"(i, k) -> ({levels})")
    assert {name: values.tolist() for name, values in layout.pack(array).arrays.items()} == {
        "level3.columns": [1, 3, 5, 2, 2, 2],
        "level3.indices": [0, 2, 1, 2, 0, 0, 0, 0],
        "data": [5, 6, 7, 8, 0, 0, 9, 0],
    }
    array[1, 0] = 9
    assert layout.refusal(array) is not None


SLOTS = {  # each over a depth of 13, of which the last block is ragged
    "structured": "(i, k) -> (i : dense, k floordiv 4 : dense, k mod 4 : structured[3])",
    "over blocks": "(i, k) -> (i : dense, k floordiv 2 : structured[3], k mod 2 : compressed)",
    "ellpack": "(i, k) -> (i : dense, k : structured[20])",
    "vnm": "(i, k) -> (i floordiv 2 : dense, k floordiv 4 : dense, i mod 2 : dense, k mod 4 : vnm[2, 3, 2])",
}


@pytest.mark.parametrize("text", SLOTS.values(), ids=SLOTS)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_slots_without_an_entry_lead_inside_the_tensor(text, density):
    layout = parse_layout(text)
    array = (np.random.default_rng(0).random((4, 13)) < density).astype(np.int8)
    stored = layout.pack(array * layout.holds(array))
    coordinates, _ = stored._walk(len(layout.levels))
    rows, depths = layout.logical(coordinates, stored.load)
    assert rows.max(initial=0) < 4 and depths.max(initial=0) < 13


@settings(max_examples=100, deadline=None)
@given(tensors(2), st.integers(2, 7))
def test_buckets_hold_all_rows_by_length(array, kb):
    rows, blocks = array.shape[0], -(-array.shape[1] // kb)
    stored = bucketed(kb).pack(array, min_index_bits=64).arrays
    arrays = {name: stored[f"level1.{name}"].astype(int) for name in Bucketed().arrays(Axis(rows, blocks, 1))}
    mask = array != 0
    nonzeros = np.stack([mask[:, block * kb : (block + 1) * kb].sum(axis=1) for block in range(blocks)])
    for block in range(blocks):
        order = np.argsort(nonzeros[block], kind="stable")
        np.testing.assert_array_equal(arrays["coords"][block * rows : (block + 1) * rows], order)
        buckets = slice(arrays["bucket_ptr"][block], arrays["bucket_ptr"][block + 1])
        lengths, counts = np.unique(nonzeros[block], return_counts=True)
        np.testing.assert_array_equal(arrays["lengths"][buckets], lengths)
        np.testing.assert_array_equal(np.diff(arrays["row_ptr"])[buckets], counts)
    sizes = np.diff(arrays["row_ptr"]) * arrays["lengths"]
    np.testing.assert_array_equal(arrays["start"], np.cumsum(sizes) - sizes)
