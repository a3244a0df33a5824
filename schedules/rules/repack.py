"""The schedule of what copies images, or pools them: every plane is a task, and its rows are written by vectors."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule

from sparsec.errors import ScheduleError
from sparsec.ir.kernel import Kernel
from sparsec.ir.lower import lower
from sparsec.schedules.rules.strided import shuffle_strided_loads
from sparsec.schedules.steps import Vectorize
from sparsec.targets import Target


def schedule_repack(kernel: Kernel, target: Target) -> tirx.PrimFunc:
    """Lower and schedule what `sparsec.ir.repack` or `sparsec.ir.max_pool` made."""
    schedule = Schedule(lower(kernel).func)
    for kind in ("clear", "finish"):
        try:
            Vectorize(kind, target.lanes(kernel.outputs[0].dtype)).apply(schedule)
        except ScheduleError:
            continue  # nothing to clear, or nothing but zeros
    (func,) = schedule.mod.functions.values()
    return shuffle_strided_loads(func)
