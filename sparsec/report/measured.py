"""Measured times beside predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsec.report.layers import Layers
    from sparsec.runtime.session import StepTime


TRANSFORMS = ("winograd_input_", "winograd_output_")
"""What stands before and behind a product that is computed by minimal filtering: it belongs to the layer."""


def steps_of_layers(layers: Layers, steps: Sequence[StepTime]) -> list[tuple[int, ...]]:
    """Return which steps compute each layer, its product first; none where no step does.

    Layers and steps are in the order in which they run, and a step's kernel is named after the operator. So the next
    step with a layer's label and operator is its own, though several layers may have one name.
    """
    found: list[tuple[int, ...]] = []
    start = 0
    for layer in layers:
        rest = range(start, len(steps))
        prefix = f"{layer['op']}_"
        own = next((n for n in rest if steps[n].label == layer["name"] and steps[n].kernel.startswith(prefix)), None)
        if own is None:
            found.append(())
            continue
        beside = (n for n in (own - 1, own + 1) if 0 <= n < len(steps) and steps[n].kernel.startswith(TRANSFORMS))
        start = own + 1
        found.append((own, *(n for n in beside if steps[n].label == layer["name"])))
    return found


def with_times(layers: Layers, steps: Sequence[StepTime]) -> list[Mapping[str, Any]]:
    """Give each layer the field `measured`: seconds of its steps in the profile of a library made from the model."""
    places = zip(layers, steps_of_layers(layers, steps), strict=True)
    return [{**layer, "measured": sum(steps[n].seconds for n in own)} if own else layer for layer, own in places]
