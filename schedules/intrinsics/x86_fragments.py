"""Code for products whose entries are spelled out, on x86 processors whose instructions broadcast what they load.

Intel, *Software Developer's Manual*, volume 2, section 2.7: an EVEX prefix names one of 32 registers of 512 bits, makes
a broadcast of a load, and scales displacements of a byte by what is loaded. A product takes one instruction of 7 bytes.

A fragment is a function of the System V calling convention that is told where things are:

    rdi, rsi, rdx : the panel of X, the stored values, the sums
    rcx, r8       : what of the code and the values of the next fragment it is to ask for
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.ir.fragments import Fragments
from sparsec.ir.instruction import instruction
from sparsec.targets import LINE

RDI, RSI, RDX, RCX, R8 = 7, 6, 2, 1, 8
REGISTERS = 32
LOADED = 2  # registers for vectors of X, so that one is loaded while another one is used
NEAR = 128  # what a displacement of a byte reaches, in units of what is loaded
TRAP = b"\xcc"  # between fragments


@dataclass(frozen=True)
class Evex:
    """An instruction with an EVEX prefix on vectors of 512 bits.

    Parameters
    ----------
    map, prefix, opcode : of the encoding
    loads : bytes that it loads or stores, by which a displacement of a byte is scaled
    """

    map: int
    prefix: int
    opcode: int
    loads: int = 64

    def __call__(
        self, register: np.ndarray | int, other: np.ndarray | int, base: int, displacement: np.ndarray | int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode instructions that take memory: bytes, uint8 [n, 10], and how many of them each has."""
        register, other, displacement = np.broadcast_arrays(*np.atleast_1d(register, other, displacement))
        near = (displacement % self.loads == 0) & (np.abs(2 * displacement + self.loads) < 2 * NEAR * self.loads)
        code = np.zeros((len(register), 10), np.uint8)
        code[:, 0] = 0x62
        code[:, 1] = 0x60 | self.map | (~register >> 3 & 1) << 7 | (~register >> 4 & 1) << 4
        code[:, 2] = 0x04 | self.prefix | (~other & 15) << 3
        code[:, 3] = 0x40 | (0x10 if self.loads < 64 else 0) | (~other >> 4 & 1) << 3
        code[:, 4] = self.opcode
        code[:, 5] = np.where(near, 0x40, 0x80) | (register & 7) << 3 | base
        code[:, 6:] = _in_bytes(np.where(near, displacement // self.loads, displacement))
        return code, np.where(near, 7, 10)


LOAD, STORE = Evex(1, 0, 0x10), Evex(1, 0, 0x11)
MULTIPLY_ADD = Evex(2, 1, 0xB8, loads=4)  # vfmadd231ps


@dataclass(frozen=True)
class X86Writer:
    """Writes fragments around an instruction that multiplies a vector by what it loads and broadcasts, and adds."""

    multiply_add: Evex
    sums: int = REGISTERS - LOADED

    def __call__(self, fragments: Fragments) -> tuple[np.ndarray, np.ndarray]:
        """See `Writer`."""
        steps = [*self.addresses(fragments), *self.products(fragments)]
        sizes = np.sum([size for _, size in steps], axis=0)
        asked = list(requests(fragments, _per_fragment(sizes, fragments)))
        code, sizes = _joined([*asked, *steps])
        sizes = _per_fragment(sizes, fragments)
        start, end = cleared(fragments.sums), stored(fragments.sums, fragments.sums_apart)
        written, first = [], 0
        for size in sizes.tolist():
            whole = len(start) + size + len(end)
            written += [start, code[first : first + size].tobytes(), end, TRAP * (-whole % LINE)]
            first += size
        lengths = -(-(len(start) + sizes + len(end)) // LINE) * LINE
        return np.frombuffer(b"".join(written), np.uint8), np.concatenate([[0], np.cumsum(lengths)])

    def addresses(self, fragments: Fragments) -> Iterator[Steps]:
        """Yield what keeps rows of X and values within reach of displacements of a byte."""
        moves = np.where(fragments.nth % (2 * NEAR) == NEAR, 2 * NEAR * fragments.itemsize, 0)
        yield _advance(RSI, moves)
        window = self.windows(fragments)
        before = np.where(fragments.nth == 0, 0, np.roll(window, 1))
        yield _advance(RDI, window - before)

    def windows(self, fragments: Fragments) -> np.ndarray:
        """Return what is added to the start of the panel before each entry, in bytes; nothing where that is no help."""
        reach = 2 * NEAR * LOAD.loads
        if np.any(fragments.offsets % LOAD.loads):
            return np.zeros_like(fragments.offsets)
        return (fragments.offsets + reach // 2) // reach * reach

    def products(self, fragments: Fragments) -> Iterator[Steps]:
        """Yield the load of a vector of X for each column, and a product for each entry."""
        x = REGISTERS - 1 - np.cumsum(fragments.columns) % LOADED
        code, sizes = LOAD(x, 0, RDI, fragments.offsets - self.windows(fragments))
        yield code, np.where(fragments.columns, sizes, 0)
        place = fragments.nth - (fragments.nth + NEAR) // (2 * NEAR) * (2 * NEAR)
        yield self.multiply_add(fragments.rows, x, RSI, place * fragments.itemsize)


Steps = tuple[np.ndarray, np.ndarray]
"""Code for each entry, uint8 [entries, bytes], and how many of the bytes count, int64 [entries]."""


def requests(fragments: Fragments, sizes: np.ndarray) -> Iterator[Steps]:
    """Yield what asks for the lines of the next fragment, spread over the entries of this one.

    Parameters
    ----------
    sizes : int64 [fragments], bytes of code without these steps
    """
    values = np.diff(fragments.starts) * fragments.itemsize
    for base, wanted in ((RCX, sizes + sizes // 8 + LINE), (R8, values)):
        lines = -(-np.append(wanted[1:], 0) // (LINE * fragments.passes))
        count = np.diff(fragments.starts)
        per_entry, of = np.repeat(lines, count), np.repeat(count, count)
        line = fragments.nth * per_entry // of
        code = np.zeros((len(line), 8), np.uint8)
        opening = b"\x0f\x18\x89" if base == RCX else b"\x41\x0f\x18\x88"  # prefetcht0
        code[:, : len(opening)] = np.frombuffer(opening, np.uint8)
        code[:, len(opening) : len(opening) + 4] = _in_bytes(line * LINE)
        yield code, np.where((fragments.nth + 1) * per_entry // of > line, len(opening) + 4, 0)


def cleared(count: int) -> bytes:
    """Return code that clears registers, by `vpxord`."""
    register = np.arange(count)
    low, high = ~register >> 3 & 1, ~register >> 4 & 1
    code = np.zeros((count, 6), np.uint8)
    code[:, 0] = 0x62
    code[:, 1] = 0x01 | low << 7 | high << 6 | low << 5 | high << 4
    code[:, 2] = 0x05 | (~register & 15) << 3
    code[:, 3] = 0x40 | high << 3
    code[:, 4] = 0xEF
    code[:, 5] = 0xC0 | (register & 7) * 9
    return code.tobytes()


def stored(count: int, apart: int) -> bytes:
    """Return code that stores registers so many bytes apart, and returns."""
    code, sizes = STORE(np.arange(count), 0, RDX, np.arange(count) * apart)
    return _joined([(code, sizes)])[0].tobytes() + b"\xc5\xf8\x77\xc3"  # vzeroupper, ret


def _advance(base: int, by: np.ndarray) -> Steps:
    """Return what adds to an address, where there is something to add."""
    code = np.zeros((len(by), 7), np.uint8)
    code[:, :3] = 0x48, 0x81, 0xC0 | base
    code[:, 3:] = _in_bytes(by)
    return code, np.where(by != 0, 7, 0)


def _in_bytes(numbers: np.ndarray) -> np.ndarray:
    """Return each number as 4 bytes, uint8 [n, 4]."""
    return numbers.astype("<i4").view(np.uint8).reshape(-1, 4)


def _joined(steps: Sequence[Steps]) -> Steps:
    """Return the code of all steps in order as one run, uint8 [bytes], and the bytes for each entry."""
    code = np.concatenate([code for code, _ in steps], axis=1)
    counts = np.concatenate([np.arange(part.shape[1]) < size[:, None] for part, size in steps], axis=1)
    return code[counts], np.count_nonzero(counts, axis=1)


def _per_fragment(sizes: np.ndarray, fragments: Fragments) -> np.ndarray:
    """Add up the sizes of the entries of each fragment."""
    before = np.concatenate([[0], np.cumsum(sizes)])
    return np.diff(before[fragments.starts])


instruction(
    """
    kernel multiply_add(a: float32[16], x: float32[16]) -> c: float32[16]:
        for v in range(0, 16):
            c[v] += a[v] * x[v]
    """,
    name="x86.fragments.512",
    features=("avx512f",),
    writer=X86Writer(MULTIPLY_ADD),
)(lambda a, x, c: c + a * x)
