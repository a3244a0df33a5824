"""Timing the candidates of a product on this machine."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import prod
from statistics import median

import numpy as np
from tvm.ir import GlobalVar, IRModule

from sparsec.codegen.artifact import build
from sparsec.codegen.plan import ALIGNMENT, Plan, Step, Storage, Tensor
from sparsec.errors import TargetError
from sparsec.graph.plan_memory import SLACK
from sparsec.ir.fragments import CODE
from sparsec.ir.kernel import Kernel
from sparsec.ir.product import Product
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.rules.product import Proposal, candidates, propose
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target

RUNS = 20  # of each candidate; the median counts


class Measured:
    """Chooses the layout and the tiles of products by timing the most promising candidates.

    Layers of one form, with about as many nonzeros and blocks of them, and the same candidates, are timed once.
    """

    def __init__(self) -> None:
        self._winners: dict[Hashable, Proposal] = {}

    def __call__(
        self, product: Product, matrix: np.ndarray | None, target: Target, only_dense: bool = False
    ) -> Proposal:
        """Return the fastest candidate for a product, or dense one; a product of activations is left to the model."""
        if matrix is None:
            return propose(product, matrix, target)
        weight = Weight(matrix)
        shares = tuple(round(weight.blocks(r) * r / matrix.size, 2) for r in (1, 2, 4, 8))
        proposals = candidates(product, matrix, target, only_dense=only_dense)
        form = product, shares, frozenset((proposal.product, proposal.trace) for proposal in proposals)
        if form not in self._winners:
            self._winners[form] = fastest(proposals, matrix, target)
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
    times = measure(proposals, matrix, target)
    best = min(range(len(proposals)), key=times.__getitem__)
    dense = [seconds for seconds, proposal in zip(times, proposals, strict=True) if proposal.family == "dense"]
    winner = proposals[best]
    dense_seconds = min(dense, default=winner.dense_seconds)
    return replace(winner, seconds=times[best], dense_seconds=dense_seconds, timed=bool(dense))


def measure(proposals: Sequence[Proposal], matrix: np.ndarray, target: Target, rounds: int = 1) -> list[float]:
    """Return the seconds that each candidate takes: the median over some rounds of `RUNS` turns each.

    Parameters
    ----------
    proposals : candidates for one product whose sizes are all known
    matrix, target : as in `fastest`

    Raises
    ------
    TargetError : if this machine cannot run code for the target
    """
    library = Candidates(proposals, matrix, target)
    return [median(turns) for turns in zip(*(library.time() for _ in range(rounds)), strict=True)]


class Candidates:
    """Candidates for one product, compiled into one library that times them on one thread with warm caches.

    Parameters
    ----------
    proposals, matrix, target : as in `measure`, which says what may go wrong
    """

    def __init__(self, proposals: Sequence[Proposal], matrix: np.ndarray, target: Target) -> None:
        plan = _plan(proposals, matrix, target)
        try:
            self._session = build(plan).load(threads=1)
        except TargetError as error:
            raise TargetError(f"candidates can be timed only on a machine that runs them: {error}") from error
        self._inputs = [_filled(plan.tensors[index]) for index in plan.inputs]

    def time(self, runs: int = RUNS) -> list[float]:
        """Return the median seconds of each. They take turns, each twice in a row, of which the second time counts."""
        return [step.seconds for step in self._session.profile(*self._inputs, runs=runs)[1::2]]


def _filled(tensor: Tensor) -> np.ndarray:
    """Return what a tensor is to hold: ones, so that all is written once, or pages of zeros would share one line."""
    return np.ones([int(dim) for dim in tensor.shape], tensor.dtype)


def _plan(proposals: Sequence[Proposal], matrix: np.ndarray, target: Target) -> Plan:
    """Put all candidates into one library, each twice in a row, over weights of its own and the same activations."""
    plan = Plan([], [], [], [], [], SLACK, IRModule({}), target)
    flops = 2 * int(np.count_nonzero(matrix))  # for one column: weights of products lie in memory as in a model
    activations: dict[str, int] = {}  # the tensor of each buffer that all candidates share
    for number, proposal in enumerate(proposals):
        name = f"candidate_{number}"
        scheduled = proposal.trace.apply(replace(proposal.product, name=name), target.emits)
        packed = {part: scheduled.pack(part, held) for part, held in proposal.product.parts(matrix).items()}
        args = []
        for buffer, array in scheduled.lowered.parameters:
            if array:
                data = packed[buffer][array]
                stored = plan.code if array == CODE else plan.constants
                storage = Storage("code" if array == CODE else "constant", len(stored))
                stored.append(data)
                args.append(_add(plan, f"{name}.{buffer}.{array}", data.shape, str(data.dtype), storage))
            else:
                if buffer not in activations:
                    activations[buffer] = _activation(plan, scheduled.kernel, buffer)
                args.append(activations[buffer])
        plan.module.update_func(GlobalVar(name), expand_math(scheduled.func))
        plan.steps += [Step(name, tuple(args), name, flops)] * 2
    return plan


def _activation(plan: Plan, kernel: Kernel, name: str) -> int:
    """Add what a kernel writes to the arena, and what it reads to the inputs, with room to read past its end."""
    buffer = kernel.buffers[name]
    shape = tuple(int(dim) for dim in buffer.shape)
    if buffer in kernel.outputs:
        offset = plan.arena_bytes
        nbytes = prod(shape) * np.dtype(buffer.dtype).itemsize + SLACK
        plan.arena_bytes += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return _add(plan, name, shape, buffer.dtype, Storage("arena", 0, offset))
    storage = Storage("input", len(plan.inputs))
    plan.inputs.append(_add(plan, f"{name} and more", (prod(shape) + SLACK,), buffer.dtype, storage))
    return _add(plan, name, shape, buffer.dtype, storage)


def _add(plan: Plan, name: str, shape: tuple[int, ...], dtype: str, storage: Storage) -> int:
    plan.tensors.append(Tensor(name, shape, dtype, storage))
    return len(plan.tensors) - 1
