"""Plans of a single step that is a single instruction, and what they should give."""

from dataclasses import replace
from math import prod

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.ir.instruction import Instruction
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Assign, Buffer, Const, For, Kernel, Load, Range, Var
from sparsec.ir.lower import lower
from sparsec.targets import Target


def plan_of(instruction: Instruction, target: Target) -> Plan:
    """Return a plan that takes the operands, and what the output holds before if it is added to."""
    return _plan(instruction, _function(instruction), target)


def plan_of_loops(instruction: Instruction, target: Target) -> Plan:
    """Return the plan that does the same by the loops of the semantics."""
    return _plan(instruction, lower(_with_start(instruction)).func, target)


def _plan(instruction: Instruction, function: tvm.tirx.PrimFunc, target: Target) -> Plan:
    inputs = _inputs(instruction)
    (output,) = instruction.semantics.outputs
    tensors = [Tensor(b.name, _fixed(b), b.dtype, Storage("input", n)) for n, b in enumerate(inputs)]
    tensors.append(Tensor(output.name, _fixed(output), output.dtype, Storage("output", 0)))
    name = str(function.attrs["global_symbol"])
    step = Step(name, tuple(range(len(tensors))), "instruction")
    module = tvm.IRModule({name: function})
    return Plan(tensors, [*range(len(inputs))], [len(inputs)], [step], [], 0, module, target)


def expect(instruction: Instruction, operands: list[np.ndarray]) -> np.ndarray:
    """Return what the interpreter makes of the semantics."""
    kernel = _with_start(instruction)
    given = dict(zip((buffer.name for buffer in kernel.inputs), operands, strict=True))
    return interpret(kernel, given)[kernel.outputs[0].name]


def _with_start(instruction: Instruction) -> Kernel:
    """Return the semantics, after what the output holds before."""
    semantics = instruction.semantics
    (output,) = semantics.outputs
    if not instruction.statement.accumulate:
        return semantics
    axes = tuple(Range(f"s{n}", Const(0), Const(extent)) for n, extent in enumerate(_fixed(output)))
    index = tuple(Var(axis.var) for axis in axes)
    copy = For(axes, (Assign(Load(output.name, index), Load("start", index)),))
    return replace(semantics, inputs=tuple(_inputs(instruction)), body=(copy, *semantics.body))


def draw(instruction: Instruction, seed: int = 0) -> list[np.ndarray]:
    """Return operands: all bytes, and floats that are multiples of an eighth, so that sums of products are exact."""
    random = np.random.default_rng(seed)
    operands = []
    for buffer in _inputs(instruction):
        dtype = np.dtype(buffer.dtype)
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            low, high = max(limits.min, -(2**20)), min(limits.max, 2**20)
            operands.append(random.integers(low, high, _fixed(buffer), endpoint=True, dtype=dtype))
        else:
            operands.append((random.integers(-64, 65, _fixed(buffer)) / 8).astype(dtype))
    return operands


def _inputs(instruction: Instruction) -> list[Buffer]:
    (output,) = instruction.semantics.outputs
    start = [Buffer("start", output.dtype, output.shape)] if instruction.statement.accumulate else []
    return [*instruction.semantics.inputs, *start]


def _fixed(buffer: Buffer) -> tuple[int, ...]:
    return tuple(int(dim) for dim in buffer.shape)


def _function(instruction: Instruction) -> tvm.tirx.PrimFunc:
    (output,) = instruction.semantics.outputs
    with IRBuilder() as builder, T.prim_func(is_private=False, s_tir=True):
        T.func_name("kernel")
        T.func_attr({"global_symbol": "kernel", "tirx.noalias": True})
        buffers = [*_inputs(instruction), output]
        handles = [T.arg(b.name, T.buffer((prod(_fixed(b)),), b.dtype)) for b in buffers]
        with T.sblock("root"), T.sblock("instruction"):
            T.reads(*(handle[0 : handle.shape[0]] for handle in handles[:-1]))
            T.writes(handles[-1][0 : handles[-1].shape[0]])
            names = [*(b.name for b in instruction.semantics.inputs), output.name]
            loaded = [_load(h, instruction.pieces(n)) for h, n in zip(handles[:-1], names, strict=False)]
            results = instruction.emit(*loaded)
            results = results if isinstance(results, list) else [results]
            lanes = int(handles[-1].shape[0]) // len(results)
            for number, result in enumerate(results):
                T.buffer_store(handles[-1], result, [T.ramp(number * lanes, 1, lanes)])
    return builder.get()


def _load(handle: tvm.tirx.Buffer, pieces: int) -> object:
    lanes = int(handle.shape[0]) // pieces
    vectors = [handle[T.ramp(number * lanes, 1, lanes)] for number in range(pieces)]
    return vectors if pieces > 1 else vectors[0]
