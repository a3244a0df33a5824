"""Products of few bits are exact, for all encodings of both sides, over all layouts of the words that rows can have."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import LayoutError
from sparsec.ir.bit_planes import BINARY, BitPlanes, Encoding, build_bit_planes, pack_words, unpack_words, words
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Kernel
from sparsec.ir.low_bit import LowBitProduct, build_low_bit, differ
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.schedules.rules.low_bit import lay_out_words, schedule_bit_planes, schedule_low_bit
from sparsec.schedules.steps import Tile
from sparsec.schedules.trace import Scheduled
from sparsec.targets import Target
from tests.ir.libraries import Library
from tests.ir.product_cases import NATIVE, Compiled
from tests.schedules.assembly import assembly, hottest, spills

NAMES = ("binary", *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (1, 2, 3, 4)))
PAIRS = tuple(product(NAMES, NAMES))


def numbers(encoding: Encoding, *shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers of an encoding, its least and greatest ones among them."""
    given = np.arange(encoding.low, encoding.high + 1, abs(encoding.weights[0]))
    found = np.random.default_rng([seed, *shape]).choice(given, shape)
    found.flat[:2] = encoding.low
    found.flat[-2:] = encoding.high
    return found


class Case:
    """A product, what it meets, and what it comes to."""

    def __init__(
        self,
        encodings: tuple[Encoding, Encoding],
        shape: tuple[int, int, int],
        layout: str = "",
        batch: int = 1,
        weight: np.ndarray | None = None,
        name: str = "low_bit",
    ) -> None:
        left, right = encodings
        rows, depth, columns = shape
        self.weight = numbers(left, rows, depth) if weight is None else weight
        self.x = numbers(right, batch, depth, columns, seed=1).astype("uint8" if right.low >= 0 else "int8")
        self.expected = self.weight @ self.x.astype(int)
        self.words = pack_words(self.weight, left)
        self.constants = {"W": self.words}
        offset = total = None
        if not differ(left, right) and right.zero:
            offset = Buffer("offset", "int32", (rows,))
            self.constants["offset"] = np.int32(right.zero * (self.weight.sum(axis=1) + depth * left.zero))
        if not differ(left, right) and left.zero:
            total = Buffer("total", "int32", (batch, columns))
        w = Buffer("W", "int32", self.words.shape)
        x = Buffer("X", str(self.x.dtype), self.x.shape)
        planes = Buffer("planes", "int32", (batch, right.bits, words(depth), columns))
        y = Buffer("Y", "int32", self.expected.shape)
        self.packing = BitPlanes(f"{name.split('_')[-1]}_pack{'_total' if total else ''}", x, planes, right, total)
        op = LowBitProduct(name, w, planes, y, left, right, depth, offset, total)
        self.op = op.stored_as(parse_layout(layout) if layout else lay_out_words(op, self.words, NATIVE))

    @property
    def kernels(self) -> tuple[Kernel, Kernel]:
        runs = Tile((16, 1)).tiling(self.op.y.shape[2], 1).columns
        return build_bit_planes(self.packing, runs), build_low_bit(self.op, runs)

    @property
    def scheduled(self) -> tuple[Scheduled, Scheduled]:
        return schedule_bit_planes(self.packing, NATIVE), schedule_low_bit(self.op, NATIVE)

    def interpreted(self) -> np.ndarray:
        packing, multiply = self.kernels
        for kernel in (packing, multiply):
            assert parse_kernel(str(kernel)) == kernel
        return interpret(multiply, self.constants | interpret(packing, {"X": self.x}))["Y"]

    def compiled(self, library: object = None) -> np.ndarray:
        run_packing, multiply = (Compiled(one.lowered, one.func, NATIVE, library) for one in self.scheduled)
        outputs: Mapping[str, tuple[int, ...]] = {
            buffer.name: tuple(map(int, buffer.shape)) for buffer in (self.packing.y, self.packing.total) if buffer
        }
        planes = run_packing({"X": self.x}, outputs)
        return multiply(self.constants | planes, {"Y": self.expected.shape})["Y"]


def pairs() -> Iterator[Case]:
    for left, right in PAIRS:
        yield Case((_encoding(left), _encoding(right)), (3, 75, 16), name=f"{left}_{right}")


@cache
def library() -> object:
    return Library([one.func for case in pairs() for one in case.scheduled], NATIVE)


def _encoding(name: str) -> Encoding:
    found = Encoding.parse(name)
    assert found is not None
    return found


# -- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", list(pairs()), ids=[" x ".join(pair) for pair in PAIRS])
def test_every_pair_of_encodings_is_exact(case):
    np.testing.assert_array_equal(case.interpreted(), case.expected)
    np.testing.assert_array_equal(case.compiled(library()), case.expected)


