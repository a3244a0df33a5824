"""The weights of a PyTorch module."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from sparsec.errors import PruningError, last_line
from sparsec.pruning import flow, torch_steps
from sparsec.pruning.norms import conv_squares, linear_squares
from sparsec.pruning.patterns import Mask
from sparsec.pruning.weights import Weight

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

WEIGHTS: dict[type[nn.Module], str] = {
    nn.Linear: "weight",
    nn.Conv1d: "weight",
    nn.Conv2d: "weight",
    nn.Conv3d: "weight",
    nn.MultiheadAttention: "in_proj_weight",
}
"""Modules with a weight, outputs first, and the attribute that it is."""


class TorchSource:
    """A module that is changed in place."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._owners: dict[str, list[tuple[nn.Module, str]]] = {}
        first_names: dict[int, str] = {}
        for path, module in model.named_modules():
            for attribute, parameter in module._parameters.items():
                if parameter is not None:
                    name = first_names.setdefault(id(parameter), f"{path}.{attribute}" if path else attribute)
                    self._owners.setdefault(name, []).append((module, attribute))
        found: dict[str, Weight] = {}
        self._layers: dict[str, str] = {}
        for path, module in model.named_modules():
            attribute = next((name for kind, name in WEIGHTS.items() if isinstance(module, kind)), "")
            tensor = getattr(module, attribute, None)
            if not isinstance(tensor, torch.Tensor):
                continue
            name = first_names.get(id(tensor), f"{path}.{attribute}" if path else attribute)
            found.setdefault(name, self._describe(name, path, module, tensor))
            if attribute == "weight":
                self._layers[path] = name
        self.weights = tuple(found.values())

    def _describe(self, name: str, path: str, module: nn.Module, tensor: torch.Tensor) -> Weight:
        kind = type(module).__name__
        groups = module.groups if isinstance(module, CONVOLUTIONS) else 1
        return Weight(
            name, path or kind, kind, tuple(tensor.shape), groups=groups, obstacle=self._obstacle(name, tensor)
        )

    def _obstacle(self, name: str, tensor: torch.Tensor) -> str:
        if name not in self._owners:
            return "is no parameter but computed, by a parametrisation perhaps"
        if not tensor.dtype.is_floating_point:
            return f"holds {tensor.dtype}, and only floating-point weights are pruned"
        others = [type(module).__name__ for module, _ in self._owners[name] if not isinstance(module, tuple(WEIGHTS))]
        return f"is also read by {others[0]}" if others else ""

    # ---- reading and masking

    def _tensor(self, name: str) -> torch.Tensor:
        module, attribute = self._owners[name][0]
        tensor = getattr(module, attribute)
        assert isinstance(tensor, torch.Tensor)
        return tensor.detach()

    def read(self, name: str) -> NDArray[Any]:
        if name not in self._owners:
            path, _, attribute = name.rpartition(".")
            return getattr(self.model.get_submodule(path), attribute).detach().cpu().float().numpy()
        tensor = self._tensor(name).cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def mask(self, name: str, mask: Mask) -> None:
        tensor = self._tensor(name)
        tensor.masked_fill_(~torch.from_numpy(np.ascontiguousarray(mask)).to(tensor.device), 0.0)

    @contextmanager
    def hold(self, masks: Mapping[str, Mask]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, mask in masks.items():
                kept = torch.from_numpy(np.ascontiguousarray(mask))
                for module, attribute in self._owners[name]:
                    stack.callback(_restore, module, attribute, list(module._parameters))
                    masked = _Masked(kept.to(getattr(module, attribute).device))
                    parametrize.register_parametrization(module, attribute, masked, unsafe=True)
            yield

    # ---- following channels

    def last_layers(self) -> frozenset[str]:
        """Of a module that torch.fx cannot trace, the layer that was added last."""
        try:
            return torch_steps.last_layers(torch_steps.trace(self.model), self._layers)
        except PruningError:
            return frozenset(list(self._layers.values())[-1:])

    def kill_channels(self, masks: Mapping[str, Mask]) -> dict[str, Mask]:
        steps = list(torch_steps.steps_of(torch_steps.trace(self.model), self._layers))
        offsets = {name for step in steps for name in step.offsets}
        sizes = {name: self._tensor(name).numel() for name in offsets if len(self._owners.get(name, ())) == 1}
        return flow.kill_channels(steps, self.weights, masks, sizes)

    # ---- running the module

    def input_norms(self, inputs: Any, weights: Collection[Weight]) -> dict[str, NDArray[np.float64]]:
        squares: dict[str, Any] = {}
        with ExitStack() as stack:
            for weight in weights:
                for module, _ in self._owners[weight.name]:
                    hook = _Norms(weight, squares)
                    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            self._run(inputs if isinstance(inputs, list) else [inputs])
        if missing := next((weight for weight in weights if weight.name not in squares), None):
            raise PruningError(f"the calibration inputs do not reach {missing.layer!r}; skip it, or score by magnitude")
        return {name: np.sqrt(value) for name, value in squares.items()}

    def _run(self, batches: list[Any]) -> None:
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.no_grad():
                for batch in batches:
                    if isinstance(batch, Mapping):
                        self.model(**batch)
                    else:
                        self.model(*((batch,) if isinstance(batch, torch.Tensor) else batch))
        except Exception as error:  # whatever the module's code raises for inputs that do not fit
            raise PruningError(f"the module does not run on the calibration inputs: {last_line(error)}") from error
        finally:
            for module in training:
                module.training = True


class _Masked(nn.Module):
    """A parametrisation: the weight where it is kept, and zero elsewhere whatever the parameter holds there."""

    def __init__(self, kept: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.masked_fill(~self.kept, 0.0)  # type: ignore[operator]


def _restore(module: nn.Module, attribute: str, order: list[str]) -> None:
    """Make a parametrised tensor a parameter again, in the place that it had among the others."""
    parametrize.remove_parametrizations(module, attribute)
    for name in order:
        if name in module._parameters:
            module._parameters[name] = module._parameters.pop(name)


class _Norms:
    """A hook that adds up the squares of what reaches a module."""

    def __init__(self, weight: Weight, squares: dict[str, Any]) -> None:
        self._weight, self._squares = weight, squares

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else next(iter(kwargs.values()))
        x = value.detach().cpu().float().numpy()
        if isinstance(module, CONVOLUTIONS):
            axes = len(module.kernel_size)
            batch = x if x.ndim == axes + 2 else x[None]
            found = conv_squares(batch, module.kernel_size, module.stride, _pads(module), module.dilation)
        else:
            found = linear_squares(x)
        before = self._squares.get(self._weight.name, 0.0)
        self._squares[self._weight.name] = before + found.reshape(self._weight.groups, 1, -1)


def _pads(module: Any) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis."""
    if module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size)
    if module.padding == "same":
        totals = [(k - 1) * d for k, d in zip(module.kernel_size, module.dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(pad, pad) for pad in module.padding]
