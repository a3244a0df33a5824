"""The schedule of what copies images, or pools them: every plane is a task, and its rows are written by vectors."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule

from sparsec.errors import ScheduleError
from sparsec.ir.kernel import Kernel
from sparsec.ir.lower import lower
from sparsec.schedules.rules.strided import shuffle_strided_loads
from sparsec.schedules.steps import Accumulate, Vectorize, vectorize_lanes
from sparsec.targets import Target


def schedule_images(kernel: Kernel, target: Target) -> tirx.PrimFunc:
    """Lower and schedule what `sparsec.ir.repack` or `sparsec.ir.max_pool` made."""
    schedule, lanes = Schedule(lower(kernel).func), target.lanes(kernel.outputs[0].dtype)
    for step in (Vectorize("clear", lanes), Vectorize("finish", lanes), Accumulate("init", lanes)):
        try:
            step.apply(schedule)
        except ScheduleError:
            continue  # nothing to clear, nothing but zeros, or no tile
    (func,) = schedule.mod.functions.values()
    return shuffle_strided_loads(vectorize_lanes(func))
