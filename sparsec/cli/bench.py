"""`sparsec bench`: race a model against dense runtimes, or time a library alone."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from sparsec.cli.options import (
    MODEL,
    THREADS,
    check_readable,
    check_writable,
    close_shapes,
    compute_option,
    is_artifact,
    quiet_flag,
    storage_option,
    warn_of_threads,
)
from sparsec.errors import ArtifactError, SparsecError

if TYPE_CHECKING:
    from sparsec import Artifact
    from sparsec.bench import Race
    from sparsec.runtime.session import Session

PEERS = "onnxruntime,openvino"

ANOTHER_MODEL = 0.05
"""Outputs that are off by more of their scale than this come from other weights, rather than from a bug."""


@click.command(
    epilog="""\b
Examples:
  sparsec bench resnet50.onnx
  sparsec bench bert.onnx --shape batch=1 --peers openvino --threads 2 --json times.json
  sparsec bench resnet50.onnx --artifact resnet50.so --profile
  sparsec bench resnet50.onnx --profile --dense
  sparsec bench resnet50.so"""
)
@click.argument("model", type=MODEL)
@click.option(
    "--peers", help=f"Runtimes to race against, out of onnxruntime, openvino, deepsparse.  [default: {PEERS}]"
)
@click.option("--artifact", type=MODEL, help="A library that was compiled from MODEL before, to save the time.")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=THREADS,
    callback=warn_of_threads,
    help="Threads of each engine; MODEL is compiled for so many.",
)
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Time to run for."
)
@close_shapes
@storage_option
@compute_option
@click.option("--json", "output", metavar="FILE", help="Write what was measured to a file; - is standard output.")
@click.option("--profile", is_flag=True, help="Show the time of each step too, and its rate beside the core's peak.")
@click.option("--dense", is_flag=True, help="Compile MODEL with dense layouts too, and profile each layer in both.")
@quiet_flag
def bench(
    model: Path,
    peers: str | None,
    artifact: Path | None,
    threads: int,
    seconds: float,
    shapes: dict[str, Any],
    storage: str | None,
    compute: str | None,
    output: str | None,
    profile: bool,
    dense: bool,
    quiet: bool,
) -> None:
    """Race a model against dense runtimes.

    MODEL is an ONNX file, or a compiled library, which is timed alone.

    Every engine runs the same inputs in a process of its own. They take turns, and the median of the ratios of
    neighbouring turns counts, because absolute times drift.
    """
    from sparsec import load

    quiet = quiet or output == "-"
    if output and output != "-":
        check_writable(Path(output))
    for given, name in ((storage, "storage"), (compute, "compute")):
        if given and (artifact or is_artifact(model)):
            raise click.UsageError(
                f"a library keeps the {name} it was compiled with; --{name} takes the ONNX file alone"
            )
    if dense and not profile:
        raise click.UsageError("--dense compares the layers of a profile; add --profile")
    if dense and (artifact or is_artifact(model)):
        raise click.UsageError("--dense compiles the model in two ways; it takes the ONNX file alone")
    if is_artifact(model):
        if peers or artifact:
            raise click.UsageError(
                "peers run the ONNX file, so they take: sparsec bench MODEL.onnx --artifact MODEL.so"
            )
        session = load(model, threads=threads)
        results = _alone(model, session, seconds, shapes, quiet)
        _keep(results, output, partial(_profile, session, shapes, None, seconds, quiet) if profile else None)
    else:
        check_readable(model)
        with tempfile.TemporaryDirectory(prefix="sparsec-bench-") as folder:
            options = {"shapes": shapes, "storage": storage, "compute": compute, "threads": threads}
            library = artifact or _compile(model, quiet, **options).save(Path(folder) / "model.so")
            beside = _compile(model, quiet, dense=True, **options).load(threads) if dense else None
            chosen = [peer for peer in (peers or PEERS).split(",") if peer]
            results = _race(model, library, chosen, threads, seconds, quiet)

            def profiled() -> dict[str, Any]:
                return _profile(load(library, threads=threads), {}, beside, seconds, quiet)

            _keep(results, output, profiled if profile else None)
    if wrong := [lane for lane in results.get("lanes", ()) if lane["engine"] == "sparsec" and not lane["agrees"]]:
        error = wrong[0]["error"]
        differ = f"differ from those of {results['reference']} by {error:.1e} of their scale"
        if artifact and error > ANOTHER_MODEL:
            raise ArtifactError(
                f"the outputs of {artifact} {differ}, so it was probably not compiled from {model}; compile it again"
            )
        raise SparsecError(f"the outputs of sparsec {differ}, which is a bug; please report it with the model")


def _keep(results: dict[str, Any], output: str | None, profiled: Callable[[], dict[str, Any]] | None) -> None:
    """Profile what was measured, if that is asked for, and write all to the output, even where the profile fails."""
    try:
        if profiled:
            results |= profiled()
    except SparsecError as error:
        raise SparsecError(f"all else was measured, but the steps cannot be profiled: {error}") from error
    finally:
        text = json.dumps(results, indent=1)
        if output == "-":
            click.echo(text)
        elif output:
            Path(output).write_text(text + "\n")


def _compile(model: Path, quiet: bool, **options: Any) -> Artifact:
    import sparsec
    from sparsec.cli.progress import progress

    with progress(quiet) as report:
        return sparsec.compile(model, progress=report, **options)


def _race(model: Path, library: Path, peers: list[str], threads: int, seconds: float, quiet: bool) -> dict[str, Any]:
    import sparsec
    from sparsec.bench import race, race_table
    from sparsec.cli.progress import working
    from sparsec.report import memory_text, planned_memory, screen

    session = sparsec.load(library, threads=threads)
    _check_pair(model, library, session)
    shapes = {info.name: info.max_shape for info in session.inputs}
    with working(f"racing for {seconds:.0f} s", quiet):
        storage = session.manifest.get("compute") or session.manifest.get("storage")
        result: Race = race(model, peers, threads, library, seconds, shapes, storage=storage)
    planned = planned_memory(session.manifest)
    if not quiet:
        screen().print(race_table(result))
        screen().print(memory_text(planned, result.lane("sparsec").memory_bytes))
    return result.to_json() | {"memory": planned}


def _check_pair(model: Path, library: Path, session: Session) -> None:
    """Refuse a library that cannot have come from the model."""
    from sparsec.frontends.onnx_read import read_onnx

    graph = read_onnx(str(model)).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    ports = [[value.name for value in values] for values in (inputs, graph.output)]
    compiled = [[info.name for info in infos] for infos in (session.inputs, session.outputs)]
    if ports != compiled:
        theirs, ours = (f"{', '.join(taken)} -> {', '.join(given)}" for taken, given in (ports, compiled))
        raise ArtifactError(f"{library} was not compiled from {model}: it computes {ours}, and the model {theirs}")
    for value, info in zip(inputs, session.inputs, strict=True):
        tensor = value.type.tensor_type
        sizes = [dim.dim_value for dim in tensor.shape.dim]  # 0 where the model leaves it open
        fits = len(sizes) == len(info.max_shape) and all(map(lambda n, most: n in (0, most), sizes, info.max_shape))
        if tensor.HasField("shape") and not fits:
            wanted = ", ".join(str(size or "?") for size in sizes)
            raise ArtifactError(f"{library} was not compiled from {model}: it takes {info}, and the model [{wanted}]")


def _alone(library: Path, session: Session, seconds: float, shapes: dict[str, Any], quiet: bool) -> dict[str, Any]:
    from sparsec.bench import run_memory
    from sparsec.cli.inputs import random_inputs
    from sparsec.cli.progress import working
    from sparsec.report import memory_text, planned_memory, screen, seconds_text

    inputs, threads = random_inputs(session, shapes, seed=0), session.threads
    with working(f"running for {seconds:.0f} s", quiet):
        times = _times(session, inputs, seconds)
        storable = all(array.dtype.kind != "V" for array in inputs.values())  # NumPy's files hold no bfloat16
        memory = run_memory(library, threads, inputs) if storable else None
    middle, fastest, planned = median(times), min(times), planned_memory(session.manifest)
    if not quiet:
        text = f"median {seconds_text(middle)}, fastest {seconds_text(fastest)} of {len(times)} runs"
        screen().print(f"{library}: {text}, threads: {threads}")
        screen().print(memory_text(planned, memory))
    measured = {"median_seconds": middle, "fastest_seconds": fastest, "runs": len(times), "memory_bytes": memory}
    return {"model": library.name, "threads": threads, "memory": planned} | measured


def _times(session: Session, inputs: dict[str, Any], seconds: float) -> list[float]:
    """Seconds of each run; a first one, which touches the memory, does not count."""
    session(**inputs)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session(**inputs)
        times.append(time.perf_counter() - start)
    return times


def _profile(
    session: Session, shapes: dict[str, Any], dense: Session | None, seconds: float, quiet: bool
) -> dict[str, Any]:
    from sparsec.bench.profile import profile
    from sparsec.cli.inputs import random_inputs
    from sparsec.cli.progress import working
    from sparsec.report import screen, step_table

    inputs = tuple(random_inputs(session, shapes, seed=0).values())
    with working("timing each step", quiet):
        found = profile(session, inputs, dense, seconds if dense else 0.0).to_json()
    if not quiet:
        screen().print(step_table(found["profile"], found["peaks"]))
    return found
