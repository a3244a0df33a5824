"""The vector multiply-add: what it computes, and which machine instruction it becomes."""

import numpy as np
import pytest

from sparsec.codegen.artifact import build
from sparsec.ir.named import CSR, dense_blocks
from sparsec.schedules.intrinsics.fma import fma
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.named_layouts import depth_blocked
from tests.ir.product_cases import attention, linear, sparse, trace
from tests.schedules.assembly import assembly, hottest, spills
from tests.schedules.single_instructions import plan_of


@pytest.mark.parametrize("lanes", [2, 5, 16])
@pytest.mark.parametrize(
    "types",
    [
        ("float32",) * 3,
        ("float64",) * 3,
        ("float16", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("bfloat16", "bfloat16", "float32"),
        ("int8", "uint8", "int32"),
    ],
    ids="-".join,
)
def test_the_loop_and_what_is_emitted_compute_the_same(lanes, types, ran):
    random = np.random.default_rng(lanes)
    a, x, c = (random.integers(0, 9, lanes).astype(dtype) for dtype in types)
    for target, where in (("native", "hardware"), ("emulate:sapphirerapids", "emulated")):
        session = build(plan_of([fma(lanes, *types)], Target.parse(target))).load(threads=1)
        np.testing.assert_array_equal(session(a, x, c), c + a.astype(types[2]) * x.astype(types[2]))
        ran("fma.<lanes>", where)


KINDS = {
    "sparse": (linear(sparse(16, 48, 0.2), 64, layout=CSR), ()),
    "blocked": (linear(sparse(16, 48, 0.2), 64, layout=depth_blocked(16, 2, 8, 3)), ()),
    "dense": (linear(sparse(16, 48, 1.0), 64, layout=dense_blocks(4)), ()),
    "activation": (attention(1, 16, 48, 64, True), (4,)),
}
TARGETS = {  # instructions, and the registers that they work on
    "znver4": ("vfmadd231ps", "%zmm"),
    "skylake-avx512": ("vfmadd231ps", "%zmm"),
    "haswell": ("vfmadd231ps", "%ymm"),
    "aarch64": ("fmla", ".4s"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TARGETS)
def test_the_inner_loop_is_multiply_adds(name, kind):
    target = Target.parse(name)
    case, rows = KINDS[kind]
    lanes = target.lanes("float32")
    moves = (Vectorize("init", lanes), Tensorize("update", f"fma.{lanes}"), Vectorize("finish", lanes))
    scheduled = Trace((Tile((2 * lanes,), rows), *moves)).apply(case.product)
    instruction, register = TARGETS[name]
    lines = hottest(assembly(scheduled.func, target), instruction).split("\n")
    arithmetic = [
        line for line in lines if line.startswith((f"\t{instruction}", "\tvmul", "\tvadd", "\tfmul", "\tfadd"))
    ]
    assert arithmetic and all(line.startswith(f"\t{instruction}") and register in line for line in arithmetic)
    assert not spills("\n".join(lines))


def test_a_target_without_fma_multiplies_and_adds():
    case, _ = KINDS["sparse"]
    text = hottest(assembly(trace(case).apply(case.product).func, Target.parse("x86-64-v2")), "addps")
    assert text.count("mulps") == text.count("addps") > 0
