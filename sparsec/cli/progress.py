"""Shows on standard error what long work is at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Yield a function that takes the name of a stage and the fraction of all work that is done.

    A bar shows both while the block runs, and vanishes with it. Nothing is shown where `quiet` or where standard error
    is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description:<20}"), BarColumn(20), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("load the compiler", total=1.0)
        yield lambda stage, fraction: bar.update(task, description=stage, completed=fraction)


@contextmanager
def working(what: str, quiet: bool) -> Iterator[None]:
    """Show a spinner beside `what`, for work whose length is not known."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
    else:
        with console.status(what):
            yield
