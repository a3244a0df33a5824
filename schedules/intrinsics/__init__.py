"""Instructions that a trace may name, one file each."""

from collections.abc import Callable

from sparsec.schedules.intrinsics.fma import fma

INTRINSICS: dict[str, Callable[[int, str], str]] = {"fma": fma}
"""By the name in a trace: what declares the instruction for so many lanes and an element type, and returns TVM's."""
