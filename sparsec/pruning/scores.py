"""How much a weight matters: by its size, by a gradient, or by what it is multiplied by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsec.errors import PruningError
from sparsec.pruning.weights import Source, Weight

Gradients = Mapping[str, Any]
"""The derivative of the loss by each weight, an array or tensor of its shape, by the weight's name."""


class Score(Protocol):
    """A way to score weights."""

    def of(self, source: Source, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        """Score the weights of a model: by name, [groups, rows, depth] of what is at least 0."""


@dataclass(frozen=True)
class Magnitude:
    """|w| (Han et al., "Learning both weights and connections for efficient neural networks", 2015)."""

    def of(self, source: Source, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        return {weight.name: np.abs(_values(source, weight)) for weight in weights}


@dataclass(frozen=True, eq=False)
class Taylor:
    """(w · ∂L/∂w)², the change of the loss to first order (Molchanov et al., "Importance estimation for neural network
    pruning", 2019, equation 8).

    Parameters
    ----------
    gradients : mapping, or a function of the model that returns it
        Of each weight that is pruned. A function is called anew at each stage, as gradients age.
    """

    gradients: Gradients | Callable[[Any], Gradients]

    def of(self, source: Source, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        gradients = self.gradients(source.model) if callable(self.gradients) else self.gradients
        return {
            weight.name: np.square(_values(source, weight) * weight.matrices(_gradient(gradients, weight)))
            for weight in weights
        }


@dataclass(frozen=True, eq=False)
class Activations:
    """|w| · ‖x‖₂ over all inputs x that w is multiplied by (Sun et al., "A simple and effective pruning approach for
    large language models", 2023, section 3).

    Parameters
    ----------
    inputs : of the model, or a list of such
        For ONNX a mapping from the name of an input to its array; for PyTorch a tuple of arguments, or a mapping.
    """

    inputs: Any

    def of(self, source: Source, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        norms = source.input_norms(self.inputs, weights)
        return {weight.name: np.abs(_values(source, weight)) * norms[weight.name] for weight in weights}


def _values(source: Source, weight: Weight) -> NDArray[np.float64]:
    values = weight.matrices(source.read(weight.name)).astype(np.float64)
    if not np.isfinite(values).all():
        raise PruningError(f"weight {weight.name!r} holds NaN or infinity, which cannot be ranked; skip it")
    return values


def _gradient(gradients: Gradients, weight: Weight) -> NDArray[np.float64]:
    if (gradient := gradients.get(weight.name)) is None:
        raise PruningError(f"there is no gradient for {weight.name!r}; give one, or skip the weight")
    array = np.asarray(gradient.detach().cpu() if hasattr(gradient, "detach") else gradient, np.float64)
    if array.shape != weight.shape:
        raise PruningError(f"the gradient of {weight.name!r} is {array.shape}, and the weight {weight.shape}")
    if not np.isfinite(array).all():
        raise PruningError(f"the gradient of {weight.name!r} holds NaN or infinity, which cannot be ranked")
    return array
