"""Turns whatever went wrong into one sentence for a person."""

from __future__ import annotations

import traceback

import click

from sparsec.errors import SparsecError

PACKAGES = {"sklearn": "scikit-learn"}
"""Modules that another package name installs."""


def failure_of(error: Exception) -> click.ClickException:
    """The exception that the program ends with in place of `error`.

    >>> failure_of(FileNotFoundError(2, "No such file or directory", "x.npy")).message
    'x.npy: no such file or directory'
    """
    return click.ClickException(_sentence(error))


def _sentence(error: Exception) -> str:
    if isinstance(error, SparsecError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this model"
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        return f"this needs the package {module}; install it with `pip install {PACKAGES.get(module, module)}`"
    first = next(iter(str(error).splitlines()), "").rstrip(".") or "no message"
    if package := _unimportable(error):
        return (
            f"the package {package} is installed but cannot be imported: {type(error).__name__}: {first}; "
            "install it again, or uninstall it where nothing needs it"
        )
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return f"{error.filename}: {reason}" if error.filename else reason
    return (
        f"{type(error).__name__}: {first}; this is a bug in sparsec, please report it with "
        "what `sparsec --traceback …` prints for the same command"
    )


def _unimportable(error: Exception) -> str:
    """Return the package whose import an error ended; empty where there is none but sparsec itself."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>")
    *_, module = ["", *(frame.f_globals.get("__name__", "") for frame in frames)]
    package = module.partition(".")[0]
    return "" if package == "sparsec" else package
