"""Timing the candidates of a product on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from tvm.ir import IRModule

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import ALIGNMENT, Plan, Step, Storage, Tensor
from sparsec.errors import TargetError
from sparsec.schedules.fast_math import expand_math
from sparsec.ir.product import Product
from sparsec.schedules.rules.product import Proposal, candidates, propose
from sparsec.targets import Target

RUNS = 20  # of each candidate; the fastest counts, since nothing makes a kernel faster than it is
SLACK = 1024  # bytes around every tensor: kernels read up to a few vectors past their images


class Measured:
    """Chooses the layout and the tiles of products by timing the most promising candidates.

    Layers of one form with about as many nonzeros are timed once.
    """

    def __init__(self) -> None:
        self._winners: dict[tuple[Product, float], Proposal] = {}

    def __call__(self, product: Product, matrix: np.ndarray | None, target: Target) -> Proposal:
        """Return the fastest candidate for a product; one of activations is left to the model."""
        if matrix is None:
            return propose(product, matrix, target)
        form = product, round(np.count_nonzero(matrix) / matrix.size, 2)
        if form not in self._winners:
            self._winners[form] = fastest(candidates(product, matrix, target), matrix, target)
        return self._winners[form]


def fastest(proposals: Sequence[Proposal], matrix: np.ndarray, target: Target) -> Proposal:
    """Return the candidate that takes the least time on one thread with warm caches, with the time that it took.

    Where the product has symbolic sizes nothing is timed, and the first candidate is returned.

    Parameters
    ----------
    proposals : candidates for one product, the most promising first
    matrix : float32 [rows, depth], the constant weight
    target : which this machine must be able to run

    Raises
    ------
    TargetError : if this machine cannot run code for the target
    """
    product = proposals[0].product
    if any(isinstance(dim, str) for buffer in (*product.inputs, product.y) for dim in buffer.shape):
        return proposals[0]
    plan = _plan(proposals, matrix, target)
    try:
        session = build(plan).load(threads=1)
    except TargetError as error:
        raise TargetError(f"candidates can be timed only on a machine that runs them: {error}") from error
    steps = session.profile(*(np.zeros(1, np.float32),) * len(session.inputs), runs=RUNS)
    times = {step.kernel: step.seconds for step in steps}
    best = min(range(len(proposals)), key=lambda number: times[f"candidate_{number}"])
    return replace(proposals[best], seconds=times[f"candidate_{best}"])


def _plan(proposals: Sequence[Proposal], matrix: np.ndarray, target: Target) -> Plan:
    """Put all candidates into one library, each over tensors of its own."""
    tensors: list[Tensor] = []
    constants: list[np.ndarray] = []
    steps = []
    functions = {}
    arena = SLACK
    for number, proposal in enumerate(proposals):
        name = f"candidate_{number}"
        scheduled = proposal.trace.apply(replace(proposal.product, name=name))
        packed = scheduled.pack(proposal.product.weight.name, matrix)
        args = []
        for buffer, array in scheduled.lowered.parameters:
            args.append(len(tensors))
            if array:
                constants.append(packed[array])
                data = packed[array]
                storage = Storage("constant", len(constants) - 1)
                tensors.append(Tensor(f"{name}.{array}", data.shape, str(data.dtype), storage))
            else:
                kind = scheduled.kernel.buffers[buffer]
                shape = tuple(int(dim) for dim in kind.shape)
                tensors.append(Tensor(f"{name}.{buffer}", shape, kind.dtype, Storage("arena", 0, arena)))
                arena += -(-(prod(shape) * np.dtype(kind.dtype).itemsize + SLACK) // ALIGNMENT) * ALIGNMENT
        functions[name] = expand_math(scheduled.func)
        steps.append(Step(name, tuple(args), name))
    return Plan(tensors, [], [], steps, constants, arena, IRModule(functions), target)
