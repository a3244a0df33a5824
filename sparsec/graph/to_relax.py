"""Write nodes of a Graph back as a Relax function."""

from collections.abc import Callable, Sequence
from typing import Any

from tvm import ir, relax, tirx
from tvm.ir import is_prim_expr

from sparsec.errors import UnsupportedError
from sparsec.graph.graph import Node, Value
from sparsec.graph.relax_ops import LIST_PARAMETERS, find_function, parameters
from sparsec.graph.shape import symbols_of
from sparsec.ir.image import Image


def to_relax(nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]) -> ir.IRModule:
    """Write nodes, in topological order, as the function ``main`` of a Relax module.

    Parameters
    ----------
    inputs
        The values that become parameters; they may be constants. Other constants are embedded, those of one element as
        numbers that broadcast.
    outputs
        The values that are returned, as a tuple where there are several.

    Notes
    -----
    A symbolic variable that no parameter has as a dimension of its own (``n`` where there is only ``4 * n``) arrives
    in one more parameter, a shape with those variables in order.
    """
    builder = relax.BlockBuilder()
    known: dict[Value, relax.Expr] = {v: relax.Var(_identifier(v), relax.TensorType(v.shape, v.dtype)) for v in inputs}
    params = list(known.values())
    hidden = _hidden_symbols(nodes, inputs)
    if hidden:
        params.append(relax.Var("symbols", relax.ShapeType(hidden)))
    with builder.function("main", params):
        with builder.dataflow():
            for node in nodes:
                args = [known[v] if v in known else _embedded(v) for v in node.inputs]
                result = builder.emit(_call(builder, node, args))
                if len(node.outputs) == 1:
                    known[node.output] = result
                else:
                    known.update((v, builder.emit(relax.TupleGetItem(result, i))) for i, v in enumerate(node.outputs))
            returned = [known[v] for v in outputs]
            result = builder.emit_output(returned[0] if len(returned) == 1 else relax.Tuple(returned))
        builder.emit_func_output(result)
    return builder.get()


def _call(builder: relax.BlockBuilder, node: Node, args: list[relax.Expr]) -> relax.Expr:
    if node.op in _INTRODUCED:
        return _INTRODUCED[node.op](node, *args)
    if node.op == "call_tir":
        func = builder.add_func(node.attrs["func"], node.attrs["name"])
        return relax.call_tir(func, args, [relax.TensorType(v.shape, v.dtype) for v in node.outputs])
    function = find_function(node.op)
    if function is None:
        raise UnsupportedError(f"The operator {node.op!r} at {node.where!r} has no form in Relax.")
    arguments: dict[str, Any] = {}
    names = [name for name in parameters(node.op) if name not in node.attrs]
    for position, name in enumerate(names):
        if name == LIST_PARAMETERS.get(node.op):
            behind = len(names) - position - 1  # tensors for the parameters after the list
            arguments[name] = [args.pop(0) for _ in range(len(args) - behind)]
        elif args:
            arguments[name] = args.pop(0)
    attrs = {name: _expression(node, name, value) for name, value in node.attrs.items()}
    return function(**arguments, **attrs)


def _embedded(value: Value) -> relax.Expr:
    """A constant in the code; one element has rank 0, which TVM writes as a number."""
    assert value.data is not None, f"{value!r} is neither an input nor a constant"
    return relax.const(value.data.reshape(()) if value.data.size == 1 else value.data, value.dtype)


def _expression(node: Node, name: str, value: Any) -> Any:
    """The form in which the Relax function takes an attribute."""
    match node.op, name:
        case "shape_to_tensor", "expr":
            return relax.ShapeExpr(value)
        case "take", "indices":
            return relax.prim_value(value)
        case "one_hot", "on_value" | "off_value":
            return tirx.const(value, node.outputs[0].dtype)
    return list(value) if isinstance(value, tuple) else value


def _hidden_symbols(nodes: Sequence[Node], inputs: Sequence[Value]) -> list[Any]:
    plain = {d for value in inputs for d in value.shape if isinstance(d, tirx.Var)}
    used = symbols_of(d for node in nodes for value in node.outputs for d in value.shape)
    used += symbols_of(d for value in inputs for d in value.shape)
    used += symbols_of(d for node in nodes for attr in node.attrs.values() for d in _dims(attr))
    return [v for v in dict.fromkeys(used) if v not in plain]


def _dims(attr: Any) -> tuple[Any, ...]:
    """The symbolic sizes in an attribute: of a slice, a range or a shape that becomes a tensor."""
    return tuple(d for d in (attr if isinstance(attr, tuple) else (attr,)) if is_prim_expr(d))


def _identifier(value: Value) -> str:
    return "".join(c if c.isalnum() else "_" for c in value.name)


def _swap_last(x: relax.Expr, rank: int) -> relax.Expr:
    return relax.op.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2])


def _conv2d(node: Node, x: relax.Expr, weight: relax.Expr) -> relax.Expr:
    attrs = {k: list(v) if isinstance(v, tuple) else v for k, v in node.attrs.items() if k != "blank"}
    if node.attrs.get("blank"):
        top, left, bottom, right = attrs["padding"]
        x = relax.op.nn.pad(x, [0, 0, 0, 0, top, bottom, left, right], node.attrs["blank"])
        attrs["padding"] = [0, 0, 0, 0]
    return relax.op.nn.conv2d(x, weight, **attrs, out_dtype=node.output.dtype)


def _linear(node: Node, x: relax.Expr, weight: relax.Expr) -> relax.Expr:
    return relax.op.matmul(x, _swap_last(weight, 2))


def _linear_cols(node: Node, x: relax.Expr, weight: relax.Expr) -> relax.Expr:
    return relax.op.matmul(weight, x)


def _batch_matmul(node: Node, lhs: relax.Expr, rhs: relax.Expr) -> relax.Expr:
    if node.attrs["lhs_transposed"]:
        lhs = _swap_last(lhs, node.inputs[0].rank)
    return relax.op.matmul(lhs, rhs)


def _pixels(node: Node, x: relax.Expr) -> relax.Expr:
    image: Image = node.attrs["image"]
    *outer, _ = node.inputs[0].shape
    end = image.origin + image.height * image.pitch
    rows = relax.op.strided_slice(x, [2], [image.origin], [end], [1], assume_inbound=True)
    rows = relax.op.reshape(rows, [*outer, image.height, image.pitch])
    return relax.op.strided_slice(rows, [3], [0], [image.width], [1], assume_inbound=True)


_INTRODUCED: dict[str, Callable[..., relax.Expr]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "linear_cols": _linear_cols,
    "batch_matmul": _batch_matmul,
    "pixels": _pixels,
}
"""The operators that passes introduce, as calls of Relax's own."""
