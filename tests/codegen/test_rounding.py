"""Rounding to bfloat16, as machine code."""

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.runtime.session import Session
from sparsec.targets import Target

COUNT = 4096
SPECIAL = [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000]
"""Some NaN, the infinities, what is rounded to one, and ties."""


@I.ir_module
class Round:
    @T.prim_func(s_tir=True)
    def vectors(x: T.Buffer((4096,), "float32"), y: T.Buffer((4096,), "bfloat16")):
        T.func_attr({"tirx.noalias": True})
        for i in range(256):
            for j in T.vectorized(16):
                with T.sblock("round"):
                    v = T.axis.spatial(4096, i * 16 + j)
                    y[v] = T.Cast("bfloat16", x[v])

    @T.prim_func(s_tir=True)
    def numbers(x: T.Buffer((4096,), "float32"), y: T.Buffer((4096,), "bfloat16")):
        T.func_attr({"tirx.noalias": True})
        for i in range(4096):
            with T.sblock("round"):
                v = T.axis.spatial(4096, i)
                y[v] = T.Cast("bfloat16", x[v])


def session(name: str) -> Session:
    tensors = [
        Tensor("x", (COUNT,), "float32", Storage("input", 0)),
        Tensor("y", (COUNT,), "bfloat16", Storage("output", 0)),
    ]
    module = tvm.IRModule({name: Round[name]})
    return build(Plan(tensors, [0], [1], [Step(name, (0, 1), name)], [], 0, module, Target.parse("native"))).load(1)


@pytest.mark.parametrize("name", ["vectors", "numbers"])
def test_bits_of_any_float32_are_rounded_to_nearest_even(name):
    bits = np.random.default_rng(0).integers(0, 2**32, COUNT, dtype=np.uint32)
    bits[: len(SPECIAL)] = SPECIAL
    x = bits.view(np.float32)
    with np.errstate(all="ignore"):
        expected = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(session(name)(x).astype(np.float32), expected)
