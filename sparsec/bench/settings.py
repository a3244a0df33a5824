"""Races of an engine against itself: one model with other threads, in another batch, or in another form."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsec.bench.engine import Absent, Engine
from sparsec.bench.inputs import seeded_inputs
from sparsec.bench.racing import take_turns


@dataclass(frozen=True)
class Setting:
    """What an engine is to run.

    Parameters
    ----------
    model : path
        The ONNX file that inputs are made for.
    file : path
        What the engine reads: the same file, another form of it, or sparsec's artifact.
    threads : int
    """

    model: str | PathLike[str]
    file: str | PathLike[str]
    threads: int = 1


def compare_settings(
    engine: str,
    settings: Mapping[str, Setting],
    seconds: float = 20.0,
    python: str | None = None,
    pinned: bool = False,
) -> dict[str, list[float]]:
    """Let one engine take turns with itself.

    Parameters
    ----------
    engine : str
        A name that `race` knows, or ``sparsec``.
    settings : mapping
        By names that are free to choose.
    seconds, python, pinned
        As in `race`.

    Returns
    -------
    dict of list of float
        Seconds of one run, each round's median, of every setting that the engine can run.
    """
    with ExitStack() as stack:
        runners = []
        for label, setting in settings.items():
            with suppress(Absent):
                runners.append(stack.enter_context(_started(engine, setting, python, label, pinned)))
        rounds = take_turns(runners, seconds) if runners else []
    return {runner.name: [median(turn[runner.name]) for turn in rounds] for runner in runners}


def outputs(engine: str, setting: Setting, python: str | None = None) -> list[NDArray[Any]]:
    """What an engine that can run a setting answers, in the model's order."""
    with _started(engine, setting, python) as runner:
        return runner.outputs()


@contextmanager
def _started(
    engine: str, setting: Setting, python: str | None, label: str | None = None, pinned: bool = False
) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="sparsec-race-") as folder:
        np.savez(f"{folder}/inputs.npz", **seeded_inputs(setting.model))  # type: ignore[arg-type]
        runner = Engine(engine, str(setting.file), setting.threads, Path(folder), python, label, pinned)
        try:
            yield runner
        finally:
            runner.close()
