"""Traces: schedules as data, replayed on a product to make its scheduled S-TIR."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from tvm import tirx
from tvm.s_tir import Schedule

from sparsec.errors import ScheduleError
from sparsec.ir.kernel import Kernel
from sparsec.ir.lower import Lowered, lower
from sparsec.ir.product import Product
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.steps import STEPS, Accumulate, Step, Tensorize, Tile, Vectorize, vectorize_lanes


@dataclass(frozen=True)
class Trace:
    """An ordered list of steps; the first one tiles.

    >>> trace = Trace((Tile((64,)), Tensorize("update", "fma.16")))
    >>> Trace.from_json(trace.to_json()) == trace
    True
    """

    steps: tuple[Step, ...]

    def to_json(self) -> str:
        """Return the trace as a JSON list, a step as `[name, {option: value}]`."""
        return json.dumps([[s.name, {f.name: getattr(s, f.name) for f in fields(s)}] for s in self.steps])

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read what `to_json` wrote.

        Raises
        ------
        ScheduleError : for text that is not a trace
        """
        try:
            return cls(tuple(_read_step(step) for step in _list(json.loads(text))))
        except (TypeError, ValueError) as error:
            raise ScheduleError(f"this is not a trace of known steps: {error}") from error

    @property
    def overlaps(self) -> bool:
        """Whether the last tiles may compute some columns again."""
        return any(isinstance(step, Tile) and bool(step.dots) for step in self.steps)

    def apply(self, product: Product, features: Collection[str] | None = None) -> Scheduled:
        """Replay the trace, for a target that has the instructions of these features; None means all.

        Raises
        ------
        ScheduleError : where a step does not apply
        """
        return schedule_kernel(self.kernel(product), self.steps[1:], features)  # type: ignore[arg-type]

    def tensorized(self, product: Product) -> Kernel:
        """Return the kernel, and where its entries are spelled out, with the instructions named that do it.

        Raises
        ------
        ScheduleError : where a step does not apply
        """
        kernel, tile = self.kernel(product), self.steps[0]
        for move in self.steps if isinstance(tile, Tile) and tile.spelled else ():
            kernel = move.apply(kernel) if isinstance(move, Tensorize) else kernel
        return kernel

    def kernel(self, product: Product) -> Kernel:
        """Return the kernel that the first step shapes, before the others move its loops.

        Raises
        ------
        ScheduleError : where the trace is not a tile step and moves of loops
        """
        tile, moves = self.steps[0] if self.steps else None, self.steps[1:]
        if not isinstance(tile, Tile):
            raise ScheduleError(f"a trace starts with a tile step, not with {tile.name if tile else 'nothing'!r}")
        if product.weight.layout is None and not tile.rows:
            raise ScheduleError("an unpacked weight needs tiles of rows, as in Tile((64,), (8,))")
        if any(isinstance(move, Tile) for move in moves):
            raise ScheduleError("a trace has one tile step, 'tile', which comes first")
        return build_kernel(product, tile.tiling(product.columns, product.rows))


@dataclass(frozen=True)
class Scheduled:
    """A kernel, its lowered form and the scheduled PrimFunc, whose parameters are those of the lowered form."""

    kernel: Kernel
    lowered: Lowered
    func: tirx.PrimFunc

    def pack(self, buffer: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays that the function takes in place of the packed operand `buffer`, in order."""
        return self.lowered.pack(buffer, value)


def schedule_kernel(
    kernel: Kernel, moves: Sequence[Vectorize | Accumulate | Tensorize], features: Collection[str] | None = None
) -> Scheduled:
    """Apply moves to a kernel: those that name instructions first, the others to what it is lowered to.

    Raises
    ------
    ScheduleError : where a move does not apply
    """
    for move in moves:
        if isinstance(move, Tensorize):
            kernel = move.apply(kernel)
    lowered = lower(kernel, features)
    schedule = Schedule(lowered.func)
    for move in moves:
        if not isinstance(move, Tensorize):
            move.apply(schedule)
    (func,) = schedule.mod.functions.values()
    return Scheduled(kernel, lowered, vectorize_lanes(func))


def _read_step(item: Any) -> Step:
    """Read `[name, {option: value}]`."""
    name, options = _list(item)
    if not isinstance(name, str) or name not in STEPS:
        raise ValueError(f"{name!r} is not one of {', '.join(STEPS)}")
    if not isinstance(options, dict):
        raise TypeError(f"the options of {name} are {options!r}")
    kinds = {field.name: _KINDS[field.type] for field in fields(STEPS[name])} | _OPTIONS
    for option, value in options.items():
        if option in kinds and not kinds[option](value):
            raise TypeError(f"the option {option} of {name} is {value!r}")
    step: Step = STEPS[name](**{option: tuple(v) if isinstance(v, list) else v for option, v in options.items()})
    return step


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


_KINDS: dict[Any, Callable[[Any], bool]] = {  # what JSON may hold for an option of this type
    "bool": lambda value: isinstance(value, bool),
    "int": _is_size,
    "int | None": lambda value: value is None or _is_size(value),
    "str": lambda value: isinstance(value, str),
    "tuple[int, ...]": lambda value: isinstance(value, list) and all(map(_is_size, value)),
}
_OPTIONS: dict[str, Callable[[Any], bool]] = {  # those that may hold other numbers
    "dots": lambda value: isinstance(value, list) and all(type(each) is int and each >= 0 for each in value),
}
