"""The weights of a PyTorch module."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from sparsec.errors import PruningError, last_line
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
        readers: dict[int, list[str]] = {}
        for path, module in model.named_modules():
            for parameter in module._parameters.values():
                readers.setdefault(id(parameter), []).append(f"{type(module).__name__} {path!r}")
        found: dict[int, Weight] = {}
        for path, module in model.named_modules():
            attribute = next((name for kind, name in WEIGHTS.items() if isinstance(module, kind)), None)
            parameter = getattr(module, attribute, None) if attribute else None
            if attribute is None or not isinstance(parameter, torch.Tensor):
                continue
            weight = found.setdefault(id(parameter), _describe(path, module, attribute, parameter))
            self._owners.setdefault(weight.name, []).append((module, attribute))
        self.weights = tuple(self._with_obstacle(key, weight, readers) for key, weight in found.items())

    def _with_obstacle(self, key: int, weight: Weight, readers: dict[int, list[str]]) -> Weight:
        owners = len(self._owners[weight.name])
        module, attribute = self._owners[weight.name][0]
        if parametrize.is_parametrized(module, attribute):
            return replace(weight, obstacle="is parametrised already")
        if not getattr(module, attribute).dtype.is_floating_point:
            return replace(weight, obstacle=f"holds {getattr(module, attribute).dtype}")
        if len(readers.get(key, ())) > owners:
            kinds = tuple(kind.__name__ for kind in WEIGHTS)
            other = next((name for name in readers[key] if not name.startswith(kinds)), readers[key][-1])
            return replace(weight, obstacle=f"is also read by {other}")
        return weight

    def _tensor(self, weight: Weight) -> torch.Tensor:
        module, attribute = self._owners[weight.name][0]
        tensor = getattr(module, attribute)
        assert isinstance(tensor, torch.Tensor)
        return tensor.detach()

    # ---- reading and masking

    def read(self, weight: Weight) -> NDArray[Any]:
        tensor = self._tensor(weight).cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def mask(self, weight: Weight, mask: Mask) -> None:
        tensor = self._tensor(weight)
        tensor.masked_fill_(~torch.from_numpy(np.ascontiguousarray(mask)).to(tensor.device), 0.0)

    @contextmanager
    def hold(self, masks: Mapping[str, Mask]) -> Iterator[None]:
        with ExitStack() as stack:
            for weight in self.weights:
                if weight.name in masks:
                    kept = torch.from_numpy(np.ascontiguousarray(masks[weight.name]))
                    for module, attribute in self._owners[weight.name]:
                        masked = _Masked(kept.to(getattr(module, attribute).device))
                        parametrize.register_parametrization(module, attribute, masked, unsafe=True)
                        stack.callback(parametrize.remove_parametrizations, module, attribute)
            yield

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


def _describe(path: str, module: nn.Module, attribute: str, parameter: torch.Tensor) -> Weight:
    name = f"{path}.{attribute}" if path else attribute
    groups = getattr(module, "groups", 1)
    layer = path or type(module).__name__
    return Weight(
        name, layer, type(module).__name__, tuple(parameter.shape), groups=groups if parameter.dim() > 2 else 1
    )
