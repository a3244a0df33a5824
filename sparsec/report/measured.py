"""Measured times beside predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsec.report.layers import Layers
    from sparsec.runtime.session import StepTime


def with_times(layers: Layers, steps: Sequence[StepTime]) -> list[Mapping[str, Any]]:
    """Give each layer the field `measured`: the seconds of its step in the profile of a library made from the model.

    Layers and steps are in the order in which they run, and a step's kernel is named after the operator. So the next
    step with a layer's label and operator is its own, though several layers may have one name.
    """
    rest = iter(steps)
    timed = []
    for layer in layers:
        prefix = f"{layer['op']}_"
        own = next((step for step in rest if step.label == layer["name"] and step.kernel.startswith(prefix)), None)
        timed.append(layer if own is None else {**layer, "measured": own.seconds})
    return timed
