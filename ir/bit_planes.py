"""Integers of few bits as bit planes, and the kernel that takes activations apart into them.

A plane holds one bit of every number, 32 of them along the depth in a word. A number is what its bits weigh, less a
zero point, so that one form covers unsigned numbers, two's complement, and the two numbers −1 and 1 of binary networks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sparsec.ir.builders import LANE, as_extent, lane_axis
from sparsec.ir.kernel import Assign, Buffer, Const, Expr, For, Kernel, Load, Range, Stmt, Tile, Var
from sparsec.ir.product import BATCH, COLUMN, Run

WORD = 32
HALF = 16
MAX_BITS = 4


@dataclass(frozen=True)
class Encoding:
    """Numbers `Σ weights[p] · bit_p − zero`.

    >>> Encoding.signed(2).codes(np.array([-2, -1, 0, 1])).tolist()
    [2, 3, 0, 1]
    >>> BINARY.codes(np.array([-1, 1])).tolist()
    [0, 1]

    Parameters
    ----------
    weights : what each bit counts, the lowest first: doubled from one to the next, the last one negated where the
        numbers are in two's complement
    zero : what is taken from the sum
    """

    weights: tuple[int, ...]
    zero: int = 0

    @classmethod
    def unsigned(cls, bits: int, zero: int = 0) -> Encoding:
        """Numbers from `-zero` on."""
        return cls(tuple(1 << bit for bit in range(bits)), zero)

    @classmethod
    def signed(cls, bits: int) -> Encoding:
        """Numbers in two's complement."""
        return cls((*(1 << bit for bit in range(bits - 1)), -(1 << (bits - 1))))

    @classmethod
    def parse(cls, name: str) -> Encoding | None:
        """Return the encoding of `binary`, or of `int` or `uint` and 1 to 4 bits; None where there is none.

        >>> Encoding.parse("uint2") == Encoding.unsigned(2)
        True
        """
        found = re.fullmatch(r"(u?)int([1-4])", name)
        if found is None:
            return BINARY if name == "binary" else None
        return (cls.unsigned if found[1] else cls.signed)(int(found[2]))

    @classmethod
    def covering(cls, low: int, high: int, step: int = 1) -> Encoding | None:
        """Return the encoding of the fewest bits, without a zero point if possible; None where 4 bits are too few.

        >>> Encoding.covering(-1, 1, 2) == BINARY
        True

        Parameters
        ----------
        low, high, step : the numbers are `low`, `low + step`, and so on to `high`
        """
        bits = max(1, ((high - low) // step).bit_length())
        shifted = cls(tuple(step << bit for bit in range(bits)), -low)
        plain = (cls.unsigned(n) if low >= 0 else cls.signed(n) for n in range(bits, MAX_BITS + 1))
        fitting = [one for one in (*plain, shifted) if one.bits <= MAX_BITS and one.low <= low and high <= one.high]
        return min(fitting, key=lambda one: one.bits, default=None)

    def __str__(self) -> str:
        """The name that `parse` reads, or how many bits there are."""
        names = ("binary", *(f"{kind}{self.bits}" for kind in ("uint", "int")))
        return next((name for name in names if Encoding.parse(name) == self), f"{self.bits} bits")

    @property
    def bits(self) -> int:
        return len(self.weights)

    @property
    def low(self) -> int:
        """The least number."""
        return sum(weight for weight in self.weights if weight < 0) - self.zero

    @property
    def high(self) -> int:
        """The greatest number."""
        return sum(weight for weight in self.weights if weight > 0) - self.zero

    def holds(self, values: np.ndarray) -> bool:
        """Whether all are numbers of this encoding."""
        step = abs(self.weights[0])
        return bool(((values >= self.low) & (values <= self.high) & ((values + self.zero) % step == 0)).all())

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return the bits of numbers, as the lowest ones of integers."""
        return (values + self.zero) // abs(self.weights[0]) & ((1 << self.bits) - 1)

    def code(self, value: Expr) -> Expr:
        """Return an expression whose lowest bits are those of a number."""
        value = value + self.zero if self.zero else value
        step = abs(self.weights[0])
        return value // step if step != 1 else value


BINARY = Encoding((2,), 1)
"""−1 and 1."""


def words(depth: int) -> int:
    """Return how many words hold a bit of each of `depth` numbers; those of the last one that are left are 0."""
    return -(-depth // WORD)


def pack_words(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Return numbers [rows, depth] as words of bits, int32 [rows, words · bits], the planes of a word side by side."""
    rows, depth = values.shape
    codes = np.zeros((rows, words(depth) * WORD), np.uint8)
    codes[:, :depth] = encoding.codes(values)
    planes = codes[..., None] >> np.arange(encoding.bits, dtype=np.uint8) & 1  # [rows, depth, bits]
    lanes = planes.reshape(rows, -1, WORD, encoding.bits).swapaxes(2, 3)
    packed = np.ascontiguousarray(np.packbits(lanes, axis=-1, bitorder="little"))
    return packed.view("<i4").astype(np.int32).reshape(rows, -1)


def unpack_words(packed: np.ndarray, encoding: Encoding, depth: int) -> np.ndarray:
    """Return the numbers [rows, depth] of which `pack_words` made int32 [rows, words · bits]."""
    rows = len(packed)
    octets = np.ascontiguousarray(packed, "<i4").view(np.uint8).reshape(rows, -1, encoding.bits, WORD // 8)
    planes = np.unpackbits(octets, axis=-1, bitorder="little").swapaxes(2, 3)  # [rows, words, WORD, bits]
    numbers = planes.astype(np.int64) @ np.array(encoding.weights) - encoding.zero
    return numbers.reshape(rows, -1)[:, :depth]


@dataclass(frozen=True)
class BitPlanes:
    """Activations taken apart into planes.

    Parameters
    ----------
    x : uint8 or int8 `[batch, depth, columns]`, numbers of the encoding
    y : int32 `[batch, bits, words, columns]`
    total : int32 `[batch, columns]`, the sums of each column's numbers; None where nobody wants them
    """

    name: str
    x: Buffer
    y: Buffer
    encoding: Encoding
    total: Buffer | None = None


def build_bit_planes(op: BitPlanes, columns: tuple[Run, ...]) -> Kernel:
    """Write the packing as a kernel, for runs of tiles along the columns."""
    depth = op.x.shape[1]
    assert isinstance(depth, int)
    full, rest = divmod(depth, WORD)
    body: list[Stmt] = []
    for run in columns:
        if full:
            body.append(_words(op, run, (0, full), WORD))
        if rest:
            body.append(_words(op, run, (full, full + 1), rest))
        if op.total is not None:
            body.append(_totals(op, run, op.total))
    outputs = (op.y,) if op.total is None else (op.y, op.total)
    return Kernel(op.name, (op.x,), outputs, tuple(body))


def _words(op: BitPlanes, columns: Run, places: tuple[int, int], count: int) -> Stmt:
    """Pack words that hold `count` numbers each, from the highest bit down; int16 has twice the lanes of a word."""
    w, bits, starts = Var("w"), range(op.encoding.bits), range(0, count, HALF)
    lanes = (lane_axis(columns[2]),)
    body: list[Stmt] = []
    for half, start in enumerate(starts):
        planes = [Load("half", (Const(half), Const(bit), LANE)) for bit in bits]
        last = min(start + HALF, count) - 1
        code = op.encoding.code(_x(op, w * WORD + last - Var("t")))
        shifted = [plane * 2 + ((code // (1 << bit) if bit else code) & 1) for bit, plane in enumerate(planes)]
        body += [For(lanes, (Assign(plane, Const(0)),)) for plane in planes]
        steps = tuple(For(lanes, (Assign(plane, value),)) for plane, value in zip(planes, shifted, strict=True))
        body.append(For((Range("t", Const(0), Const(last + 1 - start)),), steps))
    for bit in bits:
        word: Expr = Load("half", (Const(0), Const(bit), LANE)) & (1 << HALF) - 1
        if len(starts) > 1:
            word = Load("half", (Const(1), Const(bit), LANE)) * (1 << HALF) + word
        body.append(For(lanes, (Assign(Load(op.y.name, (BATCH, Const(bit), w, COLUMN + LANE)), word),)))
    tile = Tile("half", "int16", (len(starts), len(bits), columns[2]), tuple(body))
    run = Range("w", Const(places[0]), Const(places[1]))
    return For((_batch(op), run, Range("m", *columns)), (tile,), parallel=True)


def _totals(op: BitPlanes, columns: Run, total: Buffer) -> Stmt:
    """Sum each column."""
    lanes, acc = (lane_axis(columns[2]),), Load("acc", (LANE,))
    depth = Range("k", Const(0), as_extent(op.x.shape[1]))
    body = (
        For(lanes, (Assign(acc, Const(0)),)),
        For((depth,), (For(lanes, (Assign(acc, _x(op, Var("k")), accumulate=True),)),)),
        For(lanes, (Assign(Load(total.name, (BATCH, COLUMN + LANE)), acc),)),
    )
    return For((_batch(op), Range("m", *columns)), (Tile("acc", "int32", (columns[2],), body),), parallel=True)


def _batch(op: BitPlanes) -> Range:
    return Range("b", Const(0), as_extent(op.x.shape[0]))


def _x(op: BitPlanes, place: Expr) -> Load:
    return Load(op.x.name, (BATCH, place, COLUMN + LANE))
