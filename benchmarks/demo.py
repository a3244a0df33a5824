"""Everything at once: train and prune a small network, compile pruned ones, check them, race them.

``make demo`` runs it, and it takes a few minutes.
"""

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console

import sparsec
from benchmarks import digits
from benchmarks.contest import compile_network
from benchmarks.models import write
from sparsec.bench import Race, race, summary_table
from sparsec.bench.machine import this_machine
from sparsec.errors import SparsecError

console = Console()
if not console.is_terminal:
    console.width = 120  # columns, which the tables need


def demonstrate_digits(folder: Path, threads: int, seconds: float) -> tuple[str, Race]:
    """Train, prune, compile and run a network that reads handwritten digits."""
    with console.status("training and pruning a network on handwritten digits"):
        trained = digits.train()
    right = trained.accuracy(digits.forward(trained.dense, trained.images))
    model = write(digits.export(trained.pruned, len(trained.images)), folder / "digits.onnx")
    artifact = folder / "digits.so"
    start = time.perf_counter()
    with console.status("compiling it"):
        sparsec.compile(model, threads=threads).save(artifact)
    compile_seconds = time.perf_counter() - start
    logits = np.asarray(sparsec.load(artifact, threads=threads)(trained.images))
    console.print(
        f"Digits: dense [b]{right:.1%}[/b] right, pruned to 90 % and compiled in {compile_seconds:.1f} s"
        f" [b]{trained.accuracy(logits):.1%}[/b] right, on {len(trained.images)} test images"
    )
    result = race(model, threads=threads, artifact=artifact, seconds=seconds)
    return f"digits, {len(trained.images)} images, 90 %", result


def demonstrate_network(network: str, folder: Path, threads: int, seconds: float) -> tuple[str, Race]:
    """Compile a network of a well-known shape at 90 % and race it."""
    with console.status(f"making and compiling {network}"):
        compiled = compile_network(network, 0.9, folder, threads)
    share = compiled.artifact.stat().st_size / compiled.model.stat().st_size
    console.print(f"{compiled.label}: compiled in {compiled.seconds:.1f} s to {share:.0%} of the ONNX file's size")
    with console.status(f"racing {network}"):
        result = race(compiled.model, threads=threads, artifact=compiled.artifact, seconds=seconds)
    return compiled.label, result


@click.command()
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=12.0, show_default=True, help="Budget of one race.")
def main(threads: int, seconds: float) -> None:
    """Compile pruned networks, check them against ONNX Runtime, and race them beside dense runtimes."""
    try:
        with tempfile.TemporaryDirectory(prefix="sparsec-demo-") as name:
            folder = Path(name)
            races = [demonstrate_digits(folder, threads, seconds / 3)]
            races += [demonstrate_network(network, folder, threads, seconds) for network in ("resnet50", "bert_base")]
    except SparsecError as error:
        raise click.ClickException(str(error)) from error
    console.print(summary_table(races, f"pruned networks on {this_machine()}"))
    for engine, reason in {engine: why for _, result in races for engine, why in result.absent.items()}.items():
        console.print(f"{engine} did not run: {reason}")
    wrong = [label for label, result in races if not result.lane("sparsec").agrees]
    if wrong:
        console.print(f"[bold red]Outputs differ from those of {races[0][1].reference}: {'; '.join(wrong)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
