"""Read a Relax module into a Graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import ir, relax, tirx
from tvm.ir import Call, GenericConst, Op
from tvm_ffi import Array

from sparsec.errors import UnsupportedError
from sparsec.frontends.model import Imported
from sparsec.graph.graph import Graph, Value
from sparsec.graph.relax_ops import LIST_PARAMETERS, RENAMED, find_function, parameters
from sparsec.graph.shape import Shape, dim, symbols_of

LOOP_NESTS = ("maximum", "minimum")
"""Operators that TVM's ONNX importer writes as loops of the same name (for Clip), although Relax has them."""


def from_relax(imported: Imported) -> Graph:
    """Read the ``main`` function of an imported model.

    Raises
    ------
    UnsupportedError
        For control flow, a shape that is not known before the run, or a call that is no operator of Relax.
    """
    reader = _Reader(imported)
    reader.read(imported.module["main"])
    graph = reader.graph
    graph.symbols = dict(imported.symbols)
    graph.verify()
    return graph


class _Reader:
    """Maps every Relax variable to a Value, a tuple of Values (a tuple), or a Shape."""

    def __init__(self, imported: Imported) -> None:
        self.imported = imported
        self.graph = Graph()
        self.known: dict[Any, Any] = {}
        self.symbols: set[tirx.Var] = set()

    def read(self, main: relax.Function) -> None:
        for param, name in zip(main.params, self.imported.inputs, strict=True):
            shape, dtype = _tensor_type(param.ty, f"input {name!r}")
            self.known[param] = self.graph.input(name, shape, dtype)
            self.symbols.update(symbols_of(shape))
        if not isinstance(main.body, relax.SeqExpr):
            raise UnsupportedError("The Relax function 'main' has no sequence of bindings; normalize the module first.")
        for block in main.body.blocks:
            for binding in block.bindings:
                self.known[binding.var] = self.expression(binding.value, binding.var)
        result = self.expression(main.body.body, None)
        self.graph.outputs = list(result) if isinstance(result, tuple) else [result]

    def expression(self, expr: Any, var: relax.Var | None) -> Any:
        if isinstance(expr, relax.Var):
            return self.known[expr]
        if isinstance(expr, GenericConst):
            if expr not in self.known:
                self.known[expr] = self.graph.constant(expr.value.numpy())
            return self.known[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self.expression(field, None) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self.expression(expr.tuple_value, None)[expr.index]
        if isinstance(expr, relax.ShapeExpr):
            return _Dims(map(dim, expr.values))
        if isinstance(expr, Call) and var is not None:
            return self.call(expr, var)
        where = f" at {var.name!r}" if var is not None else ""
        raise UnsupportedError(
            f"The model holds a {type(expr).__name__}{where}, which is control flow or a binding of unknown shape; "
            "export the model with fixed or bounded shapes and without branches."
        )

    def call(self, call: Call, var: relax.Var) -> Any:
        if not isinstance(call.op, Op):
            raise UnsupportedError(f"The model calls {call.op} at {var.name!r}, which is no operator of Relax.")
        op = call.op.name.removeprefix("relax.")
        if op == "call_tir":
            return self.call_tir(call, var)
        if op == "shape_of":
            return _Dims(self.expression(call.args[0], None).shape)
        if op == "shape_to_tensor":
            return self.shape_tensor(self.expression(call.args[0], None), var)
        op = RENAMED.get(op, op)
        if find_function(op) is None or op.startswith("call_"):
            raise UnsupportedError(f"The operator {op!r} at {var.name!r} is not supported.")
        inputs: list[Value] = []
        attrs: dict[str, Any] = {}
        names = parameters(op)
        for name, arg in zip(names, call.args, strict=False):
            if isinstance(arg, GenericConst) or (isinstance(arg, relax.Var) and isinstance(arg.ty, relax.TensorType)):
                inputs.append(self.expression(arg, None))
            elif name == LIST_PARAMETERS.get(op):
                inputs.extend(self.expression(arg, None))
            else:
                is_dims = isinstance(arg, relax.Var) and isinstance(arg.ty, relax.ShapeType)
                attrs[name] = tuple(self.known[arg]) if is_dims else plain(arg)
        if call.attrs is not None:
            fields = {f.name: plain(getattr(call.attrs, f.name)) for f in type(call.attrs).__tvm_ffi_type_info__.fields}
            attrs.update((name, value) for name, value in fields.items() if name in names)
        return self.node(op, inputs, attrs, var)

    def shape_tensor(self, dims: Shape, var: relax.Var) -> Value:
        if all(isinstance(d, int) for d in dims):
            return self.graph.constant(np.array(dims, "int64"), var.name)
        return self.node("shape_to_tensor", [], {"expr": tuple(dims)}, var)

    def call_tir(self, call: Call, var: relax.Var) -> Any:
        """A loop nest that the importer wrote itself; it stays one node, unless Relax has an operator for it."""
        gvar, args, *rest = call.args
        if rest:
            raise UnsupportedError(f"The loop nest {gvar.name_hint!r} at {var.name!r} takes symbolic sizes.")
        inputs = [self.expression(arg, None) for arg in args.fields]
        operator = gvar.name_hint.rstrip("0123456789")
        if operator in LOOP_NESTS:
            return self.node(operator, inputs, {}, var)
        return self.node("call_tir", inputs, {"func": self.imported.module[gvar], "name": gvar.name_hint}, var)

    def node(self, op: str, inputs: Sequence[Value], attrs: dict[str, Any], var: relax.Var) -> Any:
        where = self.imported.layers.get(var.name, var.name)
        is_tuple = isinstance(var.ty, relax.TupleType)
        types = [_tensor_type(ty, f"{op} at {where!r}") for ty in (var.ty.fields if is_tuple else [var.ty])]
        if not self.symbols.issuperset(symbols_of(d for shape, _ in types for d in shape)):
            raise UnsupportedError(
                f"The shape of {op} at {where!r} depends on the numbers that it reads, which is known only in the run; "
                "sparsec compiles models whose shapes follow from those of their inputs."
            )
        node = self.graph.add_node(op, inputs, types, attrs, name=var.name)
        node.where = where
        return tuple(node.outputs) if is_tuple else node.output


class _Dims(tuple):
    """A Relax shape value, told apart from a tuple of tensors."""


def plain(value: Any) -> Any:
    """An attribute or non-tensor argument of a Relax call as plain Python data."""
    if isinstance(value, relax.ShapeExpr):
        return tuple(map(dim, value.values))
    if isinstance(value, relax.Tuple):
        return tuple(map(plain, value.fields))
    if isinstance(value, Array | list | tuple):
        return tuple(map(plain, value))
    if isinstance(value, tirx.IntImm | tirx.FloatImm | ir.StringImm):
        return value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) or not isinstance(value, ir.Expr):
        return str(value)
    return dim(value)


def _tensor_type(ty: Any, where: str) -> tuple[Shape, str]:
    if isinstance(ty, relax.TensorType) and isinstance(ty.shape, relax.ShapeExpr):
        return tuple(map(dim, ty.shape.values)), str(ty.dtype)
    raise UnsupportedError(
        f"The shape of {where} is {ty}, which is not known before the run; close the model's open dimensions "
        "with --shape, or with shapes= in Python."
    )
