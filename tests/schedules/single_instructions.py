"""Kernels of a single instruction each, and what they give."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tvm

from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.ir.instruction import Instruction
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Assign, Buffer, Const, For, Kernel, Load, Range, Var
from sparsec.ir.lower import lower
from sparsec.targets import Target


def kernel_of(instruction: Instruction) -> Kernel:
    """Return the kernel that carries it out, on what `start` holds if the instruction adds to its output."""
    semantics = replace(instruction.semantics, name=instruction.name.replace(".", "_"))
    (output,) = semantics.outputs
    nest = replace(instruction.nest, instruction=instruction.name)
    if not instruction.statement.accumulate:
        return replace(semantics, body=(nest,))
    axes = tuple(Range(f"s{n}", Const(0), Const(extent)) for n, extent in enumerate(_fixed(output)))
    index = tuple(Var(axis.var) for axis in axes)
    copy = For(axes, (Assign(Load(output.name, index), Load("start", index)),))
    inputs = (*semantics.inputs, Buffer("start", output.dtype, output.shape))
    return replace(semantics, inputs=inputs, body=(copy, nest))


def plan_of(instructions: Sequence[Instruction], target: Target) -> Plan:
    """Return a plan with a step for each kernel, with the instruction itself if the target emits it."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    calls, functions = [], {}
    for instruction in instructions:
        kernel = kernel_of(instruction)
        first = len(inputs)
        inputs += [_tensor(kernel, buffer, Storage("input", first + n)) for n, buffer in enumerate(kernel.inputs)]
        calls.append((kernel.name, range(first, len(inputs))))
        outputs.append(_tensor(kernel, kernel.outputs[0], Storage("output", len(outputs))))
        functions[kernel.name] = lower(kernel, target.emits).func
    count = len(inputs)
    steps = [Step(name, (*taken, count + n), name) for n, (name, taken) in enumerate(calls)]
    ports = [*range(count)], [*range(count, count + len(outputs))]
    return Plan([*inputs, *outputs], *ports, steps, [], 0, tvm.IRModule(functions), target)


def _tensor(kernel: Kernel, buffer: Buffer, storage: Storage) -> Tensor:
    return Tensor(f"{kernel.name}.{buffer.name}", _fixed(buffer), buffer.dtype, storage)


def expect(instruction: Instruction, operands: list[np.ndarray]) -> np.ndarray:
    """Return what the interpreter makes of the kernel."""
    kernel = kernel_of(instruction)
    given = dict(zip((buffer.name for buffer in kernel.inputs), operands, strict=True))
    return interpret(kernel, given)[kernel.outputs[0].name]


def draw(instruction: Instruction, seed: int = 0) -> list[np.ndarray]:
    """Return operands: all bytes, and floats that are multiples of an eighth, so that sums of products are exact."""
    random = np.random.default_rng(seed)
    operands = []
    for buffer in kernel_of(instruction).inputs:
        dtype = np.dtype(buffer.dtype)
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            low, high = max(limits.min, -(2**20)), min(limits.max, 2**20)
            operands.append(random.integers(low, high, _fixed(buffer), endpoint=True, dtype=dtype))
        else:
            operands.append((random.integers(-64, 65, _fixed(buffer)) / 8).astype(dtype))
    return operands


def _fixed(buffer: Buffer) -> tuple[int, ...]:
    return tuple(int(dim) for dim in buffer.shape)
