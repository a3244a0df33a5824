"""The weights of a model, whatever it is written in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsec.pruning.patterns import Mask


@dataclass(frozen=True)
class Weight:
    """The weight of a linear layer or a convolution.

    Parameters
    ----------
    name, layer, operator : the weight in its model, and what it belongs to
    shape : [outputs, inputs], [inputs, outputs] where `inputs_first`, or [outputs, inputs / groups, taps …]
    groups : of a convolution
    obstacle : why the weight cannot be pruned, in words that follow its name; empty where it can
    """

    name: str
    layer: str
    operator: str
    shape: tuple[int, ...]
    inputs_first: bool = False
    groups: int = 1
    obstacle: str = ""

    @property
    def is_convolution(self) -> bool:
        """Whether there may be taps besides inputs and outputs."""
        return self.operator.startswith("Conv")

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has filters of its own."""
        return self.is_convolution and self.groups > 1 and self.shape[1] == 1

    @property
    def taps(self) -> int:
        """Spatial positions of a filter."""
        return prod(self.shape[2:])

    def matrices(self, array: NDArray[Any]) -> NDArray[Any]:
        """Put an array of the weight's shape into [groups, rows, depth], outputs first."""
        if self.inputs_first:
            return array.T[None]
        return array.reshape(self.groups, self.shape[0] // self.groups, -1)

    def array(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `matrices`."""
        return matrices[0].T if self.inputs_first else matrices.reshape(self.shape)


class Source(Protocol):
    """A model whose tensors can be read and masked, by name."""

    model: Any
    weights: tuple[Weight, ...]

    def read(self, name: str) -> NDArray[Any]:
        """Values of a weight, a bias or the like, in its own shape and type."""

    def mask(self, name: str, mask: Mask) -> None:
        """Set a tensor to zero where its mask is false."""

    def hold(self, masks: Mapping[str, Mask]) -> AbstractContextManager[None]:
        """Keep what is masked at zero while the block changes the rest."""

    def input_norms(self, inputs: Any, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        """Run the model, and return the ‖·‖₂ of everything that each input of a weight was: [groups, 1, depth]."""

    def last_layers(self) -> frozenset[str]:
        """Names of the weights of layers that compute outputs of the model."""

    def kill_channels(self, masks: Mapping[str, Mask]) -> dict[str, Mask]:
        """Extend masks that drop whole outputs to the inputs that they were, see `sparsec.pruning.flow`."""
