"""Floats of 8 bits are read exactly, subnormal numbers, infinities and NaN too."""

import numpy as np
import pytest
import tvm

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.ir.interpreter import interpret
from sparsec.ir.lower import lower
from sparsec.ir.parser import parse_kernel
from sparsec.ir.types import FLOATS_OF_8_BITS
from sparsec.targets import Target


@pytest.mark.parametrize("target", ["native", "x86-64-v2", "x86-64-v3"])
@pytest.mark.parametrize("dtype", FLOATS_OF_8_BITS)
def test_every_number(dtype: str, target: str) -> None:
    kernel = parse_kernel(
        f"kernel widen(x: {dtype}[256]) -> y: float32[256]:\n    for i in range(0, 256):\n        y[i] = x[i]"
    )
    x = np.arange(256, dtype=np.uint8).view(dtype)
    tensors = [Tensor("x", (256,), dtype, Storage("input", 0)), Tensor("y", (256,), "float32", Storage("output", 0))]
    module = tvm.IRModule({"widen": lower(kernel).func})
    plan = Plan(tensors, [0], [1], [Step("widen", (0, 1), "widen")], [], 0, module, Target.parse(target))
    wanted = x.astype(np.float32)
    np.testing.assert_array_equal(build(plan).load(threads=1)(x), wanted)
    np.testing.assert_array_equal(interpret(kernel, {"x": x})["y"], wanted)
