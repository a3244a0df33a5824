"""Standard output, for people and for programs."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import click
from rich.console import Console, RenderableType

PIPE_WIDTH = 240
"""Columns where there is no terminal to fold for, such as in a file."""


def screen() -> Console:
    """Return a console that folds only for a terminal, and takes brackets as they are."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=PIPE_WIDTH)


def text_of(renderable: RenderableType) -> str:
    """Return what the screen would show, without colours."""
    console = Console(file=StringIO(), markup=False, highlight=False, color_system=None, width=screen().width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().rstrip("\n")


def print_json(value: Any) -> None:
    """Print a value for programs."""
    click.echo(json.dumps(value, indent=1))
