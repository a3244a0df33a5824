"""What loops cost on each kind of core: the constants of the prices, as fits to measurements of the kernels.

Kinds differ in what a core multiplies in a cycle: half a line or a whole one, which hides much of what loads wait for,
or two lines, which hide nothing of it, since loads of operands take all that a core can load.
"""

from dataclasses import replace

from sparsec.schedules.rules.prices import WAIT, Inner
from sparsec.targets import LINE, Target

PANELS = Inner(step=0.3, sums=1.6, miss=0.25, wait=WAIT)  # the depth is a counted loop that LLVM unrolls
PANELS_OF_TWO_LINES = Inner(  # each a third more, since no loop sustains two lines
    step=0.4, sums=2.1, miss=0.33, busy=1.33, works=1.33, copy=2.5, wait=WAIT
)
ENTRIES = Inner(  # with vectors of a line
    step=0.21, sums=3.4, open=6.5, miss=0.5, busy=0.86, far=0.8, wait=1.08, copy=3.97, first=2.36, keeps=1.25
)
HALF_LINES = Inner(  # and of half of one
    step=0.22, sums=2.33, open=6.8, miss=0.56, busy=1.08, far=1.26, wait=1.0, copy=1.84, first=2.29
)
TWO_LINES = Inner(  # and of two lines in a cycle
    step=0.55, sums=3.5, open=4.8, miss=0.8, busy=1.53, far=1.53, wait=0.5, copy=11.0, first=9.6, keeps=0.81
)
SLICES = Inner(step=0.0, sums=1.0, open=100.0, busy=1.9)  # each element of X is a load
FILTERS = Inner(step=0.0, sums=0.7, open=9.6, miss=0.54, busy=0.81)
FILTERS_OF_TWO_LINES = Inner(step=0.0, sums=0.93, open=12.8, miss=0.72, busy=1.08, works=1.33)  # taken as panels are
BLOCKS = {"step": 0.13, "group": 1.24, "miss": 0.1}  # neighbouring rows of X are fetched ahead
KERNELS = {"step": 4.0, "busy": 1.3}
GROUPS = {"group": 1.2}
STRUCTURED = {"step": 0.4, "busy": 1.25}
BITS = {"step": 0.5}
"""What differs from entries."""


def of_panels(target: Target) -> Inner:
    """Return what loops over dense panels cost."""
    return PANELS_OF_TWO_LINES if target.multiplies_two_lines else PANELS


def of_filters(target: Target) -> Inner:
    """Return what loops over the kernels of a pattern cost."""
    return FILTERS_OF_TWO_LINES if target.multiplies_two_lines else FILTERS


def of_entries(target: Target, rows: int = 1, /, **changes: float) -> Inner:
    """Return what loops over entries of jammed rows cost.

    The multiply-adds of more rows hide what loads wait for, in caches and for translated addresses, but not where two
    lines are multiplied in a cycle.
    """
    if target.multiplies_two_lines:
        return replace(TWO_LINES, **changes)
    inner = ENTRIES if target.vector_bits >= 8 * LINE else HALF_LINES
    return replace(inner, **({"miss": inner.miss / rows**2, "far": inner.far / rows**2} | changes))
