"""Which nests an instruction carries out, along which axes, and why it does not carry out others."""

import pytest

from sparsec.ir.footprint import Scope
from sparsec.ir.instruction import find_instruction
from sparsec.ir.kernel import For, Kernel
from sparsec.ir.matcher import Match, Refusal, match, match_in, types_of
from sparsec.ir.parser import parse_kernel
from sparsec.ir.verifier import verify
from sparsec.schedules import intrinsics

assert intrinsics  # declares them

VPDPBUSD, SMMLA, FMA, INTERLEAVE = "x86.vpdpbusd.512", "arm.smmla.128", "fma.16", "x86.interleave4_uint8.512"


def kernel_of(parameters: str, *lines: str) -> Kernel:
    """A kernel of these lines, each inside of the one before."""
    inputs, _, output = parameters.rpartition(" -> ")
    body = "\n".join("    " * (n + 1) + line for n, line in enumerate(lines))
    kernel = parse_kernel(f"kernel case({inputs}) -> {output}:\n{body}\n")
    verify(kernel)
    return kernel


def innermost(kernel: Kernel) -> For:
    """The loops around what is no loop."""
    (nest,) = kernel.body
    while isinstance(nest.body[0], For):
        (nest,) = nest.body
    return nest


def found_in(kernel: Kernel, name: str) -> Match | Refusal:
    nest = innermost(kernel)
    types = types_of(nest, Scope.of(kernel)) if name == FMA else ()
    return match(nest, kernel, find_instruction(name, types))


VECTORS = "W: int8[16, 4], X: uint8[16, 4] -> Y: int32[16]"
LANES = "for v in range(0, 16), l in range(0, 4):"
DOT = "Y[v] += W[v, l] * X[v, l]"
PANELS = (
    'W: int8[24, 64] @ "(i, k) -> (i floordiv 6 : dense, k floordiv 4 : dense, i mod 6 : dense, k mod 4 : dense)", '
    "X: uint8[16, 32, 4] -> Y: int32[24, 32]"
)
PANEL = kernel_of(
    PANELS,
    "for p0 in W[0], p1 in W[1]:",
    "for p2 in W[2], v in range(0, 32), l in W[3]:",
    "Y[W.i, v] += W * X[p1, v, l]",
)
RUNS = 'W: int8[24, 64] @ "(i, k) -> (i floordiv 4 : dense, k : compressed[4], i mod 4 : dense)"'

MATCHES = {
    "rows that lie side by side": (kernel_of(VECTORS, LANES, DOT), VPDPBUSD, (0, 1)),
    "axes in another order": (
        kernel_of(VECTORS, "for l in range(0, 4), v in range(0, 16):", "Y[v] += X[v, l] * W[v, l]"),
        VPDPBUSD,
        (1, 0),
    ),
    "a weight that all columns share": (PANEL, VPDPBUSD, (1, 2)),
    "a run of stored columns": (
        kernel_of(
            f"{RUNS}, X: uint8[64, 4] -> Y: int32[24, 64]",
            "for p0 in W[0], p1 in W[1] runs:",
            "for p2 in W[2], v in range(0, 64), l in W[1] run:",
            "Y[W.i, v] += W * X[v, l]",
        ),
        VPDPBUSD,
        (1, 2),
    ),
    "a matrix of rows and columns": (
        kernel_of(
            "W: int8[4, 16], X: int8[6, 16] -> Y: int32[4, 6]",
            "for i in range(0, 4), j in range(0, 6), k in range(0, 16):",
            "Y[i, j] += W[i, k] * X[j, k]",
        ),
        SMMLA,
        (0, 1, 2),
    ),
    "one factor for all lanes inside a sparse loop": (
        kernel_of(
            'W: float32[24, 64] @ "(i, k) -> (i : dense, k : compressed)", X: float32[64, 48] -> Y: float32[24, 48]',
            "for p0 in W[0], p1 in W[1]:",
            "for v in range(0, 48):",
            "Y[p0, v] += W * X[W.k, v]",
        ),
        FMA,
        (0,),
    ),
    "a convolution as it is written": (
        kernel_of(
            "W: int8[16, 8, 3, 3], X: uint8[10, 10, 8] -> Y: int32[8, 8, 16]",
            "for y in range(0, 8), x in range(0, 8), r in range(0, 3), s in range(0, 3):",
            "for o in range(0, 16), c in range(0, 8):",
            "Y[y, x, o] += X[y + r, x + s, c] * W[o, c, r, s]",
        ),
        VPDPBUSD,
        (0, 1),
    ),
    "a ring of whole vectors": (
        kernel_of(
            "A: float32[16], X: float32[4096] -> Y: float32[16]",
            "for n in range(0, 8192, 32):",
            "for v in range(0, 16):",
            "Y[v] += A[v] * X[(n + v) % 4096]",
        ),
        FMA,
        (0,),
    ),
    "rows that the pattern tells, interleaved": (
        kernel_of(
            f"{RUNS}, X: uint8[64, 64] -> Y: uint8[64, 4]",
            "for p0 in W[0], p1 in W[1] runs:",
            "for v in range(0, 64), l in W[1] run:",
            "Y[v, l] = X[W.k, v % 16 // 4 * 16 + v // 16 * 4 + v % 4]",
        ),
        INTERLEAVE,
        (0, 1),
    ),
}