encodings = st.sampled_from(NAMES).map(_encoding) | st.builds(
    Encoding.unsigned, st.integers(1, 4), st.integers(-20, 20)
)
LAYOUTS = (
    "(i, k) -> (i : dense, k{word} : compressed{plane})",
    "(i, k) -> (i : dense, k{word} : dense{plane})",
    "(i, k) -> (i floordiv 3 : dense, k{word} : compressed, i mod 3 : dense{plane})",
    "(i, k) -> (i : dense, k{word} : bitmap{plane})",
)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_any_shape_layout_and_zero_points(data):
    left, right = (data.draw(encodings.filter(lambda one: one.low >= -128 and one.high <= 127)) for _ in range(2))
    shape = data.draw(
        st.tuples(st.integers(1, 9), st.sampled_from([1, 31, 32, 33, 96, 130]), st.sampled_from([1, 37, 128]))
    )
    form = data.draw(st.sampled_from(LAYOUTS if not differ(left, right) else LAYOUTS[1:2]))
    word, plane = (f" floordiv {left.bits}", f", k mod {left.bits} : dense") if left.bits > 1 else ("", "")
    case = Case((left, right), shape, form.format(word=word, plane=plane), data.draw(st.integers(1, 2)))
    np.testing.assert_array_equal(case.interpreted(), case.expected)
    np.testing.assert_array_equal(case.compiled(), case.expected)


def test_other_bits_than_those_of_the_encoding_are_passed_over():
    case = Case((_encoding("uint1"), _encoding("uint2")), (4, 40, 16))
    case.x = case.x + np.uint8(4) * numbers(_encoding("uint4"), *case.x.shape).astype(np.uint8)
    np.testing.assert_array_equal(case.compiled(), case.expected)


# -- layouts -------------------------------------------------------------------------------------------------------


def test_words_of_zeros_are_not_stored_where_they_are_many():
    few = np.zeros((8, 640), np.int64)
    few[:, 64:96] = 1
    pair = (_encoding("uint1"), _encoding("uint2"))
    case = Case(pair, (8, 640, 128), weight=few)
    assert "compressed" in str(case.op.layout)
    np.testing.assert_array_equal(case.compiled(), case.expected)
    assert "compressed" not in str(Case(pair, (8, 640, 128)).op.layout)


@pytest.mark.parametrize(
    ("names", "layout", "message"),
    [
        (("uint2", "uint2"), "(i, k) -> (i : dense, k : dense)", r"takes them apart; end it in `k mod 2 : dense`"),
        (("uint1", "uint2"), "(i, k) -> (k : dense, i : compressed)", "walk the rows before the words"),
        (("binary", "binary"), "(i, k) -> (i : dense, k : compressed)", "which leaves some out; make it dense"),
    ],
)
def test_layouts_that_do_not_fit(names, layout, message):
    case = Case((_encoding(names[0]), _encoding(names[1])), (4, 40, 16), layout)
    with pytest.raises(LayoutError, match=message):
        case.kernels  # noqa: B018


# -- encodings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_encodings_hold_their_numbers(name):
    encoding = _encoding(name)
    given = np.arange(encoding.low, encoding.high + 1, abs(encoding.weights[0]))
    assert len(given) == 2**encoding.bits and encoding.holds(given)
    assert str(encoding) == name
    assert Encoding.covering(encoding.low, encoding.high, abs(encoding.weights[0])) == encoding
    bits = encoding.codes(given)[:, None] >> np.arange(encoding.bits) & 1
    np.testing.assert_array_equal(bits @ np.array(encoding.weights) - encoding.zero, given)
    assert not encoding.holds(given + 1) and not encoding.holds(given - 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 31, 32, 75])
def test_words_hold_their_numbers(name, depth):
    matrix = numbers(_encoding(name), 3, depth)
    packed = pack_words(matrix, _encoding(name))
    assert packed.shape == (3, words(depth) * _encoding(name).bits)
    np.testing.assert_array_equal(unpack_words(packed, _encoding(name), depth), matrix)


@pytest.mark.parametrize(
    ("numbers_", "name"),
    [
        ((-1, 1, 2), "binary"),
        ((-1, 1, 1), "int2"),
        ((0, 0, 1), "uint1"),
        ((0, 5, 1), "uint3"),
        ((-8, 7, 1), "int4"),
        ((-3, 3, 6), "1 bits"),
        ((5, 6, 1), "1 bits"),
        ((0, 16, 1), "None"),
        ((-9, 7, 1), "None"),
    ],
)
def test_the_encoding_of_the_fewest_bits(numbers_, name):
    found = Encoding.covering(*numbers_)
    assert str(found) == name
    assert found is None or (found.low <= numbers_[0] and numbers_[1] <= found.high)


def test_encodings_without_a_name():
    assert _encoding("binary") == BINARY
    assert [Encoding.parse(name) for name in ("uint0", "int5", "uint12", "float", "")] == [None] * 5


# -- machine code --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("uint1", "uint2"), ("binary", "binary"), ("uint2", "uint2"), ("int4", "uint4")])
def test_the_inner_loop_is_three_operations_a_step(names):
    target = Target.parse("znver5")
    left, right = map(_encoding, names)
    case = Case((left, right), (24, 768, 128))
    op = case.op.stored_as(lay_out_words(case.op, case.words, target))
    loop = hottest(assembly(schedule_low_bit(op, target).func, target), "vpopcntd")
    counted = [
        sum(loop.count(f"\t{name}") for name in group)
        for group in (("vpopcntd",), ("vpand", "vpxor"), ("vpaddd", "vpsubd"))
    ]
    assert counted[0] and counted == [counted[0]] * 3, loop
    assert spills(loop) == []
