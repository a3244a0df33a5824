"""The operators of a PyTorch module as steps of `kill_channels`, as far as torch.fx can trace it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx, nn

from sparsec.errors import PruningError, last_line
from sparsec.pruning.flow import Kind, Step

SAME = {
    *("celu", "contiguous", "dropout", "dropout1d", "dropout2d", "dropout3d", "elu", "gelu", "hardswish", "identity"),
    *("leakyrelu", "mish", "neg", "prelu", "relu", "relu6", "selu", "silu", "softsign", "tanh"),
}
"""Modules, functions and methods that make zero of zero, element by element, in small letters without underscores."""

POOLS = {
    f"{kind}{axes}d" for kind in ("maxpool", "avgpool", "adaptiveavgpool", "adaptivemaxpool") for axes in (1, 2, 3)
}

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

BINARY: dict[str, Kind] = {"add": "add", "iadd": "add", "sub": "add", "mul": "multiply", "imul": "multiply"}


def trace(model: nn.Module) -> fx.GraphModule:
    """The module as a graph.

    Raises
    ------
    PruningError
        It cannot be traced, for its control flow depends on data, say.
    """
    try:
        return fx.symbolic_trace(model)
    except Exception as error:  # whatever the module's code raises when it meets a proxy
        raise PruningError(
            f"torch.fx cannot trace {type(model).__name__} to see which layers follow one another "
            f"({last_line(error)}); export it to ONNX, and prune that"
        ) from error


def steps_of(graph: fx.GraphModule, weights: Mapping[str, str]) -> Iterator[Step]:
    """The steps that are known, in order; `weights` are the names of the weights by the paths of their modules."""
    for node in graph.graph.nodes:
        inputs = tuple(str(operand) for operand in node.all_input_nodes)
        if node.op == "call_module" and str(node.target) in weights:
            bias = (f"{node.target}.bias",) if graph.get_submodule(node.target).bias is not None else ()
            yield Step("layer", inputs, str(node), weights[node.target], bias)
        elif inputs and (kind := _kind(graph, node)):
            norm = graph.get_submodule(node.target) if kind == "norm" else None
            affine = norm is not None and norm.weight is not None
            offsets = (f"{node.target}.weight", f"{node.target}.bias") if affine else ()
            if kind != "norm" or affine:
                yield Step(kind, inputs, str(node), offsets=offsets)


def _kind(graph: fx.GraphModule, node: fx.Node) -> Kind | None:
    """What an operator without a weight of its own does to channels, if it is known."""
    if node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), NORMS):
        return "norm"
    name = _name(graph, node)
    if name in SAME:
        return "same"
    if name in POOLS:
        return "pool"
    if name in BINARY:
        numbers = len(node.args) > len(node.all_input_nodes) and node.all_input_nodes[0] is not node.args[-1]
        return None if numbers and BINARY[name] == "add" else BINARY[name]
    if name == "cat":
        return "concat" if _argument(node, 1, "dim", 0) == 1 else None
    if name == "mean" and _argument(node, 1, "dim", None) in ((2, 3), [2, 3], (-2, -1), [-2, -1]):
        return "pool" if _argument(node, 2, "keepdim", False) else "flatten"
    if name in ("view", "reshape"):
        return "flatten" if len(node.args) == 3 else None
    if name == "flatten":
        start = graph.get_submodule(str(node.target)).start_dim if node.op == "call_module" else None
        return "flatten" if (start or _argument(node, 1, "start_dim", 0)) == 1 else None
    return None


def _name(graph: fx.GraphModule, node: fx.Node) -> str:
    """What is called, in small letters without underscores."""
    if node.op == "call_module":
        name = type(graph.get_submodule(str(node.target))).__name__
    else:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.lower().replace("_", "")


def _argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def last_layers(graph: fx.GraphModule, weights: Mapping[str, str]) -> frozenset[str]:
    """Weights of the layers that compute outputs of the module; what is added to others on the way is none of them."""
    open_nodes = [node for node in graph.graph.nodes if node.op == "output"]
    seen: set[fx.Node] = set()
    last: set[str] = set()
    while open_nodes:
        node = open_nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module" and str(node.target) in weights:
            last.add(weights[str(node.target)])
        elif not (_name(graph, node) in ("add", "iadd") and len(node.all_input_nodes) > 1):
            open_nodes.extend(node.all_input_nodes)
    return frozenset(last)
