"""`sparsec run`: run a compiled model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsec.cli.options import MODEL, NamedFile, json_flag, shape_option, threads_option

if TYPE_CHECKING:
    import numpy as np


@click.command(
    epilog="""\b
Examples:
  sparsec run resnet50.so
  sparsec run resnet50.so --input image=cat.npy --output results
  sparsec run bert.so --shape input_ids=1,64 --shape attention_mask=1,64 --threads 2 --json"""
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
    from sparsec.report import print_json, screen, seconds_text, summarize_tensor, tensor_table

    session = sparsec.load(artifact, threads=threads)
    given = read_inputs(files, session.inputs)
    inputs = random_inputs([info for info in session.inputs if info.name not in given], shapes, seed) | given
    start = time.perf_counter()
    result = session(**inputs)
    seconds = time.perf_counter() - start
    names = [info.name for info in session.outputs]
    outputs = dict(zip(names, result if isinstance(result, tuple) else (result,), strict=True))
    summaries = [summarize_tensor(name, array) for name, array in outputs.items()]
    if output is not None:
        for summary, path in zip(summaries, _save(outputs, output), strict=True):
            summary["file"] = str(path)
    if as_json:
        print_json({"seconds": seconds, "threads": session.threads, "outputs": summaries})
        return
    random = [name for name in inputs if name not in given]
    note = f" on random {', '.join(random)}" if random else ""
    screen().print(f"{artifact}: {seconds_text(seconds)}, {_threads(session.threads)}{note}")
    screen().print(tensor_table(summaries))
    if output is not None:
        screen().print(f"written to {output}")


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


def _threads(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)
