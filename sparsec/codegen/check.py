"""Check that a plan calls its kernels with the tensors that they expect: what TVM would check again in every call."""

from collections.abc import Iterator, Mapping
from math import prod

from sparsec.codegen.lower import Kernel, dtype_of
from sparsec.codegen.plan import Plan, Step, Tensor
from sparsec.errors import ArtifactError
from sparsec.runtime.dims import evaluate

AS_BITS = {"bfloat16": "uint16"}
"""What kernels that only move elements may take a type as."""


def check_calls(plan: Plan, kernels: Mapping[str, Kernel]) -> None:
    """Compare the arguments of every step with the parameters of its kernel, at both bounds of the symbols.

    Raises
    ------
    ArtifactError
        Naming the step and the first argument that does not fit.
    """
    for step in plan.steps:
        for problem in _problems(plan, kernels, step):
            raise ArtifactError(f"the plan is inconsistent: step {step.label!r} (kernel {step.kernel}) {problem}")


def argument_shapes(plan: Plan, step: Step, symbols: Mapping[str, int]) -> list[list[int]]:
    """The shapes of a step's arguments for these values of the symbols."""
    return [[evaluate(dim, symbols) for dim in plan.tensors[arg].shape] for arg in step.args]


def _problems(plan: Plan, kernels: Mapping[str, Kernel], step: Step) -> Iterator[str]:
    kernel = kernels[step.kernel]
    if len(kernel.buffers) != len(step.args):
        yield f"has {len(step.args)} arguments, but its kernel takes {len(kernel.buffers)} buffers"
        return
    for scalar in kernel.scalars:
        if dtype_of(scalar) not in ("int32", "int64"):
            yield f"takes the scalar {scalar.name!r} in {dtype_of(scalar)}; it must be int32 or int64"
        if scalar.name not in plan.upper:
            yield f"takes the scalar {scalar.name!r}, which is not a symbol of the plan"
    tensors = [plan.tensors[arg] for arg in step.args]
    for size in kernel.sizes:
        if size.axis >= len(tensors[size.buffer].shape):
            yield f"reads axis {size.axis} of {_describe(tensors[size.buffer])}"
            return
    for tensor, buffer in zip(tensors, kernel.buffers, strict=True):
        if dtype_of(buffer) not in (tensor.dtype, AS_BITS.get(tensor.dtype)):
            yield f"expects {buffer.name!r} in {dtype_of(buffer)}, but gets {_describe(tensor)}"
    for symbols in (plan.lower, plan.upper):
        given = argument_shapes(plan, step, symbols)
        for tensor, shape, expected in zip(tensors, given, kernel.expected_shapes(given), strict=True):
            known = [dim for dim in expected if dim is not None]
            if len(known) == len(expected) and prod(known) != prod(shape):
                yield f"expects the shape {expected} for {_describe(tensor)}"


def _describe(tensor: Tensor) -> str:
    return f"{tensor.name!r} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"
