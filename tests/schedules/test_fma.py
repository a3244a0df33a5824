"""The vector multiply-add: what it computes, and which machine instruction it becomes."""

import numpy as np
import pytest
import tvm
from tvm.s_tir import TensorIntrin

from sparsec.ir.named import CSR, dense_blocks, depth_blocked
from sparsec.schedules.intrinsics.fma import fma
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.product_cases import attention, linear, sparse, trace
from tests.schedules.assembly import assembly, hottest, spills


@pytest.mark.parametrize("form", ["desc", "impl"])
@pytest.mark.parametrize(("lanes", "dtype"), [(2, "float32"), (5, "float32"), (16, "float32"), (8, "float64")])
def test_the_loop_and_what_is_emitted_compute_the_same(lanes, dtype, form):
    func = getattr(TensorIntrin.get(fma(lanes, dtype)), form).with_attr("global_symbol", "main")
    random = np.random.default_rng(lanes)
    a, x, c = (random.integers(-9, 9, extent).astype(dtype) for extent in (1, lanes, lanes))
    result = tvm.runtime.tensor(c)
    tvm.compile(tvm.IRModule({"main": func}), target="llvm")["main"](*map(tvm.runtime.tensor, (a, x)), result)
    np.testing.assert_array_equal(result.numpy(), c + a * x)


def test_it_is_declared_once():
    assert fma(16, "float32") == fma(16, "float32") == "sparsec.fma.float32x16"
    assert len({fma(16, "float32"), fma(8, "float32"), fma(8, "float64")}) == 3


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
    moves = (Vectorize("init", lanes), Tensorize("update", "fma", lanes), Vectorize("finish", lanes))
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
