"""The program `sparsec`: its commands, and what becomes of failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

import sparsec
from sparsec.cli.failures import failure_of

COMMANDS = ("compile", "run", "bench", "inspect", "prune", "targets")
"""Each is a function of its own name in a module of its own name; this is the order of a first session."""

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended: 128 + SIGINT."""


class Program(click.Group):
    """Commands that load on first use, and failures that end in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return getattr(import_module(f"sparsec.cli.{name}"), name) if name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.params["traceback"]:
                raise
            raise failure_of(error) from error


@click.command(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  sparsec inspect bert.onnx --shape batch=1 --shape sequence=128
  sparsec compile resnet50.onnx -o resnet50.so
  sparsec run resnet50.so --input image=cat.npy --output results
  sparsec bench resnet50.onnx --threads 2 --json times.json""",
)
@click.option("--traceback", is_flag=True, help="Show where in sparsec a failure came from.")
@click.version_option(sparsec.__version__, message="sparsec %(version)s")
@click.pass_context
def program(ctx: click.Context, traceback: bool) -> None:
    """Compile pruned neural networks into native libraries that are faster because of their zeros."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: 0 after success, 2 after a failure, 130 after Ctrl-C."""
    try:
        status = program.main(args, prog_name="sparsec", standalone_mode=False)
    except click.ClickException as failure:
        _say(_sentence(failure))
        sys.exit(2)
    except click.Abort:
        _say("interrupted")
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _sentence(failure: click.ClickException) -> str:
    """A failure in one line; a mistake in the command line names the page that explains it."""
    text = " ".join(failure.format_message().split())
    if isinstance(failure, click.UsageError) and failure.ctx is not None:
        return f"{text.rstrip('.')} (see: {failure.ctx.command_path} --help)"
    return text


def _say(sentence: str) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {sentence}", err=True)
