"""Products of all types by instructions that this machine does not have, to the last bit."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm.ir import GlobalVar

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.rules.product import propose
from sparsec.schedules.steps import Tensorize
from sparsec.targets import Target
from tests import qemu
from tests.ir.product_cases import Case, linear, sparse

SLACK = 256  # bytes behind X, which kernels may read

SHAPES = [(30, 37, 50, 1.0), (30, 37, 50, 0.3), (32, 64, 7, 1.0), (13, 48, 16, 0.4), (16, 3, 20, 1.0), (5, 24, 1, 1.0)]
"""Rows, depth, columns, density."""


def cases(x: str, weight: str) -> list[Case]:
    """Products of small whole numbers, whose sums are exact in any order."""
    made = []
    for number, (rows, depth, columns, density) in enumerate(SHAPES):
        case = linear(sparse(rows, depth, density), columns)
        arrays = {"W": case.arrays["W"].astype(weight), "X": np.abs(case.arrays["X"]).astype(x)}
        if x != "uint8":
            arrays["X"] = case.arrays["X"].astype(x)
        y = "int32" if "int8" in x else "float32"
        product = replace(
            case.product,
            name=f"linear_{number}",
            weight=replace(case.product.weight, dtype=weight),
            x=replace(case.product.x, dtype=x),
            y=replace(case.product.y, dtype=y),
            rounded=y == "float32",
        )
        wanted = arrays["W"].astype(y) @ arrays["X"].astype(y).reshape(depth, columns)
        made.append(Case(product, arrays, wanted.reshape(case.expected.shape)))
    return made


def plan_of(products: Sequence[Case], target: Target) -> tuple[Plan, set[str]]:
    """A plan with a step for each product, as rules propose it for the target, and the instructions that they name."""
    plan = Plan([], [], [], [], [], 0, tvm.IRModule({}), target)
    named: set[str] = set()
    for case in products:
        matrix = case.arrays["W"]
        proposal = propose(case.product, matrix, target)
        named |= {step.instruction for step in proposal.trace.steps if isinstance(step, Tensorize)}
        scheduled = proposal.trace.apply(replace(proposal.product, name=case.product.name), target.emits)
        packed = {part: scheduled.pack(part, held) for part, held in proposal.product.parts(matrix).items()}
        args = []
        for buffer, array in scheduled.lowered.parameters:
            if array:
                data = packed[buffer][array]
                plan.constants.append(data)
                storage = Storage("constant", len(plan.constants) - 1)
                plan.tensors.append(Tensor(array, data.shape, str(data.dtype), storage))
            else:
                plan.tensors.append(_port(plan, case, buffer))
            args.append(len(plan.tensors) - 1)
        plan.module.update_func(GlobalVar(case.product.name), expand_math(scheduled.func))
        plan.steps.append(Step(case.product.name, tuple(args), case.product.name))
    return plan, named


def _port(plan: Plan, case: Case, buffer: str) -> Tensor:
    """What a kernel reads is part of an input; what it writes is an output."""
    if buffer == "Y":
        plan.outputs.append(len(plan.tensors))
        y = case.product.y
        return Tensor(f"{case.product.name}.Y", case.expected.shape, y.dtype, Storage("output", len(plan.outputs) - 1))
    x, storage = case.arrays[buffer], Storage("input", len(plan.inputs))
    plan.tensors.append(Tensor(f"{case.product.name}.X", (x.size + SLACK,), str(x.dtype), storage))
    plan.inputs.append(len(plan.tensors) - 1)
    return Tensor(buffer, x.shape, str(x.dtype), storage)


def inputs_of(products: Sequence[Case]) -> list[np.ndarray]:
    """The activations, each with what is not to matter behind it."""
    return [np.pad(case.arrays["X"].ravel(), (0, SLACK), constant_values=1) for case in products]


@pytest.mark.skipif(bool(qemu.missing()), reason=qemu.missing())
@pytest.mark.parametrize(
    ("target", "x", "weight", "instruction"),
    [
        ("aarch64", "int8", "int8", "fma.4"),
        ("neoverse-n1", "int8", "int8", "arm.sdot.128"),
        ("neoverse-n1", "uint8", "int8", "fma.4"),
        ("armv8.6", "int8", "int8", "arm.smmla.128"),
        ("armv8.6", "uint8", "int8", "arm.usdot.128"),
        ("armv8.6", "bfloat16", "bfloat16", "arm.bfmmla.128"),
    ],
)
def test_under_qemu(target: str, x: str, weight: str, instruction: str) -> None:
    products = cases(x, weight)
    plan, named = plan_of(products, Target.parse(target))
    assert instruction in named
    found = qemu.run(build(plan), *inputs_of(products))
    for case, y in zip(products, found, strict=True):
        np.testing.assert_array_equal(y, case.expected)


@pytest.mark.parametrize(
    ("target", "x", "weight", "instruction"),
    [
        ("armv8.6", "int8", "int8", "arm.smmla.128"),
        ("armv8.6", "bfloat16", "bfloat16", "arm.bfmmla.128"),
        ("haswell", "uint8", "int8", "x86.vpmaddwd.256"),
        ("cascadelake", "uint8", "int8", "x86.vpdpbusd.512"),
        ("sapphirerapids", "bfloat16", "bfloat16", "x86.vdpbf16ps.512"),
        ("sm_80", "int8", "int8", "cuda.mma_s8.m16n8k32"),
        ("sm_80", "float16", "float16", "cuda.mma_f16.m16n8k16"),
        ("sm_90", "bfloat16", "bfloat16", "cuda.mma_bf16.m16n8k16"),
        ("sm_90", "float8_e4m3fn", "float8_e4m3fn", "cuda.mma_e4m3.m16n8k32"),
    ],
)
def test_emulated(target: str, x: str, weight: str, instruction: str) -> None:
    products = cases(x, weight)
    plan, named = plan_of(products, Target.parse(f"emulate:{target}"))
    assert instruction in named
    found = build(plan).load(threads=1)(*inputs_of(products))
    for case, y in zip(products, found, strict=True):
        np.testing.assert_array_equal(y, case.expected)
