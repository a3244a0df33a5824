"""`sparsec inspect`: how sparse the layers are, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsec.cli.options import (
    MODEL,
    check_readable,
    check_writable,
    close_shapes,
    compute_option,
    for_threads_option,
    is_artifact,
    json_flag,
    layout_option,
    quiet_flag,
    runs_here,
    storage_option,
    target_option,
)
from sparsec.errors import ArtifactError, TargetError

if TYPE_CHECKING:
    from sparsec.report.maps import WeightMap
    from sparsec.runtime.session import Session, StepTime


@click.command(
    epilog="""\b
Examples:
  sparsec inspect resnet50.onnx
  sparsec inspect resnet50.onnx --layouts
  sparsec inspect resnet50.onnx --layouts --layout '*conv*=bucketed rows'
  sparsec inspect resnet50.onnx --html resnet50.html --profile
  sparsec inspect bert.onnx --shape input_ids=1,128 --target neoverse-n1
  sparsec inspect bert.so --json"""
)
@click.argument("model", type=MODEL)
@target_option
@for_threads_option
@close_shapes
@storage_option
@compute_option
@layout_option
@click.option("--layouts", "shown", flag_value="few", help="Show the best layouts of each kind of layer, and why.")
@click.option("--all-layouts", "shown", flag_value="all", help="Show all of them, and why the others do not fit.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with charts, maps and layouts.")
@click.option("--profile", is_flag=True, help="Time each layer on one thread of this machine too; compiles MODEL.")
@json_flag
@quiet_flag
def inspect(
    model: Path,
    target: str,
    threads: int | None,
    shapes: dict[str, Any],
    storage: str | None,
    compute: str | None,
    layouts: dict[str, str],
    shown: str | None,
    html: Path | None,
    profile: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show layers, their zeros and their layouts.

    MODEL is an ONNX file or a compiled library. Each layer has a row: its weight's shape, how many zeros it has and
    how they lie, the layout that is chosen for it, by the name that --layout takes, its bytes in that layout, and its
    time on one core beside that of the best dense layout, predicted, or as it was measured to choose. With --layouts,
    --html and --json layouts are in the notation, too. F(4, 3) behind a shape says that filters are transformed, so
    that four rows of pixels take the products of two (Winograd). Of a library the memory that it takes when it runs is
    told.
    """
    import sparsec
    from sparsec.report import memory_text, planned_memory, print_json, screen, summary, totals, with_times

    if html:
        check_writable(html)
        if html.exists() and html.samefile(model):
            raise ArtifactError(f"cannot write {html}: it is the model itself")
    compiled = is_artifact(model)
    if compiled and (shown or layouts):
        raise click.UsageError(
            "a library keeps no other layouts than the chosen ones; --layout and --layouts take the ONNX file"
        )
    fixed = {"--target": target != "native", "--threads": threads, "--storage": storage, "--compute": compute}
    if compiled and (given := [option for option, value in fixed.items() if value]):
        raise click.UsageError(f"a library is compiled already; give the ONNX file for {' and '.join(given)}")
    quiet = quiet or as_json
    options: dict[str, Any] = {"target": target, "threads": threads, "shapes": shapes}
    options |= {"storage": storage, "compute": compute, "layouts": layouts}
    maps: Sequence[WeightMap] = ()
    if compiled:
        report = _of_artifact(model)
    else:
        report, maps = _of_model(model, options, bool(shown or html), quiet)
    steps = []
    if profile:
        _check_runs_here(report["target"])
        session = sparsec.load(model, threads=1) if compiled else _compile(model, options, quiet)
        steps = _profile(session, shapes if compiled else {}, quiet)
    report = report | {"layers": with_times(report["layers"], steps)}
    if html:
        from sparsec.report.page import WITHOUT_WEIGHTS, render_page, write_page  # plots load slowly

        write_page(html, render_page(report, model.name, maps, steps, notes=[WITHOUT_WEIGHTS] if compiled else []))
    if as_json:
        print_json(report | {"totals": totals(report["layers"]).as_dict()})
        return
    if shown or not html:
        screen().print(summary(report, str(model), shown))
    if compiled and not html:
        screen().print(memory_text(planned_memory(report)))
    if html and not quiet:
        screen().print(f"{html}: {html.stat().st_size / 1e6:.1f} MB, to open in a browser")


def _of_artifact(path: Path) -> dict[str, Any]:
    """The manifest, which can be read on any machine."""
    from sparsec.runtime.elf import read_manifest

    try:
        with path.open("rb") as file:
            return read_manifest(file, str(path))
    except OSError as error:
        raise ArtifactError(f"cannot open {path}: {error.strerror}") from None


def _of_model(
    path: Path, given: dict[str, Any], options: bool, quiet: bool
) -> tuple[dict[str, Any], Sequence[WeightMap]]:
    from sparsec.cli.progress import progress

    check_readable(path)
    with progress(quiet) as report:
        import sparsec

        found = sparsec.inspect(path, progress=report, options=options, **given)
    return found.as_dict(), found.maps


def _check_runs_here(target: dict[str, Any]) -> None:
    """Fail before the model is compiled rather than after it."""
    if not runs_here(target):
        raise TargetError(f"this machine cannot run code for {target['name']}; leave --profile out, or --target")


def _compile(model: Path, options: dict[str, Any], quiet: bool) -> Session:
    import sparsec
    from sparsec.cli.progress import progress

    with progress(quiet) as report:
        options = options | {"threads": options["threads"] or 1}  # steps are timed on one
        return sparsec.compile(model, progress=report, **options).load(threads=1)


def _profile(session: Session, shapes: dict[str, Any], quiet: bool) -> list[StepTime]:
    from sparsec.cli.inputs import random_inputs
    from sparsec.cli.progress import working

    with working("timing each layer", quiet):
        return session.profile(*random_inputs(session, shapes, seed=0).values())
