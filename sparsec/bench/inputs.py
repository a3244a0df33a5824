"""Inputs for any ONNX model, made from a seed."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sparsec.errors import InputError, ModelError


def seeded_inputs(
    model: str | PathLike[str], shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Random inputs for an ONNX model, the same for the same seed.

    Floats are standard normal. Integers are drawn below the size of the table that they index, masks are all ones.
    """
    try:
        graph = onnx.load(fspath(model), load_external_data=False).graph
    except Exception as error:
        raise ModelError(f"{fspath(model)} cannot be read as an ONNX model: {error}") from error
    rows = {tensor.name: tensor.dims for tensor in graph.initializer}
    bounds = {
        node.input[1]: rows[node.input[0]][next((a.i for a in node.attribute if a.name == "axis"), 0)]
        for node in graph.node
        if node.op_type == "Gather" and node.input[0] in rows
    }
    rng = np.random.default_rng(seed)
    inputs: dict[str, NDArray[Any]] = {}
    for value in graph.input:
        if value.name in rows:
            continue
        tensor = value.type.tensor_type
        shape = (shapes or {}).get(value.name) or [d.dim_value for d in tensor.shape.dim]
        if not all(size > 0 for size in shape):
            open_shape = ",".join(d.dim_param or str(d.dim_value or "?") for d in tensor.shape.dim)
            raise InputError(
                f"input {value.name} of {fspath(model)} has the open shape [{open_shape}]: close it with --shape"
                f" {value.name}=… (shapes={{{value.name!r}: …}} in Python)"
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if "mask" in value.name:
            inputs[value.name] = np.ones(shape, dtype)
        elif dtype.kind not in "biu":  # bfloat16 has a kind of its own
            inputs[value.name] = rng.standard_normal(shape, np.float32).astype(dtype)
        else:
            inputs[value.name] = rng.integers(0, bounds.get(value.name, 2), shape).astype(dtype)
    return inputs
