"""Measured times beside predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsec.report.layers import Layers
    from sparsec.runtime.session import StepTime


def steps_of_layers(layers: Layers, steps: Sequence[StepTime]) -> list[int | None]:
    """Return which step computes each layer, None where none does.

    Layers and steps are in the order in which they run, and a step's kernel is named after the operator. So the next
    step with a layer's label and operator is its own, though several layers may have one name.
    """
    found: list[int | None] = []
    start = 0
    for layer in layers:
        rest = range(start, len(steps))
        prefix = f"{layer['op']}_"
        own = next((n for n in rest if steps[n].label == layer["name"] and steps[n].kernel.startswith(prefix)), None)
        start = start if own is None else own + 1
        found.append(own)
    return found


def with_times(layers: Layers, steps: Sequence[StepTime]) -> list[Mapping[str, Any]]:
    """Give each layer the field `measured`: the seconds of its step in the profile of a library made from the model."""
    places = zip(layers, steps_of_layers(layers, steps), strict=True)
    return [layer if place is None else {**layer, "measured": steps[place].seconds} for layer, place in places]
