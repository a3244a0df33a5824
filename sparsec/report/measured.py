"""Measured times beside predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsec.report.layers import Layers
    from sparsec.runtime.session import StepTime


def steps_of_layers(layers: Layers, steps: Sequence[StepTime]) -> list[tuple[int, ...]]:
    """Return which steps compute each layer, its product first; none where no step does.

    Layers and steps are in the order in which they run, and a step's kernel is named after the operator. So the next
    step with a layer's label and operator is its own, though several layers may have one name. The transforms of
    minimal filtering belong to the layer between them.
    """
    found: list[tuple[int, ...]] = []
    start = 0
    for layer in layers:
        name = layer["name"]

        def is_of(n: int, op: str, name: str = name) -> bool:
            return steps[n].label == name and steps[n].kernel.startswith(f"{op}_")

        own = next((n for n in range(start, len(steps)) if is_of(n, layer["op"])), None)
        if own is None:
            found.append(())
            continue
        before, behind = reversed(range(start, own)), range(own + 1, len(steps))
        ends = (("winograd_input", before), ("winograd_output", behind)) if layer.get("filtering") else ()
        transforms = (next((n for n in places if is_of(n, op)), None) for op, places in ends)
        start = own + 1
        found.append((own, *(n for n in transforms if n is not None)))
    return found


def with_times(layers: Layers, steps: Sequence[StepTime]) -> list[Mapping[str, Any]]:
    """Give each layer the field `measured`: seconds of its steps in the profile of a library made from the model."""
    places = zip(layers, steps_of_layers(layers, steps), strict=True)
    return [{**layer, "measured": sum(steps[n].seconds for n in own)} if own else layer for layer, own in places]
