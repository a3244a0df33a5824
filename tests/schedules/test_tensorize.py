"""Kernels whose nests name instructions mean the same, and compile to the same."""

import numpy as np
import pytest

from sparsec.errors import KernelError, ScheduleError
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Kernel
from sparsec.ir.lower import lower
from sparsec.ir.parser import parse_kernel
from sparsec.schedules.tensorize import tensorize
from sparsec.schedules.trace import schedule_kernel
from sparsec.targets import Target
from tests.ir.product_cases import Compiled
from tests.schedules.assembly import assembly, hottest

NATIVE = Target.parse("native")

COLUMNS = parse_kernel(
    """
kernel columns(W: int8[2, 4], X: uint8[44, 4]) -> Y: int32[2, 44]:
    for i in range(0, 2):
        for v in range(0, 44):
            Y[i, v] = 0
    for i in range(0, 2), v in range(0, 44), l in range(0, 4):
        Y[i, v] += W[i, l] * X[v, l]
"""
)

PANELS = parse_kernel(
    """
kernel panels(X: uint8[64, 128],
    W: int8[12, 64] @ "(i, k) -> (i floordiv 6 : dense, k floordiv 4 : dense, i mod 6 : dense, k mod 4 : dense)"
) -> Y: int32[12, 128]:
    for m in range(0, 128, 64):
        tile part: uint8[16, 64, 4]:
            for p1 in W[1], v in range(0, 64), l in W[3]:
                part[p1, v, l] = X[W.k, m + v % 16 // 4 * 16 + v // 16 * 4 + v % 4]
            for p0 in W[0]:
                tile acc: int32[6, 64]:
                    for p2 in W[2], v in range(0, 64):
                        acc[p2, v] = 0
                    for p1 in W[1]:
                        for p2 in W[2], v in range(0, 64), l in W[3]:
                            acc[p2, v] += W * part[p1, v, l]
                    tile sums: int32[6, 64]:
                        for p2 in W[2], v in range(0, 64):
                            sums[p2, v] = acc[p2, v % 16 // 4 * 16 + v // 16 * 4 + v % 4]
                        for p2 in W[2], v in range(0, 64):
                            Y[W.i, m + v] = sums[p2, v]
"""
)

RUNS = parse_kernel(
    """
kernel runs(W: int8[12, 64] @ "(i, k) -> (i floordiv 4 : dense, k : compressed[4], i mod 4 : dense)",
            X: uint8[64, 64]) -> Y: int32[12, 64]:
    for p0 in W[0]:
        tile acc: int32[4, 64]:
            for p2 in W[2], v in range(0, 64):
                acc[p2, v] = 0
            for p1 in W[1] runs:
                tile quad: uint8[64, 4]:
                    for v in range(0, 64), l in W[1] run:
                        quad[v, l] = X[W.k, v % 16 // 4 * 16 + v // 16 * 4 + v % 4]
                    for p2 in W[2], v in range(0, 64), l in W[1] run:
                        acc[p2, v] += W * quad[v, l]
            for p2 in W[2], v in range(0, 64):
                Y[W.i, v] = acc[p2, v % 16 // 4 * 16 + v // 16 * 4 + v % 4]
"""
)

STEPS = (
    ("init", "x86.interleave4_uint8.512"),
    ("init", "x86.straighten4_int32.512"),
    ("update", "x86.vpdpbusd.512"),
)


def tensorized(kernel: Kernel, *steps: tuple[str, str]) -> Kernel:
    for kind, name in steps:
        kernel = tensorize(kernel, kind, name)
    return kernel


def operands_of(kernel: Kernel) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {}
    for buffer in kernel.inputs:
        limits = np.iinfo(buffer.dtype)
        arrays[buffer.name] = random.integers(limits.min, limits.max, buffer.shape, buffer.dtype, endpoint=True)
        if buffer.layout:
            arrays[buffer.name] *= random.random(buffer.shape) < 0.5
    return arrays


