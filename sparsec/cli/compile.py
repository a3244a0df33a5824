"""`sparsec compile`: from a model to a shared library."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote
from typing import Any

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
from sparsec.errors import ArtifactError, ModelError

LEAST_SHARE_BYTES = 100_000
"""Of smaller models a library is mostly runtime, so that its share of the model's size says nothing."""


@click.command(
    epilog="""\b
Examples:
  sparsec compile resnet50.onnx
  sparsec compile bert.onnx -o bert.so --shape input_ids=1,128 --shape attention_mask=1,128
  sparsec compile bert.onnx --shape batch=1..8 --shape sequence=16..512
  sparsec compile resnet50.onnx -o arm.so --target neoverse-n1
  sparsec compile bert.onnx --storage bfloat16
  sparsec compile resnet50.onnx --threads 1
  sparsec compile resnet50.onnx --layout '*conv*=bucketed rows'"""
)
@click.argument("model", type=MODEL)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The library to write; its header lies beside it.  [default: the model's name with .so, in this folder]",
)
@target_option
@for_threads_option
@close_shapes
@click.option("--measure", is_flag=True, help="Choose layouts by timing candidates on this machine.")
@storage_option
@compute_option
@layout_option
@click.option("--dump", type=click.Path(path_type=Path), help="Also write every stage of the compiler to this folder.")
@json_flag
@quiet_flag
def compile(
    model: Path,
    output: Path | None,
    target: str,
    threads: int | None,
    shapes: dict[str, Any],
    measure: bool,
    layouts: dict[str, str],
    storage: str | None,
    compute: str | None,
    dump: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile an ONNX file to a shared library.

    MODEL becomes one library, which needs neither Python nor TVM to run, and a C header for it.
    """
    from sparsec.cli.progress import progress

    if is_artifact(model):
        raise ModelError(f"{model} is a compiled library already; try: sparsec run {quote(str(model))}")
    check_readable(model)
    output = output or Path(f"{model.stem or 'model'}.so")
    check_writable(output)
    if output.exists() and output.samefile(model):
        raise ArtifactError(f"cannot write {output}: it is the model itself; try -o {output.with_suffix('.so')}")
    start = time.perf_counter()
    with progress(quiet or as_json) as report:
        import sparsec

        artifact = sparsec.compile(
            model,
            target,
            shapes=shapes,
            progress=report,
            dump=dump,
            measure=measure,
            storage=storage,
            compute=compute,
            layouts=layouts,
            threads=threads,
        )
        artifact.save(output)
    seconds = time.perf_counter() - start
    if as_json or not quiet:
        _report(model, output, artifact.manifest, seconds, as_json)


def _report(model: Path, output: Path, manifest: dict[str, Any], seconds: float, as_json: bool) -> None:
    from sparsec.report import bytes_text, known_by, plural, print_json, removed_text, screen, totals

    summed = totals(manifest["layers"])
    sizes = model.stat().st_size, output.stat().st_size
    if as_json:
        files = {"artifact": str(output), "header": str(output.with_suffix(".h"))}
        numbers = {"seconds": seconds, "model_bytes": sizes[0], "artifact_bytes": sizes[1]}
        print_json(files | numbers | {"totals": summed.as_dict(), "manifest": manifest})
        return
    compared = sizes[0] >= LEAST_SHARE_BYTES
    share = f", {sizes[1] / sizes[0]:.0%} of the model's {bytes_text(sizes[0])}" if compared else ""
    known = known_by(manifest["layers"])
    faster = f"; these are {known} to be {summed.speedup:.1f}× as fast as dense" if summed.sparse else ""
    out = screen()
    out.print(f"{output}: {bytes_text(sizes[1])}{share}, for {manifest['target']['name']}, in {seconds:.1f} s")
    out.print(f"{plural(summed.layers, 'layer')}, {summed.sparse} of them sparse{faster}")
    if gone := removed_text(manifest["removed"]):
        out.print(gone)
    out.print(f"Next: sparsec {'run' if runs_here(manifest['target']) else 'inspect'} {quote(str(output))}")
