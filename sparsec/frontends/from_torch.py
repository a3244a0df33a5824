"""From a PyTorch module or exported program to Relax, through torch.export and TVM's importer."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tvm import relax

from sparsec.errors import ModelError, last_line
from sparsec.frontends.bounds import Bounds
from sparsec.frontends.layers import trace_layers
from sparsec.frontends.model import Imported
from sparsec.frontends.quiet import silence
from sparsec.frontends.shapes import Dim, Range, Shapes, StatedDim, bind_shapes
from sparsec.frontends.torch_decompositions import decompositions
from sparsec.frontends.torch_importer import TorchImporter


def import_torch(
    model: torch.nn.Module | torch.export.ExportedProgram,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None,
    shapes: Shapes | None,
) -> Imported:
    """Turn a PyTorch model into Relax; see `load_model`."""
    if isinstance(model, torch.export.ExportedProgram):
        stated = _stated_dims(model)
        dims, symbols = bind_shapes(stated, {**_finite_ranges(model, stated, shapes), **(shapes or {})})
        return _import(model, dims, symbols)
    examples = _name_examples(model, example_inputs)
    dims, symbols = _bind_examples(examples, shapes)
    return _import(_export(model, examples, dims, symbols), dims, symbols)


def read_program(path: str) -> torch.export.ExportedProgram:
    """Read what ``torch.export.save`` wrote."""
    with contextlib.suppress(ImportError):  # registers the operators of quantised programs, which are named in the file
        import torch.ao.quantization.fx._decomposed
    try:
        return torch.export.load(path)
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror or err}") from err
    except Exception as err:  # torch raises errors of many kinds for a foreign or truncated archive
        raise ModelError(f"{path} is not an exported PyTorch program, or it is truncated: {last_line(err)}") from err


def _name_examples(
    model: torch.nn.Module, example_inputs: Sequence[Any] | Mapping[str, Any] | None
) -> dict[str, torch.Tensor]:
    """Example inputs by the name of the argument of ``forward`` that they are."""
    if example_inputs is None:
        raise ModelError(
            f"the PyTorch module {type(model).__name__} needs example inputs, "
            "as in example_inputs=(torch.zeros(1, 3, 224, 224),)"
        )
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    args, kwargs = ((), example_inputs) if isinstance(example_inputs, Mapping) else (example_inputs, {})
    try:
        arguments = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError as err:
        raise ModelError(f"the example inputs do not fit {type(model).__name__}.forward: {err}") from err
    arguments |= arguments.pop("kwargs", {})
    for name, value in arguments.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise ModelError(
                f"argument {name!r} of {type(model).__name__}.forward is {type(value).__name__}; only tensors are "
                "inputs of a compiled model, so wrap the module in one that takes its tensors one by one"
            )
    return {name: value for name, value in arguments.items() if value is not None}


def _bind_examples(
    examples: dict[str, torch.Tensor], shapes: Shapes | None
) -> tuple[dict[str, list[int | str]], dict[str, Range]]:
    """The examples close every axis that ``shapes`` does not open."""
    asked = shapes or {}
    stated: dict[str, list[StatedDim]] = {
        name: [None] * value.dim() if name in asked else list(value.shape) for name, value in examples.items()
    }
    dims, symbols = bind_shapes(stated, shapes)
    for name, value in examples.items():
        for axis, (dim, size) in enumerate(zip(dims[name], value.shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                raise ModelError(f"the shape of {name!r} asks for {dim} at axis {axis}, but its example has {size}")
    return dims, symbols


def _export(
    model: torch.nn.Module,
    examples: dict[str, torch.Tensor],
    dims: dict[str, list[int | str]],
    symbols: dict[str, Range],
) -> torch.export.ExportedProgram:
    sizes = {name: torch.export.Dim(name, min=lower, max=upper) for name, (lower, upper) in symbols.items()}
    dynamic = {
        name: {axis: sizes[d] for axis, d in enumerate(axes) if isinstance(d, str)} for name, axes in dims.items()
    }
    # Tracing with size 1 would specialise to it, so symbolic axes are traced with at least 2.
    traced = {symbol: max(2, lower) for symbol, (lower, _) in symbols.items()}
    kwargs = {name: _resize(value, dims[name], traced) for name, value in examples.items()}
    try:
        with _inference_mode(model), silence():
            return torch.export.export(model, (), kwargs, dynamic_shapes=dynamic, strict=False)
    except Exception as err:  # torch.export raises errors of many kinds, those of the user's code among them
        raise ModelError(f"torch.export cannot export {type(model).__name__}: {last_line(err)}") from err


def _resize(example: torch.Tensor, axes: list[int | str], sizes: dict[str, int]) -> torch.Tensor:
    """Repeat or cut an example along its symbolic axes."""
    for axis, dim in enumerate(axes):
        if isinstance(dim, str):
            example = example.index_select(axis, torch.arange(sizes[dim]) % example.shape[axis])
    return example


@contextlib.contextmanager
def _inference_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off and batch norm frozen, and afterwards every submodule in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _stated_dims(program: torch.export.ExportedProgram) -> dict[str, list[StatedDim]]:
    wanted = set(program.graph_signature.user_inputs)
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name in wanted:
        if not isinstance(values.get(str(name)), torch.Tensor):
            raise ModelError(
                f"input {name!r} of the exported program is not a tensor; export a module that takes only tensors"
            )
    return {
        name: [size if isinstance(size, int) else str(size) for size in values[name].shape]
        for name in map(str, program.graph_signature.user_inputs)
    }


def _finite_ranges(
    program: torch.export.ExportedProgram, stated: dict[str, list[StatedDim]], shapes: Shapes | None
) -> dict[str, Dim]:
    """Ranges that were declared at export and that ``shapes`` says nothing about."""
    free = {dim for name, axes in stated.items() if name not in (shapes or {}) for dim in axes}
    ranges: dict[str, Dim] = {}
    for symbol, bounds in program.range_constraints.items():
        if str(symbol) in free and bounds.upper.is_finite and int(bounds.upper) < 2**31:
            ranges[str(symbol)] = max(1, int(bounds.lower)), int(bounds.upper)
    return ranges


def _import(
    program: torch.export.ExportedProgram, dims: dict[str, list[int | str]], symbols: dict[str, Range]
) -> Imported:
    importer = TorchImporter(dims, Bounds(symbols))
    with silence():
        module = importer.from_exported_program(
            program.run_decompositions(decompositions()),
            keep_params_as_input=False,
            unwrap_unit_return_tuple=True,
            no_bind_return_tuple=False,
            custom_convert_map=None,
        )
    module = relax.transform.DeadCodeElimination()(module)
    return Imported(
        module=module,
        inputs=tuple(dims),
        outputs=_output_names(program),
        symbols=symbols,
        layers=trace_layers(module, importer.named),
    )


def _output_names(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """The keys of a dict or dataclass that the module returns, or numbers."""
    count = len(program.graph_signature.user_outputs)
    keys = program.call_spec.out_spec.context if program.call_spec.out_spec else None
    keys = keys[0] if isinstance(keys, tuple) and keys and isinstance(keys[0], list) else keys
    if isinstance(keys, list) and len(keys) == count and all(isinstance(key, str) for key in keys):
        return tuple(keys)
    return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
