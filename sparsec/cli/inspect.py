"""`sparsec inspect`: how sparse the layers are, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparsec.cli.options import MODEL, check_readable, close_shapes, is_artifact, json_flag, quiet_flag, target_option


@click.command(
    epilog="""\b
Examples:
  sparsec inspect resnet50.onnx
  sparsec inspect bert.onnx --shape input_ids=1,128 --target neoverse-n1
  sparsec inspect bert.so --json"""
)
@click.argument("model", type=MODEL)
@target_option
@close_shapes
@json_flag
@quiet_flag
def inspect(model: Path, target: str, shapes: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """Show layers, their zeros and their layouts.

    MODEL is an ONNX file or a compiled library. Each layer has a row: its weight's shape, how many zeros it has and
    how they lie, the layout that is chosen for it, its bytes in that layout, and its predicted time on one core beside
    that of the best dense layout.
    """
    from sparsec.report import layer_table, print_json, screen, totals

    report = _of_artifact(model) if is_artifact(model) else _of_model(model, target, shapes, quiet or as_json)
    layers = report["layers"]
    if as_json:
        print_json(report | {"totals": totals(layers).as_dict()})
    elif layers:
        screen().print(layer_table(layers, f"{model} on {report['target']['name']}"))
    else:
        screen().print(f"{model} has no layers with weights")


def _of_artifact(path: Path) -> dict[str, Any]:
    """The manifest, which can be read on any machine."""
    from sparsec.errors import ArtifactError
    from sparsec.runtime.elf import read_manifest

    try:
        with path.open("rb") as file:
            return read_manifest(file, str(path))
    except OSError as error:
        raise ArtifactError(f"cannot open {path}: {error.strerror}") from None


def _of_model(path: Path, target: str, shapes: dict[str, Any], quiet: bool) -> dict[str, Any]:
    from sparsec.cli.progress import progress

    check_readable(path)
    with progress(quiet) as report:
        import sparsec

        return sparsec.inspect(path, target, shapes=shapes, progress=report).as_dict()
