"""`sparsec run`: run a compiled model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from sparsec.cli.options import MODEL, NamedFile, json_flag, shape_option, threads_option

if TYPE_CHECKING:
    import numpy as np

    from sparsec.runtime.session import Session

MOST_RUNS, MOST_SECONDS = 20, 0.2
"""A model is timed this often, or for this long, whichever is over first."""


@click.command(
    epilog="""\b
Examples:
  sparsec run resnet50.so
  sparsec run resnet50.so --input image=cat.npy --output results
  sparsec run bert.so --shape batch=1 --shape sequence=64 --threads 2 --json"""
)
@click.argument("artifact", type=MODEL)
@click.option(
    "--input", "files", type=NamedFile(), multiple=True, help="A NumPy file for an input; the others are random."
)
@shape_option("Sizes of a random input whose dimensions are open; the largest otherwise.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="For random inputs.")
@click.option("--output", type=click.Path(path_type=Path), help="A folder to write each output to, as NAME.npy.")
@threads_option
@json_flag
def run(
    artifact: Path,
    files: Sequence[tuple[str, Path]],
    shapes: dict[str, Any],
    seed: int,
    output: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run a compiled library.

    ARTIFACT is what `sparsec compile` wrote. Shows what came out, and can keep it.
    """
    import sparsec
    from sparsec.cli.inputs import random_inputs, read_inputs
    from sparsec.report import plural, print_json, screen, seconds_text, summarize_tensor, tensor_table

    session = sparsec.load(artifact, threads=threads)
    given = read_inputs(files, session.inputs)
    inputs = random_inputs(session, shapes, seed, skip=given) | given
    result, times = _run(session, inputs)
    seconds = median(times)
    names = [info.name for info in session.outputs]
    outputs = dict(zip(names, result if isinstance(result, tuple) else (result,), strict=True))
    summaries = [summarize_tensor(name, array) for name, array in outputs.items()]
    if output is not None:
        for summary, path in zip(summaries, _save(outputs, output), strict=True):
            summary["file"] = str(path)
    if as_json:
        print_json({"seconds": seconds, "runs": len(times), "threads": session.threads, "outputs": summaries})
        return
    random = [name for name in inputs if name not in given]
    note = f" on random {', '.join(random)}" if random else ""
    label = f"median {seconds_text(seconds)} of {plural(len(times), 'run')}"
    screen().print(f"{artifact}: {label}, {plural(session.threads, 'thread')}{note}")
    screen().print(tensor_table(summaries))
    if output is not None:
        screen().print(f"written to {output}")


def _run(session: Session, inputs: dict[str, np.ndarray]) -> tuple[Any, list[float]]:
    """What the model returns, and the seconds of each run but a first one, which touches the memory."""
    result = session(**inputs)
    times: list[float] = []
    while len(times) < MOST_RUNS and sum(times) < MOST_SECONDS:
        start = time.perf_counter()
        session(**inputs)
        times.append(time.perf_counter() - start)
    return result, times


def _save(outputs: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Write each output beside its place first, so that no half of it is ever seen."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, (name, array) in enumerate(outputs.items()):
        safe = re.sub(r"[^\w.-]", "_", name)
        path = folder / (f"{safe}.npy" if safe == name else f"{index}_{safe}.npy")
        beside = path.with_name(f".{path.name}.new")
        try:
            with beside.open("wb") as file:
                np.save(file, array)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        paths.append(path)
    return paths
