"""Options and arguments that several commands take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sparsec.errors import ArtifactError, ModelError, SparsecError

THREADS = click.IntRange(1, 1024)
"""As many as the runtime takes, `sparsec.runtime.session.MOST_THREADS`, which loads slowly."""

MODEL = click.Path(path_type=Path)
"""A model or an artifact; whoever reads it says what is wrong with it."""


class Shape(click.ParamType):
    """``x=1,3,640,640``: an input, or a symbolic dimension, with its sizes, ranges and names."""

    name = "NAME=DIMS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        from sparsec.frontends.shapes import parse_shape

        try:
            name, dims = parse_shape(value)
        except SparsecError as error:
            self.fail(str(error), param, ctx)
        if not dims:
            self.fail(f"the shape {value!r} has no sizes; write it as x=1,3,640,640", param, ctx)
        return name, dims


class NamedFile(click.ParamType):
    """``name=file.npy``."""

    name = "NAME=FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, file = value.partition("=")
        if not (name and equals and file):
            self.fail(f"cannot read {value!r}; write it as image=cat.npy", param, ctx)
        return name, Path(file)


def shape_option(text: str) -> Callable[[Any], Any]:
    """``--shape``, as a dictionary; `text` is its help."""
    return click.option("--shape", "shapes", type=Shape(), multiple=True, callback=_as_dict, help=text)


def close_shapes(function: Any) -> Any:
    """``--shape`` for commands that read a model."""
    return shape_option(
        "Close an open dimension (x=1,3,640,640, or batch=1) or bound it (x=1..8,3,224,224). Can be repeated."
    )(function)


def threads_option(function: Any) -> Any:
    """``--threads``."""
    return click.option(
        "--threads",
        type=THREADS,
        callback=warn_of_threads,
        help="Threads.  [default: SPARSEC_NUM_THREADS, or all physical cores]",
    )(function)


def for_threads_option(function: Any) -> Any:
    """``--threads`` of what is compiled to run later, maybe on another machine."""
    return click.option(
        "--threads",
        type=THREADS,
        help="Choose layouts for a library that mostly runs on so many threads.  [default: the cores of the target: "
        "all of this machine for native, else one]",
    )(function)


def warn_of_threads(ctx: click.Context, param: click.Parameter, threads: int | None) -> int | None:
    """Say on standard error where cores are fewer than threads, which are taken as they are."""
    from sparsec.targets.native import physical_cores

    if threads and threads > (cores := physical_cores()):
        from sparsec.report import plural

        warning = click.style("warning:", fg="yellow", bold=True)
        shared = f"{plural(cores, 'physical core')} that this process may use"
        click.echo(f"{warning} {threads} threads share the {shared}, and are slower than {cores}", err=True)
    return threads


def target_option(function: Any) -> Any:
    """``--target``."""
    return click.option(
        "--target",
        default="native",
        show_default=True,
        help="Processor to compile for, as `sparsec targets` lists them.",
    )(function)


def storage_option(function: Any) -> Any:
    """``--storage``."""
    return click.option(
        "--storage",
        type=click.Choice(["float16", "bfloat16", "int8", "int4", "int4:32", "int4:64", "int4:128"]),
        help="Round the weights of layers to fewer bits: values take a half, a quarter or an eighth of the bytes, the "
        "places of entries in sparse layouts as many as before, and sums stay float32. With int4:32, 32 weights of a "
        "row share a scale, else all of them do.",
    )(function)


def compute_option(function: Any) -> Any:
    """``--compute``."""
    return click.option(
        "--compute",
        type=click.Choice(["bfloat16"]),
        help="Let layers multiply bfloat16, where the processor has instructions for it; sums stay float32.",
    )(function)


def layout_option(function: Any) -> Any:
    """``--layout``, as a dictionary by layer."""
    return click.option(
        "--layout",
        "layouts",
        multiple=True,
        metavar="[LAYER=]LAYOUT",
        callback=lambda context, option, given: _by_layer(given),
        help="Store a layer's weight so, by a name that inspect --layouts prints or in the notation; * in LAYER stands "
        "for anything. Repeatable.",
    )(function)


def json_flag(function: Any) -> Any:
    """``--json``, for a command whose result goes to the terminal otherwise."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def quiet_flag(function: Any) -> Any:
    """``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")(function)


def _by_layer(given: tuple[str, ...]) -> dict[str, str]:
    """Read `LAYER=LAYOUT`, and a layout alone as one for all layers; those of the command line's end count first."""
    found: dict[str, str] = {}
    for text in reversed(given):
        layer, layout = text.split("=", 1) if "=" in text else ("*", text)
        found.setdefault(layer.strip(), layout.strip())
    return found


def _as_dict(ctx: click.Context, param: click.Parameter, value: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    pairs = dict(value)
    if len(pairs) < len(value):
        twice = next(name for name in pairs if sum(name == other for other, _ in value) > 1)
        raise click.BadParameter(f"{twice!r} is given twice", ctx, param)
    return pairs


def check_readable(model: Path) -> None:
    """Fail before the compiler is loaded, which takes seconds, where there is no model."""
    try:
        model.open("rb").close()
    except OSError as error:
        raise ModelError(f"cannot read {model}: {error.strerror}") from None


def check_writable(file: Path) -> None:
    """Fail before long work rather than after it, where its result cannot be written."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ArtifactError(f"cannot write {file}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ArtifactError(f"cannot write {file}: the folder {folder} is not writable")
    if file.is_dir():
        raise ArtifactError(f"cannot write {file}: it is a folder, and a file in it is wanted")


def is_artifact(path: Path) -> bool:
    """Whether a file is meant as a compiled library rather than as a model."""
    if path.suffix == ".so":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def runs_here(target: dict[str, Any]) -> bool:
    """Whether this machine has what a library for the target needs."""
    from sparsec.errors import TargetError
    from sparsec.targets import Target

    try:
        native = Target.parse("native")
    except TargetError:  # this machine compiles for others only
        return False
    needs = target.get("emulated_on") or target
    return native.triple == needs["triple"] and native.isa.issuperset(needs["isa"])
