"""Races of an engine against itself: one model with other threads, in another batch, or in another form."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from statistics import median

import numpy as np

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
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsec-race-")))
            np.savez(folder / "inputs.npz", **seeded_inputs(setting.model))  # type: ignore[arg-type]
            try:
                runner = Engine(engine, str(setting.file), setting.threads, folder, python, label, pinned)
            except Absent:
                continue
            stack.callback(runner.close)
            runners.append(runner)
        rounds = take_turns(runners, seconds) if runners else []
    return {runner.name: [median(turn[runner.name]) for turn in rounds] for runner in runners}
