"""Standard output, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console

PIPE_WIDTH = 240
"""Columns where there is no terminal to fold for, such as in a file."""


def screen() -> Console:
    """Return a console that folds only for a terminal, and takes brackets as they are."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print a value for programs."""
    click.echo(json.dumps(value, indent=1))
