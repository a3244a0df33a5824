"""Hold the choice of layouts against measurement, layer by layer.

For every layer of a grid, and for random ones that no constant was fitted to, the cheapest candidates of every family
of layouts that can hold the weight are compiled into one library and timed in turns, on one thread.
``make bench-layouts`` runs everything; fewer layers with

    python -m benchmarks.layouts --only "tile-wise" --held-out 0
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.keep import keep
from benchmarks.layouts_cases import Case, grid, held_out
from sparsec.bench.machine import this_machine
from sparsec.report.units import seconds_text
from sparsec.schedules.rules.product import Proposal, contenders, propose
from sparsec.search.measure import measure
from sparsec.targets import Target

RESULTS = Path(__file__).parent / "results" / "layouts"
RUNNERS_UP = 2  # candidates of each family
CLOSE = 1.10  # a choice that takes at most so much of the best time is a good one
ROUNDS = 3


@dataclass(frozen=True)
class Timed:
    """One candidate: its layout, the options of its tiles, and its predicted and measured seconds."""

    family: str
    layout: str
    tile: dict[str, Any]
    predicted: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """One layer: all candidates, and which of them was chosen."""

    case: Case
    timed: list[Timed]
    chosen: int

    @property
    def choice(self) -> Timed:
        """The candidate that the model prices lowest."""
        return self.timed[self.chosen]

    @property
    def best(self) -> Timed:
        """The candidate that takes least."""
        return min(self.timed, key=lambda timed: timed.seconds)

    @property
    def ratio(self) -> float:
        """Time of the choice over that of the best candidate."""
        return self.choice.seconds / self.best.seconds

    @property
    def over_dense(self) -> float:
        """Time of the choice over that of the best dense candidate."""
        return self.choice.seconds / min(timed.seconds for timed in self.timed if timed.family == "dense")

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {**asdict(self), "ratio": self.ratio, "over_dense": self.over_dense}


def race(case: Case, target: Target, rounds: int = ROUNDS) -> Outcome:
    """Time the candidates for one layer."""
    product, matrix = case.product(target)
    chosen = propose(product, matrix, target)
    families = contenders(product, matrix, target, RUNNERS_UP)
    proposals = [proposal for members in families.values() for proposal in members]
    number = [(one.product, one.trace) for one in proposals].index((chosen.product, chosen.trace))
    times = measure(proposals, matrix, target, rounds)
    return Outcome(case, [_timed(one, seconds) for one, seconds in zip(proposals, times, strict=True)], number)


def _timed(proposal: Proposal, seconds: float) -> Timed:
    tile = {option: value for option, value in vars(proposal.trace.steps[0]).items() if value}
    return Timed(proposal.name, str(proposal.product.layout), tile, proposal.seconds, seconds)


def outcome_table(outcomes: list[Outcome], title: str) -> Table:
    """One row for each layer."""
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    table.add_column("chosen")
    for column in ("predicted", "measured"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("best")
    for column in ("measured", "ratio", "dense ÷ chosen"):
        table.add_column(column, justify="right", no_wrap=True)
    for outcome in outcomes:
        choice, best = outcome.choice, outcome.best
        times = seconds_text(choice.predicted), seconds_text(choice.seconds), best.family, seconds_text(best.seconds)
        style = "" if outcome.ratio <= CLOSE else "yellow"
        ratios = f"{outcome.ratio:.2f}", f"{1 / outcome.over_dense:.2f}×"
        table.add_row(str(outcome.case), choice.family, *times, *ratios, style=style)
    return table


def verdict(outcomes: list[Outcome]) -> str:
    """Say how often the choice is good, and how bad it is at its worst."""
    good = sum(outcome.ratio <= CLOSE for outcome in outcomes)
    against_dense = max(outcomes, key=lambda outcome: outcome.over_dense)
    return (
        f"{good} of {len(outcomes)} choices ({good / len(outcomes):.0%}) within {CLOSE - 1:.0%} of the best; the worst "
        f"takes {max(outcome.ratio for outcome in outcomes):.2f} of the best time; against dense the worst takes "
        f"{against_dense.over_dense:.2f} ({against_dense.case})"
    )


@click.command()
@click.option("--only", default="", help="Layers whose name holds this text.")
@click.option("--held-out", "count", default=24, show_default=True, help="How many random layers to add.")
@click.option("--seed", default=1, show_default=True, help="Of the random layers; prices were fitted to those of 0.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Default: results/layouts/<machine>.json.")
def main(only: str, count: int, seed: int, rounds: int, output: Path | None) -> None:
    """Compare the layout that is chosen for each layer with the fastest of all candidates."""
    console, target = Console(width=150), Target.parse("native").with_cores(1)
    results: dict[str, Any] = {}
    for title, cases in {"grid": grid(), "held out": held_out(count, seed)}.items():
        outcomes = []
        for case in [case for case in dict.fromkeys(cases) if only in str(case)]:
            with console.status(str(case)):
                outcomes.append(race(case, target, rounds))
        if outcomes:
            console.print(outcome_table(outcomes, f"{title}: {len(outcomes)} layers on {this_machine()}"))
            console.print(verdict(outcomes))
            results[title] = [outcome.to_json() for outcome in outcomes]
    path = keep(results, RESULTS, output, indent=None)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
