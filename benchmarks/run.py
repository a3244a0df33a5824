"""Race sparsec against dense runtimes on BERT-base and ResNet-50, dense and pruned, and keep the results as JSON.

``make bench`` runs everything. One race alone:

    python -m benchmarks.run -n resnet50 -s 0.9 -t 1
"""

from pathlib import Path

import click
from rich.console import Console

from benchmarks.contest import Contest, compile_network, contest
from benchmarks.keep import keep
from benchmarks.models import MODELS
from sparsec.bench import race_table, summary_table
from sparsec.bench.machine import this_machine
from sparsec.errors import SparsecError

RESULTS = Path(__file__).parent / "results"
PEERS = ("onnxruntime", "openvino")


@click.command()
@click.option("-n", "--network", "networks", multiple=True, type=click.Choice(sorted(MODELS)),
              default=("bert_base", "resnet50"), show_default=True)  # fmt: skip
@click.option("-s", "--sparsity", "sparsities", multiple=True, type=click.FloatRange(0, 1),
              default=(0.0, 0.9), show_default=True)  # fmt: skip
@click.option("-t", "--threads", "thread_counts", multiple=True, type=click.IntRange(min=1),
              default=(1, 2), show_default=True)  # fmt: skip
@click.option("--seconds", default=30.0, show_default=True, help="Budget of one race.")
@click.option("--cache", default=".cache/models", show_default=True, type=click.Path(path_type=Path),
              help="Where models are kept.")  # fmt: skip
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/<machine>.json.")
def main(
    networks: tuple[str, ...],
    sparsities: tuple[float, ...],
    thread_counts: tuple[int, ...],
    seconds: float,
    cache: Path,
    output: Path | None,
) -> None:
    """Race sparsec against ONNX Runtime and OpenVINO on networks made from a seed."""
    console = Console()
    contests: list[Contest] = []
    try:
        for network in networks:
            for sparsity in sparsities:
                for threads in thread_counts:
                    with console.status(f"compiling {network} at {sparsity:.0%} for {threads} threads"):
                        compiled = compile_network(network, sparsity, cache, threads)
                    console.print(f"{compiled.label}: compiled in {compiled.seconds:.1f} s")
                    with console.status(f"racing {network} at {sparsity:.0%} with {threads} threads"):
                        contests.append(contest(compiled, threads, seconds, PEERS))
                    console.print(race_table(contests[-1].race))
    except SparsecError as error:
        raise click.ClickException(str(error)) from error
    races = [(done.compiled.label, done.race) for done in contests]
    console.print(summary_table(races, f"sparsec against dense runtimes on {this_machine()}"))
    path = keep({"contests": [done.to_json() for done in contests]}, RESULTS, output)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
