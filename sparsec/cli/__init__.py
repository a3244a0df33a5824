"""The command line. Commands import what they need when they run, so that ``sparsec --help`` is quick."""

from sparsec.cli.program import main

__all__ = ["main"]
