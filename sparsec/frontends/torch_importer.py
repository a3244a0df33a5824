"""TVM's importer of exported programs: results traced to modules, failures explained, masks and slices kept simple."""

import re
from collections.abc import Callable
from typing import Any

import torch
import tvm
from torch.utils import _pytree as pytree
from tvm import relax, tirx
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from sparsec.errors import UnsupportedError, last_line
from sparsec.frontends.bounds import Bounds
from sparsec.frontends.torch_quantized import QUANTIZED, Write

_aten = torch.ops.aten

_ADDED = {"addmm.default": 0, "baddbmm.default": 0, "convolution.default": 2, "linear.default": 2}
"""Products that add something, and which of their arguments it is."""


class TorchImporter(ExportedProgramImporter):
    """Turns an exported program into Relax.

    Parameters
    ----------
    dims : dict
        Input to its sizes and symbols, which take the place of those of the export.
    bounds : Bounds
        Variables and ranges of the symbols.
    """

    def __init__(self, dims: dict[str, list[int | str]], bounds: Bounds) -> None:
        self.dims = dims
        self.bounds = bounds
        self.named: dict[str, str] = {}
        """Variables that hold the result of a node, and the module and node that they came from."""
        super().__init__()

    def create_convert_map(self) -> dict[str, Callable[[Any], Any]]:
        converters: dict[str, Callable[[Any], Any]] = super().create_convert_map()
        converters |= {
            "_embedding_bag.default": self._embed_bags,
            "_embedding_bag_forward_only.default": self._embed_bags,
            "bitwise_and.Tensor": self._and,
            "embedding.default": self._embed,
            "full.default": self._full,
            "index.Tensor": self._index,
            "slice.Tensor": self._slice_in_bounds,
        }
        converters |= {op: self._quantized(write) for op, write in QUANTIZED.items()}
        return {op: self._traced(op, convert) for op, convert in converters.items()}

    def _quantized(self, write: Write) -> Callable[[Any], Any]:
        return lambda node: write(self.block_builder, self.env.__getitem__, node)

    def _traced(self, op: str, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def convert_traced(node: Any) -> Any:
            layer = _layer_of(node)
            try:
                result = self._convert_halves(node, op, convert) if _is_half(node) else convert(node)
            except Exception as err:  # converters raise assertions, ValueErrors, KeyErrors and TVM's own errors
                raise UnsupportedError(
                    f"node {layer!r}: operator {op} on {_describe_inputs(node)} is not supported: {last_line(err)}"
                ) from err
            for value in pytree.tree_leaves(result):
                if isinstance(value, relax.Var):
                    self.named.setdefault(value.name, layer)
            return result

        return convert_traced

    def _convert_halves(self, node: Any, op: str, convert: Callable[[Any], Any]) -> Any:
        """Convert a node whose result has half precision; TVM's converters give products in float32.

        What such a converter adds to a product must then be float32 too, and the result is rounded once.
        """
        added = node.args[_ADDED[op]] if op in _ADDED and len(node.args) > _ADDED[op] else None
        if added is not None:
            given = self.env[added]
            self.env[added] = self.block_builder.emit(relax.op.astype(given, "float32"))
        result = convert(node)
        if added is not None:
            self.env[added] = given
        if isinstance(result, relax.Var) and str(result.ty.dtype) == "float32":
            result = self.block_builder.emit(relax.op.astype(result, _dtype(node)))
        return result

    def from_exported_program(self, exported_program: Any, *arguments: Any, **options: Any) -> tvm.IRModule:
        self._check_unsupported_func_type(exported_program.graph.nodes)
        try:
            return super().from_exported_program(exported_program, *arguments, **options)
        except UnsupportedError:
            self.block_builder._end_block()  # the builder complains of open blocks when it is freed
            raise

    def create_input_vars(self, exported_program: torch.export.ExportedProgram) -> tuple[Any, Any, dict[str, Any]]:
        constants, inputs, _ = super().create_input_vars(exported_program)
        for name, axes in self.dims.items():
            inputs[name] = relax.Var(name, relax.TensorType(self.bounds.shape(axes), inputs[name].ty.dtype))
        return constants, inputs, {}

    def _check_unsupported_func_type(self, nodes: Any) -> None:
        for node in nodes:
            if node.op == "call_function" and node.target.__name__ not in self.convert_map:
                raise UnsupportedError(
                    f"node {_layer_of(node)!r}: operator {node.target} on {_describe_inputs(node)} is not supported"
                )

    def _embed_bags(self, node: Any) -> list[relax.Var]:
        """Sums or means of rows in bags of one size, whose offsets PyTorch counts up in steps of that size."""
        defaults: tuple[Any, ...] = (False, 0, False, None, False, -1)
        given = tuple(node.args)
        table, ids, offsets, _, mode, _, weights, _, padding = given + defaults[len(given) - 3 :]
        if offsets.target is not _aten.arange.start_step or mode > 1 or padding >= 0:
            raise NotImplementedError("only sums and means of ids [bags, size] without padding are")
        emit, shape = self.block_builder.emit, (-1, offsets.args[2])
        rows = emit(relax.op.take(self.env[table], emit(relax.op.reshape(self.env[ids], shape)), axis=0))
        if weights is not None:
            rows = emit(relax.op.multiply(rows, emit(relax.op.reshape(self.env[weights], (*shape, 1)))))
        return [emit((relax.op.mean if mode else relax.op.sum)(rows, axis=1))]

    def _embed(self, node: Any) -> relax.Var:
        weight, indices = (self.env[argument] for argument in node.args[:2])
        return self.block_builder.emit(relax.op.take(weight, indices, axis=0))

    def _full(self, node: Any) -> Any:
        """A scalar constant, broadcast; TVM's ``full`` does not lower with a constant of its own making."""
        shape, value = tuple(self.retrieve_args(node))[:2]
        scalar = relax.const(value, _dtype(node))
        return self.block_builder.emit(relax.op.broadcast_to(scalar, shape)) if shape else scalar

    def _slice_in_bounds(self, node: Any) -> relax.Var:
        """Compare the ends with the axis here: ``min(seq, 512)``, inferred by TVM, would not match ``seq`` later."""
        given = tuple(self.retrieve_args(node))
        defaults: tuple[Any, ...] = (None, 0, None, None, 1)
        x, axis, start, end, step = given + defaults[len(given) :]
        size = x.ty.shape[axis]
        start, end = (self._position(value, size, default) for value, default in ((start, 0), (end, size)))
        if step == 1 and start == 0 and not isinstance(end, int) and tvm.ir.prim.expr_deep_equal(end, size):
            return x
        return self.block_builder.emit(relax.op.strided_slice(x, [axis], [start], [end], [step], assume_inbound=True))

    def _position(self, value: Any, size: Any, default: Any) -> Any:
        if value is None:
            return default
        if isinstance(value, int):
            value = tirx.const(min(value, 2**31 - 1), "int64")
            value = value + size if value.value < 0 else value
        return self.bounds.simplify(tirx.max(tirx.min(value, size), tirx.const(0, "int64")))

    def _index(self, node: Any) -> relax.Var:
        """Indexing every axis by all its positions only places the axes: that is how transformers build masks."""
        data, indices = node.args
        axes = [_iota_axis(index) if index is not None else None for index in indices]
        places = [axis for axis in axes if axis is not None]
        x = self.env[data]
        whole = len(places) == len(x.ty.shape) and all(
            str(index.meta["val"].numel()) == str(size)
            for index, size in zip(indices, data.meta["val"].shape, strict=True)
        )
        if not whole or places != sorted(set(places)):
            return self._index_tensor(node)
        rank = node.meta["val"].dim()
        offset = rank - indices[0].meta["val"].dim()
        missing = sorted(set(range(rank)) - {place + offset for place in places})
        return self.block_builder.emit(relax.op.expand_dims(x, missing))

    def _and(self, node: Any) -> relax.Var:
        """A conjunction with what always holds is its other side, broadcast."""
        left, right = (self.env[argument] for argument in node.args)
        result = relax.op.bitwise_and(left, right)
        for sure, other in ((node.args[0], right), (node.args[1], left)):
            if _always_true(sure):
                shape = self.block_builder.normalize(result).ty.shape
                return self.block_builder.emit(relax.op.broadcast_to(other, shape))
        return self.block_builder.emit(result)


def _dtype(node: Any) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _is_half(node: Any) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def _iota_axis(node: Any) -> int | None:
    """Where the axis of 0, 1, 2, … lies in an index that holds nothing else."""
    if node.target in (_aten.arange.default, _aten.arange.start, _aten.arange.start_step):
        start, step = (node.args[0], node.args[2:]) if node.target != _aten.arange.default else (0, ())
        return 0 if start == 0 and step in ((), (1,)) else None
    if node.target in (_aten.add.Tensor, _aten.add.Scalar) and node.args[1] == 0:
        return _iota_axis(node.args[0])
    if node.target == _aten.unsqueeze.default and (axis := _iota_axis(node.args[0])) is not None:
        place = node.args[1] % node.meta["val"].dim()
        return axis + 1 if place <= axis else axis
    return None


def _always_true(node: Any) -> bool:
    if node.target == _aten.ge.Scalar:
        return node.args[1] == 0 and _iota_axis(node.args[0]) is not None
    if node.target == _aten.bitwise_and.Tensor:
        return all(map(_always_true, node.args))
    return node.target == _aten.full.default and node.args[1] is True


def _layer_of(node: Any) -> str:
    """The module that a node belongs to, in the words of ``named_modules``, and the node."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = re.sub(r"^L\['self'\]\.?", "", stack[-1][0]) if stack else ""
    return f"{path}:{node.name}" if path else node.name


def _describe_inputs(node: Any) -> str:
    values = [argument.meta.get("val") for argument in node.all_input_nodes]
    return (
        "("
        + ", ".join(
            f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}" for v in values if isinstance(v, torch.Tensor)
        )
        + ")"
    )
