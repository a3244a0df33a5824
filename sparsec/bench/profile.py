"""Where the time of a model goes, step by step, and how far each is from what a core can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from sparsec.bench.peak import find_peak
from sparsec.errors import SparsecError
from sparsec.report.measured import steps_of_layers
from sparsec.runtime.session import Session, StepTime

RUNS = 5  # of a model in its turn, of which the fastest counts for each step, since others may take its caches
ROUNDS = 5  # at least


@dataclass(frozen=True)
class ProfiledStep:
    """What was measured of one step.

    Parameters
    ----------
    label, kernel : the layer, and the function that computes it
    seconds : of the fastest call
    flops, instruction : as in `sparsec.runtime.session.StepTime`
    share_of_peak : what the useful operations reach of the rate at which the cores that run can carry out the
        instruction; None where there are none, or no loop measures the instruction
    dense_seconds : of the fastest call in the best dense layout; None where it was not measured or is the layer's own
    speedup : over the dense layout, the median of the ratios within rounds; like `dense_seconds` it is of the whole
        layer, with the transforms that stand around its product
    """

    label: str
    kernel: str
    seconds: float
    flops: int
    instruction: str
    share_of_peak: float | None = None
    dense_seconds: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class Profile:
    """The steps in the order in which they run, and operations a second that a core does at most, by instruction."""

    steps: tuple[ProfiledStep, ...]
    peaks: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured, ready for ``json.dump``."""
        return {"profile": [asdict(step) for step in self.steps], "peaks": dict(self.peaks)}


def profile(
    session: Session, inputs: Sequence[np.ndarray], dense: Session | None = None, seconds: float = 0.0
) -> Profile:
    """Time the steps of a model, beside loops that measure the peak of a core and beside its dense self.

    All take turns. Times and peaks are the best ones, which others on the machine disturb least, and of the ratios
    within rounds the medians count, as in races.

    >>> profile(sparsec.load("bert.so", threads=1), (ids, mask)).steps[0].share_of_peak  # doctest: +SKIP
    0.31

    Parameters
    ----------
    session, inputs : the model, and what it is fed
    dense : the same model, compiled with dense layouts only
    seconds : to go on for; five rounds are run even if they take longer

    Raises
    ------
    SparsecError
        The two models do not have the same layers.
    """
    steps = session.profile(*inputs, runs=1)
    others = _other_layouts(session, dense, steps, inputs) if dense else {}
    measures = _peaks(steps)
    times: list[list[float]] = []
    dense_times: list[list[float]] = []
    peaks = dict.fromkeys(measures, 0.0)
    end = time.perf_counter() + seconds
    while len(times) < ROUNDS or time.perf_counter() < end:
        times.append(_turn(session, inputs))
        if dense:
            dense_times.append(_turn(dense, inputs))
        for instruction, measure in measures.items():
            peaks[instruction] = max(peaks[instruction], measure())
    found = []
    for place, step in enumerate(steps):
        seconds = min((turn[place] for turn in times if turn[place]), default=0.0)
        fields: dict[str, float] = {"seconds": seconds}
        if step.instruction in peaks and seconds:
            fields["share_of_peak"] = step.flops / seconds / (session.threads * peaks[step.instruction])
        if place in others:
            mine, others_steps = others[place]
            theirs = [sum(turn[n] for n in others_steps) for turn in dense_times]
            ours = [sum(turn[n] for n in mine) for turn in times]
            ratio = median(slow / fast for slow, fast in zip(theirs, ours, strict=True))
            fields |= {"dense_seconds": min(theirs), "speedup": ratio}
        found.append(ProfiledStep(**{**asdict(step), **fields}))
    return Profile(tuple(found), peaks)


def _turn(session: Session, inputs: Sequence[np.ndarray]) -> list[float]:
    """Seconds of each step in the fastest of some runs; 0 where the clock of the thread stood still in all of them."""
    runs = (session.profile(*inputs, runs=1) for _ in range(RUNS))
    return [min((step.seconds for step in each if step.seconds), default=0.0) for each in zip(*runs, strict=True)]


def _peaks(steps: Sequence[StepTime]) -> dict[str, Callable[[], float]]:
    """What measures the instructions of these steps, where there is something."""
    measures = {step.instruction: find_peak(step.instruction) for step in steps if step.instruction}
    return {name: measure for name, measure in measures.items() if measure}


def _other_layouts(
    session: Session, dense: Session, steps: Sequence[StepTime], inputs: Sequence[np.ndarray]
) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return, by the step of its product, the steps of each layer that has another layout than in the dense model.

    Beside them are those of the layer there.
    """
    ours, theirs = session.manifest["layers"], dense.manifest["layers"]
    if [layer["name"] for layer in ours] != [layer["name"] for layer in theirs]:
        raise SparsecError("the model has other layers when it is compiled with dense layouts; it cannot be compared")
    own = steps_of_layers(ours, steps)
    others = steps_of_layers(theirs, dense.profile(*inputs, runs=1))
    layers = zip(own, others, ours, theirs, strict=True)
    return {mine[0]: (mine, its) for mine, its, a, b in layers if mine and its and a["layout"] != b["layout"]}
