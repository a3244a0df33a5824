"""The way in: any model that sparsec reads becomes one Relax function."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsec.errors import ModelError
from sparsec.frontends.shapes import Shapes, check_form


@dataclass(frozen=True)
class Imported:
    """A model as a Relax module, with the words in which its user knows it.

    Parameters
    ----------
    module : tvm.IRModule
        Its ``main`` takes the true inputs and nothing else; weights are constants in it.
    inputs, outputs : tuple of str
        Names in the model, in the order of the parameters and results of ``main``.
    symbols : dict
        Symbolic dimension (the name of its variable in ``module``) to its inclusive ``(lower, upper)`` range.
    layers : dict
        Relax variable in ``main`` (its name hint) to the node of the model that it was made from.
    groups : frozenset of int
        How many consecutive weights share a scale where the model stored these floats as integers, 0 for all of a row.
    """

    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    symbols: dict[str, tuple[int, int]] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    groups: frozenset[int] = frozenset()


def load_model(
    model: Any, example_inputs: Sequence[Any] | Mapping[str, Any] | None = None, shapes: Shapes | None = None
) -> Imported:
    """Read a model and turn it into Relax.

    >>> load_model("bert.onnx", shapes={"batch": (1, 8), "sequence": 128})  # doctest: +SKIP
    >>> load_model(torch_module, example_inputs=(torch.zeros(1, 3, 224, 224),))  # doctest: +SKIP

    Parameters
    ----------
    model : path of an ONNX or PT2 file, onnx.ModelProto, torch.nn.Module or torch.export.ExportedProgram
    example_inputs : tuple or dict of torch.Tensor, optional
        What a ``torch.nn.Module`` is traced with: positional arguments, or keyword arguments.
    shapes : mapping, optional
        Input name to its shape, one entry per axis: an int closes the axis, ``(lower, upper)`` bounds it, a str makes
        it the symbol of that name. The name of a symbolic dimension may stand in place of an input's and takes one
        such entry, which holds wherever the name occurs.

    Raises
    ------
    ModelError
        The model cannot be read, an axis stays open, or `shapes` is of another form.
    UnsupportedError
        It holds an operator, an attribute or a type that cannot be imported.
    """
    check_form(shapes)
    if isinstance(model, str | os.PathLike):
        path = os.fspath(model)
        if path.endswith(".pt2"):
            return _torch().import_torch(_torch().read_program(path), None, shapes)
        return _onnx(model, shapes, path)
    if type(model).__module__.partition(".")[0] == "onnx":
        return _onnx(model, shapes)
    if hasattr(model, "state_dict"):
        return _torch().import_torch(model, example_inputs, shapes)
    raise ModelError(
        f"cannot read a model from {type(model).__name__}; give the path of an ONNX file, an onnx.ModelProto, "
        "a torch.nn.Module with example inputs, or a torch.export.ExportedProgram"
    )


def _onnx(model: Any, shapes: Shapes | None, path: str | None = None) -> Imported:
    from sparsec.frontends.from_onnx import import_onnx
    from sparsec.frontends.onnx_read import check_onnx, read_onnx

    return import_onnx(read_onnx(path) if path is not None else check_onnx(model), shapes)


def _torch() -> Any:
    try:
        from sparsec.frontends import from_torch
    except ImportError as err:
        raise ModelError(f"this model needs PyTorch ({err}); install it with pip install 'sparsec[torch]'") from err
    return from_torch
