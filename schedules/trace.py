"""Traces: schedules as data, replayed on a product to make its scheduled S-TIR."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from tvm import tirx
from tvm.s_tir import Schedule

from sparsec.errors import ScheduleError
from sparsec.ir.kernel import Kernel
from sparsec.ir.lower import Lowered, lower
from sparsec.ir.product import Product, build_kernel
from sparsec.schedules.steps import STEPS, Step, Tile


@dataclass(frozen=True)
class Trace:
    """An ordered list of steps; the first one tiles.

    >>> trace = Trace((Tile((64,)), Tensorize("update", "fma", 16)))
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
            return cls(tuple(STEPS[name](**_tuples(options)) for name, options in json.loads(text)))
        except (KeyError, TypeError, ValueError) as error:
            raise ScheduleError(f"this is not a trace of known steps: {error}") from error

    def apply(self, product: Product) -> Scheduled:
        """Replay the trace.

        Raises
        ------
        ScheduleError : where a step does not apply
        """
        tile, *moves = self.steps
        if not isinstance(tile, Tile):
            raise ScheduleError(f"a trace starts with a tile step, not with {tile.name!r}")
        kernel = build_kernel(product, tile.tiling(product.columns, product.rows))
        lowered = lower(kernel)
        schedule = Schedule(lowered.func)
        for move in moves:
            move.apply(schedule)
        (func,) = schedule.mod.functions.values()
        return Scheduled(kernel, lowered, func)


@dataclass(frozen=True)
class Scheduled:
    """A kernel, its lowered form and the scheduled PrimFunc, whose parameters are those of the lowered form."""

    kernel: Kernel
    lowered: Lowered
    func: tirx.PrimFunc

    def pack(self, buffer: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays that the function takes in place of the packed operand `buffer`, in order."""
        return self.lowered.pack(buffer, value)


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
