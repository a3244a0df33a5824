"""The schedule of every operator that is not a product: the rules in order, and the one that never declines."""

from collections.abc import Callable, Sequence

from tvm import tirx

from sparsec.schedules.declined import Declined
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.rules import nests, transpose
from sparsec.schedules.rules.stages import Fused, fuse_stages
from sparsec.targets.target import Target

Rule = Callable[[Fused, Target], tirx.PrimFunc | Declined]

DECLINED = "sparsec.declined"
"""The attribute of a scheduled function that holds the reasons of the rules that did not apply, in their order."""

RULES: tuple[Rule, ...] = (transpose.apply, nests.apply)


def schedule(func: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Schedule a fused function for a CPU; every function gets a schedule.

    >>> scheduled = schedule(lower_group(module), target)  # doctest: +SKIP

    Parameters
    ----------
    func : PrimFunc
        A function with a global symbol, as `lower_group` or Relax's FuseTIR makes it.
    target : Target
        The processor.

    Returns
    -------
    PrimFunc
        The first rule's answer. Blocks that no rule reads (scatter, sort) keep the loops they were written with.
    """
    fused = fuse_stages(func)
    if isinstance(fused, Declined):
        return _note([fused], expand_math(func))
    declined: list[Declined] = []
    for rule in RULES:
        scheduled = rule(fused, target)
        if not isinstance(scheduled, Declined):
            return _note(declined, expand_math(scheduled))
        declined.append(scheduled)
    return _note(declined, expand_math(fused.func))


def _note(declined: Sequence[Declined], func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Keep why rules declined with the function, where whoever reads it scheduled finds it."""
    return func.with_attr(DECLINED, [one.reason for one in declined]) if declined else func
