"""Code for products whose entries are spelled out, on x86 processors whose instructions broadcast what they load.

A product takes one instruction of 7 bytes. A fragment is a function of the System V calling convention that is told
where things are:

    rdi, rsi, rdx : the panel of X, the stored values, the sums
    rcx, r8       : what of the code and the values of the next fragment it is to ask for
    r9            : addresses of what sums start from by row and by element, and of what says which columns are valid,
                    and the lanes to store
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from sparsec.ir.fragment_ends import Ends
from sparsec.ir.fragments import Fragments
from sparsec.ir.instruction import instruction
from sparsec.schedules.intrinsics import x86_encoding as x86
from sparsec.schedules.intrinsics.x86_encoding import NEAR, Evex, Steps, joined
from sparsec.targets import LINE

REGISTERS = 32
LOADED = 2  # registers for vectors of X, so that one is loaded while another one is used
LAST = REGISTERS - 1  # one of them, free when all is added up
BY_ROW, BY_ELEMENT, VALID, LANES = 0, 8, 16, 24  # bytes behind r9
VALID_MASK, LANES_MASK = 1, 2


@dataclass(frozen=True)
class X86Writer:
    """Writes fragments around an instruction that multiplies a vector by what it loads and broadcasts, and adds."""

    multiply_add: Evex
    sums: int = REGISTERS - LOADED

    def __call__(self, fragments: Fragments) -> tuple[np.ndarray, np.ndarray]:
        """See `Writer`."""
        window = windows(fragments)
        steps = [*addresses(fragments, window), *self.products(fragments, window)]
        sizes = np.sum([size for _, size in steps], axis=0)
        code, sizes = joined([*requests(fragments, fragments.total(sizes)), *steps])
        written, lengths, read, frame = [], [], 0, fragments.frame
        conditions = zip(frame.first.tolist(), frame.last.tolist(), frame.heights.tolist(), strict=True)
        for size, (first, last, height) in zip(fragments.total(sizes).tolist(), conditions, strict=True):
            start = start_code(frame.ends, first, height, frame.sums_apart)
            end = finish_code(frame.ends, last, height, frame.sums_apart)
            whole = len(start) + size + len(end)
            written += [start, code[read : read + size].tobytes(), end, x86.TRAP * (-whole % LINE)]
            lengths.append(-(-whole // LINE) * LINE)
            read += size
        return np.frombuffer(b"".join(written), np.uint8), np.array(lengths, np.int64)

    def products(self, fragments: Fragments, window: np.ndarray) -> Iterator[Steps]:
        """Yield the load of a vector of X for each column, and a product for each entry."""
        x = LAST - np.cumsum(fragments.columns) % LOADED
        code, sizes = x86.LOAD.at(x, 0, x86.RDI, fragments.offsets - window)
        yield code, np.where(fragments.columns, sizes, 0)
        place = fragments.nth - (fragments.nth + NEAR) // (2 * NEAR) * (2 * NEAR)
        yield self.multiply_add.at(fragments.rows, x, x86.RSI, place * fragments.itemsize)


def addresses(fragments: Fragments, window: np.ndarray) -> Iterator[Steps]:
    """Yield what keeps rows of X and values within reach of displacements of a byte."""
    yield x86.advance(x86.RSI, np.where(fragments.nth % (2 * NEAR) == NEAR, 2 * NEAR * fragments.itemsize, 0))
    yield x86.advance(x86.RDI, window - np.where(fragments.nth == 0, 0, np.roll(window, 1)))


def windows(fragments: Fragments) -> np.ndarray:
    """Return what is added to the start of the panel before each entry, in bytes; nothing where that is no help."""
    reach = 2 * NEAR * x86.LOAD.loads
    if np.any(fragments.offsets % x86.LOAD.loads):
        return np.zeros_like(fragments.offsets)
    return (fragments.offsets + reach // 2) // reach * reach


def requests(fragments: Fragments, sizes: np.ndarray) -> Iterator[Steps]:
    """Yield what asks for lines that are needed next, spread over the entries of a fragment.

    These are lines of the next fragment, taken to be as long as this one and shared out among its passes, and of the
    next panel those of Y and of what sums start from, which no processor foresees, since each lies in another row.

    Parameters
    ----------
    sizes : int64 [fragments], bytes of code without these steps
    """
    count, frame = np.diff(fragments.starts), fragments.frame
    for base, wanted in ((x86.RCX, sizes + sizes // 8 + LINE), (x86.R8, count * fragments.itemsize)):
        lines = -(-wanted // (LINE * frame.passes))
        yield _spread(fragments, lines, partial(_ask_for_line, base))
    if frame.ends:
        apart, end = frame.sums_apart, 2 * x86.LOAD.loads - 1  # of the next panel
        yield _spread(fragments, frame.heights, lambda row: x86.ask(x86.RDX, row * apart + end, to_write=True))
        if apart := frame.ends.vectors_apart:
            yield _spread(fragments, frame.heights * frame.first, lambda row: x86.ask(x86.R10, row * apart + end))


def _ask_for_line(base: int, line: np.ndarray) -> Steps:
    return x86.ask(base, line * LINE)


def _spread(fragments: Fragments, counts: np.ndarray, step: Callable[[np.ndarray], Steps]) -> Steps:
    """Return so many steps for each fragment, spread over its entries; at most one for each."""
    entries = np.diff(fragments.starts)
    count, of = (np.repeat(number, entries) for number in (counts, entries))
    nth = fragments.nth * count // of
    code, sizes = step(nth)
    return code, np.where((fragments.nth + 1) * count // of > nth, sizes, 0)


@cache
def start_code(ends: Ends | None, first: bool, height: int, apart: int) -> bytes:
    """Return what starts the sums of so many rows: from Y, where they are left `apart` bytes by those before."""
    sums, by_row, by_element = np.arange(height), b"", b""
    if ends and not first:
        return _code(x86.LOAD.at(sums, 0, x86.RDX, sums * apart))
    if ends and ends.vectors_apart:
        by_element = x86.load_address(x86.R10, x86.R9, BY_ELEMENT)
        by_element += _code(x86.LOAD.at(sums, 0, x86.R10, sums * ends.vectors_apart))
    if ends and ends.rows:
        how = x86.ADD.at(sums, sums, x86.RAX, sums * 4) if by_element else x86.BROADCAST.at(sums, 0, x86.RAX, sums * 4)
        by_row = x86.load_address(x86.RAX, x86.R9, BY_ROW) + _code(how)
    return by_element + by_row or _code(x86.CLEAR.on(sums, sums, sums))


@cache
def finish_code(ends: Ends | None, last: bool, height: int, apart: int) -> bytes:
    """Return what finishes the sums of so many rows, stores them `apart` bytes from each other, and returns."""
    sums, code = np.arange(height), b""
    if ends is None:
        return _code(x86.STORE.at(sums, 0, x86.RDX, sums * apart)) + x86.RETURN
    valid = VALID_MASK if last and ends.masked else 0
    if valid:
        code += x86.load_address(x86.R11, x86.R9, VALID) + _code(x86.LOAD.at(LAST, 0, x86.R11, 0))
        code += _code(x86.TEST.on(valid, LAST, LAST))
    limits = ends.limits if last else ()
    for name, limit in limits:
        code += x86.constant(LAST, limit) + _code(x86.LIMIT[name].on(sums, LAST, sums))
    if valid:
        code += _code(x86.MOVE.on(sums, 0, sums, valid))
    code += x86.load_mask(LANES_MASK, x86.R9, LANES)
    return code + _code(x86.STORE.at(sums, 0, x86.RDX, sums * apart, LANES_MASK)) + x86.RETURN


def _code(steps: Steps) -> bytes:
    return joined([steps])[0].tobytes()


instruction(
    """
    kernel multiply_add(a: float32[16], x: float32[16]) -> c: float32[16]:
        for v in range(0, 16):
            c[v] += a[v] * x[v]
    """,
    name="x86.fragments.512",
    features=("avx512f",),
    writer=X86Writer(x86.MULTIPLY_ADD),
)(lambda a, x, c: c + a * x)
