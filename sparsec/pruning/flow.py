"""What a dead channel takes with it: the inputs that it was of the layers behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparsec.pruning.patterns import Mask
from sparsec.pruning.weights import Weight

Kind = Literal["layer", "same", "pool", "norm", "bias", "flatten", "add", "multiply", "concat"]


@dataclass(frozen=True)
class Step:
    """An operator as channels see it; operators that are no such step end what is known of their channels.

    Parameters
    ----------
    kind : what becomes of a channel that is zero everywhere
        Most leave it zero. ``pool`` and ``concat`` are along the second axis, and ``bias`` is added along the last;
        ``flatten`` puts channels and what lies within them on one axis; ``multiply`` makes zero if one operand is.
    inputs, output : names of activations
    weight : of a layer, its name
    offsets : names of vectors that would make something of nothing, an entry for each channel: a bias, or the scale and
        the shift of a norm
    """

    kind: Kind
    inputs: tuple[str, ...]
    output: str
    weight: str = ""
    offsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Channels:
    """Which channels of an activation are zero everywhere, and which axis they are on.

    ``flat`` channels are the last axis as well, but each may be several consecutive coordinates of it.
    """

    dead: Mask
    axis: Literal["second", "last", "flat"]


def kill_channels(
    steps: Sequence[Step], weights: Sequence[Weight], masks: Mapping[str, Mask], sizes: Mapping[str, int]
) -> dict[str, Mask]:
    """Follow outputs that are wholly masked through a model, and mask what they were inputs of.

    Parameters
    ----------
    steps : in the order in which they run
    weights : of the model, pruned or not
    masks : of the weights that may be changed, in their own shapes
    sizes : entries of each offset that may be changed

    Returns
    -------
    dict
        The masks that are not all true, and [channels] of the offsets that kept dead channels from being zero.
    """
    result = {name: mask.copy() for name, mask in masks.items()}
    by_name = {weight.name: weight for weight in weights}
    uses = Counter(step.weight for step in steps)
    known: dict[str, _Channels] = {}
    for step in steps:
        inputs = [known.get(name) for name in step.inputs]
        if step.kind == "layer":
            weight = by_name[step.weight]
            if weight.name in result and uses[weight.name] == 1:
                result[weight.name] = _without_inputs(weight, result[weight.name], inputs[0])
            found: _Channels | None = _outputs(weight, result.get(weight.name))
        else:
            found = _combine(step.kind, inputs)
        if found is None:
            continue
        if any(sizes.get(name) != len(found.dead) for name in step.offsets):
            found = _Channels(np.zeros_like(found.dead), found.axis)
        for name in step.offsets if found.dead.any() else ():
            result[name] = ~found.dead
        known[step.output] = found
    return {name: mask for name, mask in result.items() if not mask.all()}


def _outputs(weight: Weight, mask: Mask | None) -> _Channels:
    axis: Literal["second", "last"] = "second" if weight.is_convolution else "last"
    if mask is None:
        return _Channels(np.zeros(weight.shape[1 if weight.inputs_first else 0], bool), axis)
    matrices = weight.matrices(mask)
    return _Channels(~matrices.any(axis=2).reshape(-1), axis)


def _without_inputs(weight: Weight, mask: Mask, channels: _Channels | None) -> Mask:
    """The mask of a layer without the inputs that are dead channels."""
    matrices = weight.matrices(mask)
    inputs = matrices.shape[0] * matrices.shape[2] // (weight.taps if weight.is_convolution else 1)
    if channels is None or (channels.axis == "second") != weight.is_convolution or inputs % len(channels.dead):
        return mask
    if channels.axis != "flat" and inputs != len(channels.dead):
        return mask
    dead = np.repeat(channels.dead, matrices.shape[0] * matrices.shape[2] // len(channels.dead))
    return weight.array(matrices & ~dead.reshape(matrices.shape[0], 1, -1))


def _combine(kind: Kind, inputs: Sequence[_Channels | None]) -> _Channels | None:
    """The channels of a result that has no weight of its own."""
    present = [channels for channels in inputs if channels is not None]
    if not present or len({channels.axis for channels in present}) > 1:
        return None
    axis = present[0].axis
    if (kind == "bias" and axis != "last") or (kind in ("pool", "flatten", "concat") and axis != "second"):
        return None
    if kind == "flatten":
        return _Channels(present[0].dead, "flat")
    if kind == "concat":
        whole = len(present) == len(inputs)
        return _Channels(np.concatenate([channels.dead for channels in present]), axis) if whole else None
    if len({len(channels.dead) for channels in present}) > 1:
        return None
    dead = [channels.dead for channels in present]
    if kind == "multiply":
        return _Channels(np.logical_or.reduce(dead), axis)
    return _Channels(np.logical_and.reduce(dead), axis) if len(present) == len(inputs) else None