CASES = {
    "columns": (COLUMNS, (("update", "x86.vpdpbusd.512"),)),
    "panels": (PANELS, STEPS),
    "runs": (RUNS, (STEPS[0], STEPS[2], ("finish", "x86.straighten4_int32.512"))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_means_the_same(case):
    kernel, steps = CASES[case]
    found, operands = tensorized(kernel, *steps), operands_of(kernel)
    wanted = interpret(kernel, operands)["Y"]
    np.testing.assert_array_equal(interpret(found, operands)["Y"], wanted)
    assert parse_kernel(str(found)) == found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("where", ["native", "emulate:sapphirerapids"])
def test_it_compiles_to_the_same(case, where):
    kernel, steps = CASES[case]
    target, operands = Target.parse(where), operands_of(kernel)
    found = tensorized(kernel, *steps)
    if not target.emulated_on and not NATIVE.has("avx512vnni"):
        pytest.skip("this processor has no AVX512-VNNI")
    lowered = lower(found, target.emits)
    outputs = {"Y": tuple(int(dim) for dim in kernel.outputs[0].shape)}
    results = Compiled(lowered, lowered.func)(operands, outputs)
    np.testing.assert_array_equal(results["Y"], interpret(kernel, operands)["Y"])


@pytest.mark.parametrize("case", ["panels", "runs"])
def test_the_inner_loop_is_the_instruction(case):
    kernel, steps = CASES[case]
    target = Target.parse("znver5")
    loop = hottest(assembly(schedule_kernel(tensorized(kernel, *steps), (), target.emits).func, target), "vpdpbusd")
    rows = 6 if case == "panels" else 4
    lines = [line for line in loop.split("\n") if "%zmm" in line and not line.startswith("\tvmovdqu64")]
    products = [line for line in lines if line.startswith("\tvpdpbusd")]
    others = [line for line in lines if not line.startswith(("\tvpdpbusd", "\tvpbroadcastd", "\tvpunpck"))]
    assert products and len(products) % (4 * rows) == 0
    assert not others


def test_what_is_left_over_goes_to_narrower_instructions_or_stays_a_loop():
    text = str(tensorize(COLUMNS, "update", "x86.vpdpbusd.512"))
    lines = [line.strip() for line in text.split("\n") if "l in range(0, 4)" in line]
    assert lines == [
        "for i in range(0, 2), v0 in range(0, 32, 16), v1 in range(0, 16), l in range(0, 4) as x86.vpdpbusd.512:",
        "for i in range(0, 2), v in range(32, 40), l in range(0, 4) as x86.vpdpbusd.256:",
        "for i in range(0, 2), v in range(40, 44), l in range(0, 4):",
    ]


def test_lanes_of_any_number_are_filled():
    kernel = parse_kernel(
        """
kernel scaled(X: float32[37]) -> Y: float32[37]:
    for v in range(0, 37):
        Y[v] = 0.0
    for v in range(0, 37):
        Y[v] += X[3] * X[v]
"""
    )
    text = str(tensorize(kernel, "update", "fma.16"))
    assert "for v0 in range(0, 32, 16), v1 in range(0, 16) as fma.16:" in text
    assert "for v in range(32, 37) as fma.5:" in text


def test_digits_of_a_layout_are_cut_too():
    kernel = parse_kernel(
        """
kernel sums(W: int8[64, 4] @ "(i, k) -> (i floordiv 40 : dense, i mod 40 : dense, k : dense)",
            x: uint8[4]) -> Y: int32[80]:
    for v in range(0, 80):
        Y[v] = 0
    for p0 in W[0]:
        for p1 in W[1], l in W[2]:
            Y[p0 * 40 + p1] += W * x[W.k]
"""
    )
    found = tensorize(kernel, "update", "x86.vpdpbusd.512")
    assert "for p100 in range(0, 32, 16), p101 in range(0, 16), p1 in W[1] at p100 + p101, l in W[2] as" in str(found)
    operands = operands_of(kernel)
    wanted = interpret(kernel, operands)["Y"]
    np.testing.assert_array_equal(interpret(found, operands)["Y"], wanted)
    lowered = lower(found, NATIVE.emits)
    np.testing.assert_array_equal(Compiled(lowered, lowered.func)(operands, {"Y": (80,)})["Y"], wanted)


def test_long_loops_around_an_instruction_stay_loops():
    kernel = parse_kernel(
        """
kernel long(W: int8[100, 4], X: uint8[64, 4]) -> Y: int32[100, 64]:
    for i in range(0, 100), v in range(0, 64):
        Y[i, v] = 0
    for i in range(0, 100), v in range(0, 64), l in range(0, 4):
        Y[i, v] += W[i, l] * X[v, l]
"""
    )
    lines = [line.strip() for line in str(tensorize(kernel, "update", "x86.vpdpbusd.512")).split("\n")]
    at = lines.index("for i in range(0, 100):")
    assert lines[at + 1] == "for v0 in range(0, 64, 16), v1 in range(0, 16), l in range(0, 4) as x86.vpdpbusd.512:"


def test_a_step_that_fits_nowhere_says_why():
    with pytest.raises(ScheduleError, match="'init': the kernel has no block 'init'"):
        tensorize(COLUMNS, "init", "x86.interleave4_uint8.512")
    with pytest.raises(ScheduleError, match=r"'update': W is int8, where x86\.vpdpwssd\.512 takes a in int16"):
        tensorize(COLUMNS, "update", "x86.vpdpwssd.512")
    with pytest.raises(ScheduleError, match=r"'x86\.nothing', which is not declared; use one of .*fma\.<lanes>"):
        tensorize(COLUMNS, "update", "x86.nothing")


def test_a_nest_that_names_what_it_is_not_is_refused():
    text = str(tensorize(COLUMNS, "update", "x86.vpdpbusd.512")).replace("x86.vpdpbusd.256", "x86.vpdpwssd.256")
    with pytest.raises(KernelError, match=r"where x86\.vpdpwssd\.256 takes a in int16"):
        lower(parse_kernel(text))
    lower(parse_kernel(text), ())  # loops
