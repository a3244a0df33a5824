"""Sets weights of a model to zero in a pattern, at once or in stages with fine-tuning between."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsec.errors import ModelError, PruningError
from sparsec.pruning.patterns import Mask, Pattern, Scores, parse_pattern
from sparsec.pruning.scores import Magnitude, Score
from sparsec.pruning.weights import Source, Weight

Scope = Literal["global", "layer"]
FineTune = Callable[[Any, float], None]
"""Called with the model and the sparsity that it has just been pruned to."""

FIRST, DEPTHWISE, LAST = "is the first convolution", "is depthwise", "computes outputs of the model"
"""Why a layer is spared unless it is included. Of dead channels it loses the inputs all the same."""

ROUNDING = 0.005
"""A sparsity that is written with two digits is as good as the one that the pattern fixes."""


@dataclass(frozen=True)
class PrunedLayer:
    """What became of one layer.

    Parameters
    ----------
    name, operator, weight : the layer in the model, what it is, and the name of its weight
    shape : of the weight in the model
    size, zeros : weights in all, and those that are zero
    kept : why the layer was not pruned, in words that follow its name; empty where it was
    """

    name: str
    operator: str
    weight: str
    shape: tuple[int, ...]
    size: int
    zeros: int
    kept: str = ""

    @property
    def sparsity(self) -> float:
        """The part of the weight that is zero."""
        return self.zeros / self.size if self.size else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self) | {"shape": list(self.shape), "sparsity": self.sparsity}


@dataclass(frozen=True)
class Pruned:
    """A pruned model and what was done to it.

    Parameters
    ----------
    model : the ONNX protobuf, or the PyTorch module
    pattern : that its pruned weights have
    layers : every linear layer and convolution, in the order of the model
    masks : by the name of each pruned weight, bool of its shape: true where it is kept; with `Channels`, also of the
        biases and norms of dead channels
    """

    model: Any
    pattern: Pattern
    layers: tuple[PrunedLayer, ...]
    masks: dict[str, Mask]
    _source: Source = field(repr=False, compare=False)

    @property
    def sparsity(self) -> float:
        """The part that is zero of all pruned weights."""
        pruned = [layer for layer in self.layers if not layer.kept]
        return sum(layer.zeros for layer in pruned) / sum(layer.size for layer in pruned)

    @property
    def emptied(self) -> list[str]:
        """The names of pruned layers of which nothing is left, so that they compute zeros or their biases alone."""
        return [layer.name for layer in self.layers if not layer.kept and layer.zeros == layer.size]

    def hold(self) -> AbstractContextManager[None]:
        """Keep pruned weights at zero while the model is trained in the block.

        >>> with pruned.hold():                                                   # doctest: +SKIP
        ...     train(pruned.model)

        Of a PyTorch module the weights are parametrised (`torch.nn.utils.parametrize`) until the block ends, so that
        neither momentum nor weight decay nor a scheduler can bring one back.
        """
        return self._source.hold(self.masks)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an ONNX model, whole or not at all."""
        import onnx

        if not isinstance(self.model, onnx.ModelProto):
            raise ModelError(f"only ONNX models are saved; write the {type(self.model).__name__} with torch.save")
        path = Path(path)
        beside = path.with_name(f".{path.name}.new")
        try:
            beside.write_bytes(self.model.SerializeToString())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return path

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        layers = [layer.as_dict() for layer in self.layers]
        facts = {"pattern": str(self.pattern), "sparsity": self.sparsity, "emptied": self.emptied}
        return facts | {"layers": layers}


def prune(
    model: Any,
    pattern: str | Pattern,
    sparsity: float | Sequence[float] | None = None,
    *,
    score: Score | None = None,
    scope: Scope = "global",
    skip: Collection[str] = (),
    include: Collection[str] = (),
    fine_tune: FineTune | None = None,
) -> Pruned:
    """Set the weights of a model that matter least to zero, in a pattern.

    >>> sparsec.prune("bert.onnx", "tile-wise:128", 0.75).save("pruned.onnx")     # doctest: +SKIP
    >>> sparsec.prune(module, TileWise(128), [0.25, 0.5, 0.75], fine_tune=train)  # doctest: +SKIP

    Pruned are the weights of linear layers and convolutions, in ONNX those of the main graph. A model's first
    convolution and its depthwise convolutions stay dense, because they have few weights and lose much; `include` prunes
    them too. Where whole outputs go, the layers that compute the outputs of the model keep theirs.

    Parameters
    ----------
    model : path, onnx.ModelProto or torch.nn.Module
        A module is changed in place; an ONNX model is copied. The copy has external data inside, and sparse
        initializers and constants dense.
    pattern : Pattern, or its text such as ``"tile-wise:128"``
    sparsity : float or sequence of float, optional
        The part of the weights to prune, in (0, 1); several are stages, one after the other. Not needed where the
        pattern fixes it, as 2:4 does.
    score : Score, optional
        `Magnitude`, `Taylor` or `Activations`; the first if left out.
    scope : {"global", "layer"}
        Whether the weights of all layers are ranked together, or those of each layer alone.
    skip, include : names of layers or of weights, with wildcards as in ``"encoder.*"``
        What is not pruned, and what is although it would stay dense otherwise.
    fine_tune : callable, optional
        Called after each stage with the model and the sparsity. Pruned weights stay zero whatever it does.

    Raises
    ------
    ModelError
        The model cannot be read.
    PruningError
        The pattern, the sparsity or the scores do not fit the model, or nothing in it can be pruned.
    """
    pattern = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    stages = _stages(pattern, sparsity)
    if scope not in ("global", "layer"):
        raise PruningError(f"the scope is 'global' or 'layer', not {scope!r}")
    source = _open(model)
    weights = _choose(source, pattern, skip, include)
    pruned = [weight for weight in weights if not weight.obstacle]
    if not pruned:
        raise PruningError(f"there is nothing to prune: {_why(weights)}")
    spared = {w.name: np.ones(w.shape, bool) for w in weights if w.obstacle in (FIRST, DEPTHWISE, LAST)}
    masks: dict[str, Mask] = {}
    for stage in stages:
        scores = (score or Magnitude()).of(source, pruned)
        masks = _masks(pattern, stage, pruned, scores, scope)
        if pattern.takes_inputs:
            masks |= source.kill_channels(masks | spared)
        for name, mask in masks.items():
            source.mask(name, mask)
        if fine_tune is not None:
            with source.hold(masks):
                fine_tune(source.model, stage)
    return Pruned(source.model, pattern, tuple(_describe(source, weight) for weight in weights), masks, source)


