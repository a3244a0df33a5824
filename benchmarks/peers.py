"""Race sparsec against the fastest runtimes there are, dense ones and DeepSparse, and keep what each race gave.

Every engine runs the same ONNX file, of opset 13, on the same cores, as many as it has threads. Of int8 networks each
peer runs the form that it is fastest on, which a heat before the race finds. Results are kept after every race, and a
rerun replaces the rows that it measures and no others.

    python -m benchmarks.peers -s fp32 -r "ResNet-50, 224², 90 %" --seconds 60

DeepSparse is closed, ended in 2025, and may be used for evaluation only; it needs an environment of its own. Compiled
for AVX2, sparsec races against peers with all instructions that the processor has: ONNX Runtime cannot be told to leave
some out, and of the released OpenVINO `ONEDNN_MAX_CPU_ISA` holds back oneDNN alone.
"""

from pathlib import Path

import click
from rich.console import Console

from benchmarks.keep import keep, kept
from benchmarks.peers_course import DENSE, Course
from benchmarks.peers_rows import SECTIONS, Row
from sparsec.bench import race_table
from sparsec.errors import SparsecError
from sparsec.targets.native import physical_cores

RESULTS = Path(__file__).parent / "results" / "peers"
DEEPSPARSE = ".cache/deepsparse/bin/python"


def chosen(sections: tuple[str, ...], texts: tuple[str, ...]) -> list[Row]:
    """Rows of the sections, those that hold one of the texts if there are any."""
    rows = [row for section in SECTIONS if section in sections for row in SECTIONS[section]]
    return [row for row in rows if not texts or any(text in row.key for text in texts)]


def peers_of(console: Console, python: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Engines to race against, and the interpreters of those that need their own."""
    if python.exists():
        return (*DENSE, "deepsparse"), {"deepsparse": str(python.absolute())}
    console.print(f"DeepSparse takes no part, for there is no {python}: it needs a Python of at most 3.11.")
    return DENSE, {}


@click.command()
@click.option("-s", "--section", "sections", multiple=True, type=click.Choice(list(SECTIONS)), default=tuple(SECTIONS),
              show_default=True)  # fmt: skip
@click.option("-r", "--row", "texts", multiple=True, help="Only rows whose names hold this text.")
@click.option("--seconds", default=30.0, show_default=True, help="Budget of one race.")
@click.option("--cache", default=".cache/models", show_default=True, type=click.Path(path_type=Path),
              help="Where models are kept.")  # fmt: skip
@click.option("--deepsparse", default=DEEPSPARSE, show_default=True, type=click.Path(path_type=Path),
              help="The interpreter of an environment that holds DeepSparse.")  # fmt: skip
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/peers/<machine>.json.")
def main(
    sections: tuple[str, ...],
    texts: tuple[str, ...],
    seconds: float,
    cache: Path,
    deepsparse: Path,
    output: Path | None,
) -> None:
    """Race sparsec against ONNX Runtime, OpenVINO and DeepSparse."""
    console, failures = Console(width=140), []
    try:
        results = {"rows": {}} | kept(RESULTS, output)
    except SparsecError as error:
        raise click.ClickException(str(error)) from error
    course = Course(cache, seconds, *peers_of(console, deepsparse))
    rows = chosen(sections, texts)
    for number, row in enumerate(rows, 1):
        console.print(f"{number} of {len(rows)}, {row.key}")
        if row.threads > physical_cores():
            console.print(f"left out: this process may use {physical_cores()} of the {row.threads} cores that it needs")
            continue
        try:
            with console.status("compiling"):
                course.compiled(row)
            with console.status("racing"):
                result, found = course.race(row)
        except SparsecError as error:
            failures.append(f"{row.key}: {error}")
            console.print(failures[-1], style="red")
            continue
        results["rows"][row.key] = found
        path = keep(results, RESULTS, output)
        console.print(race_table(result), f"kept in {path}")
    if failures:
        raise click.ClickException("; ".join(failures))


if __name__ == "__main__":
    main()
