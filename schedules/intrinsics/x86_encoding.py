"""Machine code of x86 processors, for many instructions of a kind at once.

Intel, *Software Developer's Manual*, volume 2, section 2.7: an EVEX prefix names one of 32 registers of 512 bits, makes
a broadcast of a load, masks lanes, and scales displacements of a byte by what is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11 = 0, 1, 2, 6, 7, 8, 9, 10, 11
NEAR = 128  # what a displacement of a byte reaches, in units of what is loaded

Steps = tuple[np.ndarray, np.ndarray]
"""Code for each of many places, uint8 [places, bytes], and how many of the bytes count, int64 [places]."""

Numbers = np.ndarray | int


@dataclass(frozen=True)
class Evex:
    """An instruction with an EVEX prefix on vectors of 512 bits.

    Parameters
    ----------
    map, prefix, opcode : of the encoding
    loads : bytes that it loads or stores, by which a displacement of a byte is scaled
    broadcast : whether it takes a broadcast of what it loads in the place of a vector
    """

    map: int
    prefix: int
    opcode: int
    loads: int = 64
    broadcast: bool = False

    def at(self, register: Numbers, other: Numbers, base: int, displacement: Numbers, mask: int = 0) -> Steps:
        """Encode instructions on two registers and memory, `displacement` bytes behind an address."""
        register, other, displacement = np.broadcast_arrays(*np.atleast_1d(register, other, displacement))
        near = (displacement % self.loads == 0) & (np.abs(2 * displacement + self.loads) < 2 * NEAR * self.loads)
        code = np.zeros((len(register), 10), np.uint8)
        code[:, :5] = self.prefixed(register, other, np.asarray(base), mask | self.broadcast << 4)
        code[:, 5] = np.where(near, 0x40, 0x80) | (register & 7) << 3 | base & 7
        code[:, 6:] = in_bytes(np.where(near, displacement // self.loads, displacement))
        return code, np.where(near, 7, 10)

    def on(self, register: Numbers, other: Numbers, third: Numbers, mask: int = 0) -> Steps:
        """Encode instructions on three registers; what is not in the mask, if there is one, becomes zero."""
        register, other, third = np.broadcast_arrays(*np.atleast_1d(register, other, third))
        code = np.zeros((len(register), 6), np.uint8)
        code[:, :5] = self.prefixed(register, other, third, mask | (0x80 if mask else 0))
        code[:, 5] = 0xC0 | (register & 7) << 3 | third & 7
        return code, np.full(len(register), 6)

    def prefixed(self, register: np.ndarray, other: np.ndarray, last: np.ndarray, flags: int) -> np.ndarray:
        """Return the prefixes and the opcode, uint8 [instructions, 5]; `last` is a register or an address."""
        high = (~register >> 3 & 1) << 7 | (~last >> 4 & 1) << 6 | (~last >> 3 & 1) << 5 | (~register >> 4 & 1) << 4
        code = np.zeros((len(register), 5), np.uint8)
        code[:, 0] = 0x62
        code[:, 1] = high | self.map
        code[:, 2] = 0x04 | self.prefix | (~other & 15) << 3
        code[:, 3] = 0x40 | flags | (~other >> 4 & 1) << 3
        code[:, 4] = self.opcode
        return code


LOAD, STORE, MOVE = Evex(1, 0, 0x10), Evex(1, 0, 0x11), Evex(1, 0, 0x28)  # vmovups, vmovaps
BROADCAST = Evex(2, 1, 0x18, loads=4)  # vbroadcastss
SPREAD = Evex(2, 1, 0x7C)  # vpbroadcastd, of a general register
ADD = Evex(1, 0, 0x58, loads=4, broadcast=True)  # vaddps
LIMIT = {"max": Evex(1, 0, 0x5F), "min": Evex(1, 0, 0x5D)}  # vmaxps, vminps: the last operand if either is NaN
CLEAR = Evex(1, 1, 0xEF)  # vpxord
TEST = Evex(2, 1, 0x27)  # vptestmd
MULTIPLY_ADD = Evex(2, 1, 0xB8, loads=4, broadcast=True)  # vfmadd231ps
RETURN = b"\xc5\xf8\x77\xc3"  # vzeroupper, ret
TRAP = b"\xcc"


def advance(base: int, by: np.ndarray) -> Steps:
    """Return what adds to an address, where there is something to add."""
    code = np.zeros((len(by), 7), np.uint8)
    code[:, :3] = 0x48, 0x81, 0xC0 | base
    code[:, 3:] = in_bytes(by)
    return code, np.where(by != 0, 7, 0)


def ask(base: int, displacement: np.ndarray, to_write: bool = False) -> Steps:
    """Return what asks for a line of memory to the nearest cache, by `prefetcht0` or `prefetchw`."""
    opening = [0x0F, 0x0D if to_write else 0x18, 0x88 | base & 7]
    if base >= R8:
        opening = [0x41, *opening]
    code = np.zeros((len(displacement), len(opening) + 4), np.uint8)
    code[:, : len(opening)] = opening
    code[:, len(opening) :] = in_bytes(displacement)
    return code, np.full(len(displacement), len(opening) + 4)


def load_address(register: int, base: int, displacement: int) -> bytes:
    """Return what loads an address that lies less than 128 bytes behind another one."""
    return bytes([0x48 | (register >> 3) << 2 | base >> 3, 0x8B, 0x40 | (register & 7) << 3 | base & 7, displacement])


def load_mask(mask: int, base: int, displacement: int) -> bytes:
    """Return what loads a mask of 16 lanes, by `kmovw`."""
    return bytes([0xC4, 0xC1 | (~base >> 3 & 1) << 5, 0x78, 0x90, 0x40 | mask << 3 | base & 7, displacement])


def constant(register: int, value: float) -> bytes:
    """Return what fills a register with a number."""
    if value == 0:
        return joined([CLEAR.on(register, register, register)])[0].tobytes()
    return b"\xb8" + np.float32(value).tobytes() + joined([SPREAD.on(register, 0, RAX)])[0].tobytes()


def joined(steps: Sequence[Steps]) -> Steps:
    """Return the code of all steps as one run, place by place, uint8 [bytes], and the bytes for each place."""
    code = np.concatenate([code for code, _ in steps], axis=1)
    counts = np.concatenate([np.arange(part.shape[1]) < size[:, None] for part, size in steps], axis=1)
    return code[counts], np.count_nonzero(counts, axis=1)


def in_bytes(numbers: np.ndarray) -> np.ndarray:
    """Return each number as 4 bytes, uint8 [n, 4]."""
    return numbers.astype("<i4").view(np.uint8).reshape(-1, 4)