def _open(model: Any) -> Source:
    if isinstance(model, str | os.PathLike):
        from sparsec.frontends.onnx_read import read_onnx
        from sparsec.pruning.from_onnx import OnnxSource

        return OnnxSource(read_onnx(os.fspath(model)))
    if type(model).__module__.partition(".")[0] == "onnx":
        import onnx

        from sparsec.frontends.onnx_read import check_onnx
        from sparsec.pruning.from_onnx import OnnxSource

        copy = onnx.ModelProto()
        copy.CopyFrom(check_onnx(model))
        return OnnxSource(copy)
    if hasattr(model, "named_modules"):
        from sparsec.pruning.from_torch import TorchSource

        return TorchSource(model)
    raise ModelError(
        f"cannot prune {type(model).__name__}; give the path of an ONNX file, an onnx.ModelProto or a torch.nn.Module"
    )


def _stages(pattern: Pattern, sparsity: float | Sequence[float] | None) -> list[float]:
    """The sparsities to go through, each within the pattern's bounds."""
    least, most = pattern.bounds
    if sparsity is None:
        if least == 0:
            raise PruningError(f"the pattern {pattern} leaves the sparsity open; state it, as in 0.75")
        return [least]
    stages = [float(each) for each in (sparsity if isinstance(sparsity, Sequence) else (sparsity,))]
    for stage in stages:
        if not 0 < stage < 1:
            raise PruningError(f"a sparsity is between 0 and 1, as in 0.75, and not {stage:g}")
        if not least - ROUNDING <= stage <= most + ROUNDING:
            reach = f"is {least:.1%} sparse" if least == most else f"is between {least:.1%} and {most:.1%} sparse"
            raise PruningError(f"the pattern {pattern} {reach}, and cannot be {stage:.1%}")
    if not stages or stages != sorted(stages):
        raise PruningError(f"the stages {stages} do not rise; each prunes more than the one before")
    return [min(max(stage, least), most) for stage in stages]


def _choose(source: Source, pattern: Pattern, skip: Collection[str], include: Collection[str]) -> list[Weight]:
    """All weights, with the obstacle of each that is not to be pruned."""
    weights = source.weights
    last = source.last_layers() if pattern.drops_rows else frozenset()
    for name in (*skip, *include):
        if not any(_named(weight, (name,)) for weight in weights):
            raise PruningError(f"no layer with weights is named {name!r}; the model has {_names(weights)}")
    first = next((weight.name for weight in weights if weight.is_convolution), None)
    chosen = []
    for weight in weights:
        obstacle = weight.obstacle
        if not obstacle and _named(weight, skip):
            obstacle = "is skipped"
        elif not obstacle and not _named(weight, include):
            obstacle = FIRST if weight.name == first else DEPTHWISE if weight.is_depthwise else ""
            obstacle = LAST if weight.name in last else obstacle
        if not obstacle:
            rows = weight.shape[1 if weight.inputs_first else 0] // weight.groups
            obstacle = pattern.objection((rows, _depth(weight)), weight.taps)
        chosen.append(replace(weight, obstacle=obstacle))
    return chosen


def _depth(weight: Weight) -> int:
    return weight.shape[0] if weight.inputs_first else weight.shape[1] * weight.taps


def _named(weight: Weight, names: Collection[str]) -> bool:
    return any(fnmatchcase(weight.layer, name) or fnmatchcase(weight.name, name) for name in names)


def _names(weights: Sequence[Weight], most: int = 8) -> str:
    names = [weight.layer for weight in weights[:most]]
    return ", ".join(names) + (f" and {len(weights) - most} more" if len(weights) > most else "") if names else "none"


def _why(weights: Sequence[Weight]) -> str:
    if not weights:
        return "the model has no linear layers and no convolutions with constant weights"
    return "; ".join(dict.fromkeys(f"{weight.layer!r} {weight.obstacle}" for weight in weights[:3]))


def _masks(
    pattern: Pattern, sparsity: float, weights: Sequence[Weight], scores: Mapping[str, Any], scope: Scope
) -> dict[str, Mask]:
    """The mask of each weight, in its own shape. Every group of a convolution is a matrix of its own."""
    masks: dict[str, Mask] = {}
    for together in [weights] if scope == "global" else [[weight] for weight in weights]:
        matrices = [Scores(values, weight.taps) for weight in together for values in scores[weight.name]]
        kept = iter(pattern.keep(matrices, sparsity))
        for weight in together:
            masks[weight.name] = weight.array(np.stack([next(kept) for _ in range(weight.groups)]))
    return masks


def _describe(source: Source, weight: Weight) -> PrunedLayer:
    values = source.read(weight.name)
    zeros = values.size - int(np.count_nonzero(values))
    return PrunedLayer(weight.layer, weight.operator, weight.name, weight.shape, values.size, zeros, weight.obstacle)