@pytest.mark.parametrize("case", MATCHES)
def test_it_is_carried_out(case):
    kernel, name, axes = MATCHES[case]
    found = found_in(kernel, name)
    assert isinstance(found, Match), found
    assert found.axes == axes


def test_operands_that_do_not_move_are_broadcast():
    found = found_in(PANEL, VPDPBUSD)
    (register,) = found.places["b"].registers
    assert [segment.offsets for segment in register] == [(0, 1, 2, 3) * 16]
    (register,) = found.places["a"].registers
    assert [segment.is_contiguous for segment in register] == [True]


def test_each_row_may_be_anywhere():
    kernel, name, _ = MATCHES["rows that the pattern tells, interleaved"]
    registers = found_in(kernel, name).places["x"].registers
    assert [segment.first for (segment,) in registers] == [(0, lane) for lane in range(4)]
    assert all(segment.is_contiguous for (segment,) in registers)


REFUSALS = {
    "signed activations": (
        kernel_of("W: int8[16, 4], X: int8[16, 4] -> Y: int32[16]", LANES, DOT),
        VPDPBUSD,
        "types",
        "W is int8, where x86.vpdpbusd.512 takes a in uint8",
    ),
    "sums of another type": (
        kernel_of("W: int8[16, 4], X: uint8[16, 4] -> Y: int64[16]", LANES, DOT),
        VPDPBUSD,
        "types",
        "Y is int64, where x86.vpdpbusd.512 takes c in int32",
    ),
    "too few columns": (
        kernel_of(VECTORS, "for v in range(0, 12), l in range(0, 4):", DOT),
        VPDPBUSD,
        "extents",
        "v runs 12 times, not a multiple of 16 as x86.vpdpbusd.512; padded to 16 it would fit, 25 % of the work for",
    ),
    "a depth of three": (
        kernel_of(VECTORS, "for v in range(0, 16), l in range(0, 3):", DOT),
        VPDPBUSD,
        "extents",
        "l runs 3 times, not a multiple of 4 as x86.vpdpbusd.512; padded to 4 it would fit, 25 % of the work for",
    ),
    "a scale in the sum": (
        kernel_of(f"S: int8[16], {VECTORS}", LANES, f"{DOT} * S[v]"),
        VPDPBUSD,
        "length",
        "`W[v, l] * X[v, l] * S[v]` has 2 operators, and x86.vpdpbusd.512 1 operator",
    ),
    "a sum of the factors": (
        kernel_of(VECTORS, LANES, "Y[v] += W[v, l] + X[v, l]"),
        VPDPBUSD,
        "operators",
        "`W[v, l] + X[v, l]` is not of the form `a[i, j] * b[i, j]` of x86.vpdpbusd.512",
    ),
    "a constant factor": (
        kernel_of("X: float32[16] -> Y: float32[16]", "for v in range(0, 16):", "Y[v] += 2.0 * X[v]"),
        FMA,
        "operators",
        "`2.0 * X[v]` is not of the form",
    ),
    "an assignment": (
        kernel_of(VECTORS, LANES, "Y[v] = W[v, l] * X[v, l]"),
        VPDPBUSD,
        "combiner",
        "the statement assigns, and x86.vpdpbusd.512 adds to what is there",
    ),
    "a maximum": (
        kernel_of("X: float32[16] -> Y: float32[16]", "for v in range(0, 16):", "Y[v] = max(Y[v], X[v])"),
        FMA,
        "combiner",
        "the statement assigns, and fma.16 adds",
    ),
    "what interleaves, adding": (
        kernel_of(
            "X: uint8[4, 64] -> Y: int32[64, 4]", "for v in range(0, 64), l in range(0, 4):", "Y[v, l] += X[l, v]"
        ),
        INTERLEAVE,
        "combiner",
        "the statement adds to what is there, and x86.interleave4_uint8.512 assigns",
    ),
    "no loop over the depth": (
        kernel_of("W: int8[16], X: uint8[16] -> Y: int32[16]", "for v in range(0, 16):", "Y[v] += W[v] * X[v]"),
        VPDPBUSD,
        "axes",
        "there is 1 loop, and x86.vpdpbusd.512 has 2 axes",
    ),
    "sums in a column": (
        kernel_of("W: int8[16, 4], X: uint8[16, 4] -> Y: int32[16, 8]", LANES, "Y[v, 3] += W[v, l] * X[v, l]"),
        VPDPBUSD,
        "access",
        "where Y[v, 3] is along the last axis of c of x86.vpdpbusd.512 is not contiguous",
    ),
    "one sum over all": (
        kernel_of("W: int8[16, 4], X: uint8[16, 4] -> Y: int32[1]", LANES, "Y[0] += W[v, l] * X[v, l]"),
        VPDPBUSD,
        "access",
        "Y[0] does not move along an axis along which c of x86.vpdpbusd.512 does",
    ),
    "no sum over the depth": (
        kernel_of("W: int8[16, 4], X: uint8[16, 4] -> Y: int32[16, 4]", LANES, "Y[v, l] += W[v, l] * X[v, l]"),
        VPDPBUSD,
        "access",
        "Y[v, l] moves along l, and c of x86.vpdpbusd.512 does not",
    ),
    "a weight for each row and column of sums": (
        kernel_of(
            "W: int8[2, 2, 8], X: int8[2, 8] -> Y: int32[2, 2]",
            "for i in range(0, 2), j in range(0, 2), k in range(0, 8):",
            "Y[i, j] += W[i, j, k] * X[j, k]",
        ),
        SMMLA,
        "access",
        "W[i, j, k] moves along j, and a of arm.smmla.128 does not",
    ),
    "depths that only the pattern tells": (
        kernel_of(
            f"{RUNS}, X: uint8[64, 64] -> Y: int32[24, 64]",
            "for p0 in W[0], p1 in W[1] runs:",
            "for p2 in W[2], v in range(0, 64), l in W[1] run:",
            "Y[W.i, v] += W * X[v, W.k]",
        ),
        VPDPBUSD,
        "access",
        "where X[v, W.k] is along the last axis of a of x86.vpdpbusd.512 is only known at run time",
    ),
    "a ring that a vector could go around": (
        kernel_of(
            "A: float32[16], X: float32[4096] -> Y: float32[16]",
            "for n in range(0, 5000):",
            "for v in range(0, 16):",
            "Y[v] += A[v] * X[(n + v) % 4096]",
        ),
        FMA,
        "access",
        "where X[(n + v) % 4096] is along the last axis of x of fma.16 is only known at run time",
    ),
    "sums that it reads": (
        kernel_of("X: float32[16] -> Y: float32[32]", "for v in range(0, 16):", "Y[v] += X[v] * Y[v + 16]"),
        FMA,
        "access",
        "Y is read and written",
    ),
    "a condition": (
        kernel_of(VECTORS, LANES, "if l < 3:", DOT),
        VPDPBUSD,
        "body",
        "the loops hold a condition",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_near_miss_is_refused_with_the_reason(case):
    kernel, name, kind, reason = REFUSALS[case]
    nest = innermost(kernel)
    found = match(nest, kernel, find_instruction(name, ("float32",) * 3))
    assert isinstance(found, Refusal)
    assert found.kind == kind
    assert reason in found.reason


def test_what_is_left_over_may_be_allowed():
    kernel = kernel_of(
        "W: int8[40, 4], X: uint8[40, 4] -> Y: int32[40]", "for v in range(0, 40), l in range(0, 4):", DOT
    )
    nest, instruction = innermost(kernel), find_instruction(VPDPBUSD)
    assert "v runs 40 times" in match(nest, kernel, instruction).reason
    assert match_in(nest, Scope.of(kernel), instruction, ragged=True).axes == (0, 1)


def test_the_nest_must_be_one_of_the_kernel():
    nest = innermost(PANEL)
    with pytest.raises(ValueError, match="has no such nest"):
        match(For(nest.axes, nest.body), PANEL, find_instruction(VPDPBUSD))
