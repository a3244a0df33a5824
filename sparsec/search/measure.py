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
from sparsec.graph.plan_memory import SLACK
from sparsec.ir.levels import Dense
from sparsec.ir.product import Product
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.rules.product import Proposal, candidates, propose
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target

RUNS = 20  # of each candidate; the median counts


class Measured:
    """Chooses the layout and the tiles of products by timing the most promising candidates.

    Layers of one form, with about as many nonzeros and blocks of them, are timed once.
    """

    def __init__(self) -> None:
        self._winners: dict[tuple[Product, tuple[float, ...]], Proposal] = {}

    def __call__(self, product: Product, matrix: np.ndarray | None, target: Target) -> Proposal:
        """Return the fastest candidate for a product; one of activations is left to the model."""
        if matrix is None:
            return propose(product, matrix, target)
        weight = Weight(matrix)
        shares = tuple(round(weight.blocks(r) * r / matrix.size, 2) for r in (1, 2, 4, 8))
        form = product, shares
        if form not in self._winners:
            self._winners[form] = fastest(candidates(product, matrix, target), matrix, target)
        return self._winners[form]


def fastest(proposals: Sequence[Proposal], matrix: np.ndarray, target: Target) -> Proposal:
    """Return the candidate that takes the least time on one thread with warm caches.

    Its times, and that of the dense layout, are the measured ones where a dense candidate is among the proposals. Where
    the product has symbolic sizes nothing is timed, and the first candidate is returned.

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
    times = [step.seconds for step in session.profile(runs=RUNS)]
    best = min(range(len(proposals)), key=times.__getitem__)
    dense = [seconds for seconds, proposal in zip(times, proposals, strict=True) if _is_dense(proposal)]
    winner = proposals[best]
    return replace(winner, seconds=times[best], dense_seconds=min(dense, default=winner.dense_seconds))


def _is_dense(proposal: Proposal) -> bool:
    layout = proposal.product.weight.layout
    return layout is None or all(isinstance(level, Dense) for _, level in layout.levels)


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
