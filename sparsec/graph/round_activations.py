"""Let layers multiply bfloat16, where the processor has instructions for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparsec.errors import TargetError
from sparsec.graph.graph import Graph, Node, Value
from sparsec.graph.integer_weights import relative_error
from sparsec.graph.products import find_anchor
from sparsec.graph.store_weights import ERROR
from sparsec.schedules.rules.dots import find_dot
from sparsec.targets import Target

COMPUTED = ("bfloat16",)
"""What products can be computed in beside float32."""


def round_activations(graph: Graph, target: Target, dtype: str) -> None:
    """Round the weights of layers and what they read to `dtype`, to nearest even.

    Before:  `y = linear_cols(x: float32, W: float32)`
    After:   `y = linear_cols(astype(x): bfloat16, W: bfloat16)`

    The sums and what follows stay float32, and the rounding joins the kernel that makes x where nothing else reads it.
    Weights and activations are each off by at most 2⁻⁸ of themselves, so a layer by 2⁻⁷ Σ |W| |X|. Grouped convolutions
    and layers that no instruction suits stay what they are.

    Parameters
    ----------
    dtype : one of `COMPUTED`

    Raises
    ------
    TargetError : if the processor multiplies no such numbers
    """
    rounded: dict[Value, Value] = {}
    layers = [node for node in graph.nodes if _is_layer(node)]
    for node in layers:
        anchor = find_anchor(node)
        assert anchor is not None
        weight, x = (replace(buffer, dtype=dtype) for buffer in (anchor.product.weight, anchor.product.x))
        if find_dot(replace(anchor.product, weight=weight, x=x, rounded=True), target) is None:
            continue
        source = node.inputs[0]
        if source not in rounded:
            rounded[source] = graph.add(
                "astype", [source], source.shape, {"dtype": dtype}, dtype=dtype, before=node, name=source.name
            )
        data = node.inputs[1].data
        assert data is not None
        stored = data.astype(np.dtype(dtype))
        graph.set_inputs(node, [rounded[source], graph.constant(stored, node.inputs[1].name)])
        node.attrs |= {"rounded": True, ERROR: relative_error(data, stored)}
    if layers and not rounded:
        raise TargetError(
            f"{target.name} has no instruction that multiplies {dtype} for any layer of this model; "
            f"leave compute out, or store the weights as {dtype}"
        )


def _is_layer(node: Node) -> bool:
    if node.op not in ("conv_padded", "linear_cols") or node.attrs.get("groups", 1) != 1:
        return False
    return len(node.inputs) == 2 and node.inputs[1].is_constant and {v.dtype for v in node.inputs} == {"float32"}
