"""`sparsec targets`: the processors that can be compiled for."""

from __future__ import annotations

import click

from sparsec.cli.options import json_flag


@click.command(
    epilog="""\b
Examples:
  sparsec targets
  sparsec compile model.onnx --target x86-64-v3
  sparsec compile model.onnx --target x86-64-v3,+avxvnni"""
)
@json_flag
def targets(as_json: bool) -> None:
    """List the processors that --target takes.

    Extensions can be added or taken away after a comma: x86-64-v3,+avxvnni. emulate: before a name runs the schedules
    of that processor on this machine: emulate:armv8.6, and of GPUs only so: emulate:sm_90.
    """
    from rich.table import Table

    from sparsec.errors import TargetError
    from sparsec.report import print_json, screen
    from sparsec.targets import TARGETS, Target

    try:
        native = Target.parse("native")
    except TargetError:  # cross-compiling is possible from machines that no target describes
        native = None
    if as_json:
        facts = {name: target.as_dict() for name, target in TARGETS.items()}
        print_json({"native": native and native.as_dict(), "targets": facts})
        return
    table = Table(caption=f"native is {native.name}" if native else None, caption_justify="left")
    for column in ("target", "architecture"):
        table.add_column(column, no_wrap=True)
    for column in ("vector", "FMA/cycle", "L1", "L2", "L3", "GHz"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, target in TARGETS.items():
        caches = (f"{size >> 10} KiB" for size in (target.l1_bytes, target.l2_bytes, target.l3_bytes))
        table.add_row(
            name, target.arch, f"{target.vector_bits} bit", f"{target.fma_per_cycle:g}", *caches, f"{target.ghz:g}"
        )
    screen().print(table)
