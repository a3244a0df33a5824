"""`sparsec prune`: set the weights of a model that matter least to zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import click

from sparsec.cli.options import MODEL, check_readable, check_writable, is_artifact, json_flag, quiet_flag
from sparsec.errors import ArtifactError, ModelError, PruningError

if TYPE_CHECKING:
    from rich.table import Table

    from sparsec.pruning import Pruned


@click.command(
    epilog="""\b
Examples:
  sparsec prune bert.onnx --pattern tile-wise:128 --sparsity 0.75
  sparsec prune resnet50.onnx --pattern 2:4 --skip fc -o sparse.onnx
  sparsec prune vgg16.onnx --pattern fkw:4,8,3.6
  sparsec prune bert.onnx --pattern block:4x1 --sparsity 0.9 --score activations --calibration tokens.npz

\b
Patterns:
  unstructured              any weight
  2:4, 1:8, 16:2:8          the best n of each m inputs; V:N:M shares the columns among V outputs
  block:4x1                 blocks of outputs × inputs
  tile-wise:128[,two-sided] each tile of outputs has inputs of its own
  tew:128,0.02              tile-wise, and two of a hundred weights come back
  tvw:128                   tile-wise outside, 2:4 inside
  fkw:4,8,3.6               kernels in 8 shapes of 4 taps, and one kernel of 3.6
  diagonal:4                a permuted diagonal in each block
  combine:8                 one of 8 combined columns
  channels                  whole outputs, and the inputs that they were"""
)
@click.argument("model", type=MODEL)
@click.option("--pattern", "text", default="unstructured", show_default=True, help="Where zeros go; see below.")
@click.option("--sparsity", type=float, help="The part of the weights to prune, as in 0.75.")
@click.option(
    "--score",
    "scored_by",
    default="magnitude",
    show_default=True,
    type=click.Choice(["magnitude", "activations"]),
    help="What a weight is ranked by: its size, or its size times that of its inputs.",
)
@click.option(
    "--calibration", type=MODEL, multiple=True, help="A .npz file with an array for each input. Can be repeated."
)
@click.option(
    "--scope",
    default="global",
    show_default=True,
    type=click.Choice(["global", "layer"]),
    help="Rank the weights of all layers together, or those of each layer alone.",
)
@click.option("--skip", metavar="NAME", multiple=True, help="Leave a layer as it is; `*` stands for any text.")
@click.option(
    "--include", metavar="NAME", multiple=True, help="Prune a layer that stays dense otherwise: see the table."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The model to write.  [default: the model's name with .pruned.onnx, in this folder]",
)
@json_flag
@quiet_flag
def prune(
    model: Path,
    text: str,
    sparsity: float | None,
    scored_by: str,
    calibration: Sequence[Path],
    scope: Any,
    skip: Sequence[str],
    include: Sequence[str],
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Set weights of an ONNX file to zero.

    MODEL is written anew with the weights that matter least at zero, and everything else as it was. Fine-tune it
    afterwards, or prune in stages while it is trained, with sparsec.prune in Python, as accuracy needs it.
    """
    from sparsec.cli.progress import working

    if is_artifact(model):
        raise ModelError(f"{model} is a compiled library; prune the ONNX file that it was compiled from")
    check_readable(model)
    output = output or Path(f"{model.stem or 'model'}.pruned.onnx")
    check_writable(output)
    if output.exists() and output.samefile(model):
        raise ArtifactError(f"cannot write {output}: it is the model itself; try another name")
    if (scored_by == "activations") != bool(calibration):
        raise click.UsageError("--score activations and --calibration need one another")
    with working("pruning", quiet or as_json):
        import sparsec
        from sparsec.pruning import Activations, Magnitude

        score = Activations([_read_batch(file) for file in calibration]) if calibration else Magnitude()
        pruned = sparsec.prune(model, text, sparsity, score=score, scope=scope, skip=skip, include=include)
        pruned.save(output)
    if as_json or not quiet:
        _report(pruned, output, scope, as_json)


def _read_batch(file: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError as error:
        raise PruningError(f"cannot read {file}: {error.strerror or error}") from None
    except (EOFError, ValueError, AttributeError, TypeError, BadZipFile):  # another file, or one array without a name
        raise PruningError(
            f"{file} is not a .npz file with an array for each input, as numpy.savez writes it"
        ) from None


def _report(pruned: Pruned, output: Path, scope: str, as_json: bool) -> None:
    from sparsec.report import plural, print_json, screen, some

    if as_json:
        print_json({"model": str(output)} | pruned.as_dict())
        return
    out = screen()
    out.print(_table(pruned))
    if emptied := pruned.emptied:
        remedy = "--scope layer, which ranks each layer alone" if scope == "global" else "a lower --sparsity"
        out.print(f"Warning: nothing is left of {plural(len(emptied), 'layer')} ({some(emptied)}); try {remedy}")
    out.print(f"{output}: {pruned.sparsity:.1%} zeros in what was pruned")
    out.print(f"Next: sparsec inspect {quote(str(output))}")


def _table(pruned: Pruned) -> Table:
    """A row for each layer, those that were not pruned with the reason."""
    from rich.table import Table

    from sparsec.report import plural

    changed = sum(not layer.kept for layer in pruned.layers)
    table = Table(title=f"pruned to {pruned.pattern}", title_justify="left", show_footer=True)
    table.add_column("layer", f"{plural(len(pruned.layers), 'layer')}, {changed} pruned", overflow="fold")
    table.add_column("operator")
    table.add_column("weight", no_wrap=True)
    table.add_column("zeros", f"{pruned.sparsity:.1%}", justify="right", no_wrap=True)
    table.add_column("note")
    for layer in pruned.layers:
        note = f"not pruned: {layer.kept}" if layer.kept else "nothing is left" if layer.zeros == layer.size else ""
        table.add_row(layer.name, layer.operator, "×".join(map(str, layer.shape)), f"{layer.sparsity:.1%}", note)
    return table
